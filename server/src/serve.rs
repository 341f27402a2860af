//! `hauld serve`: from configuration to listening sockets, and the signals that stop it.

use std::io;
use std::path::Path;

use nix::sys::prctl;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::error::ServerError;
use crate::front::Options;
use crate::https::Https;
use crate::{host_key, listener};

/// Serves until a signal stops it.
pub(crate) fn serve(path: Option<&Path>) -> Result<(), ServerError> {
    let config = Config::load_or_single_user(path)?;
    let (warnings, problems): (Vec<_>, Vec<_>) =
        config.check().into_iter().partition(|problem| problem.warning);
    if !problems.is_empty() {
        return Err(config.refused_for(problems));
    }
    for problem in warnings {
        warn!(%problem, "configuration");
    }
    // The host key is in our memory: nobody of the same account may look.
    if let Err(error) = prctl::set_dumpable(false) {
        warn!(%error, "memory can be read by processes of the same account");
    }
    let key = host_key::load_or_create(&config.state_dir)?;
    info!(version = env!("CARGO_PKG_VERSION"), host_key = host_key::fingerprint(&key), "hauld");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServerError::Runtime)?;
    runtime.block_on(async {
        // Before the log says that we listen: who waits for that line may stop us at once.
        let shutdown = stop_on_signals().map_err(ServerError::Runtime)?;
        let listeners = bind_all(&config)?;
        let https = Https::open(&config)?;
        listener::run(listeners, https, config, key, Options::default(), shutdown).await
    })?;
    info!("stopped");
    Ok(())
}

/// Opens every address. One that was not asked for is left out if the machine does not know its protocol.
fn bind_all(config: &Config) -> Result<Vec<TcpListener>, ServerError> {
    let mut listeners = Vec::new();
    let mut refused = None;
    for address in &config.ssh_listen {
        match listener::bind(*address) {
            Ok(listener) => {
                let address = listener.local_addr().map_err(ServerError::Runtime)?;
                info!(%address, "listening");
                listeners.push(listener);
            }
            Err(error) if config.listens_by_default() && no_such_protocol(&error) => {
                warn!(%address, "not listening, the machine does not have this protocol");
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match refused {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn no_such_protocol(error: &ServerError) -> bool {
    let ServerError::Listen { source, .. } = error else { return false };
    source.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
        || source.kind() == io::ErrorKind::AddrNotAvailable
}

/// Turns true at SIGTERM or SIGINT.
fn stop_on_signals() -> io::Result<watch::Receiver<bool>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        // Fails only when nobody serves any more.
        let _ = sender.send(true);
        info!(signal = name, "stopping");
    });
    Ok(receiver)
}
