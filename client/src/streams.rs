//! Opens the streams that carry data where UDP does not: TLS connections to the server, directly or through a proxy, and
//! datagrams between the lines of the SSH channel. Not here: when they are used (`haul_proto::ladder`), TLS itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use haul_http_fallback::carrier::{MAX_NUMBER, pump};
use haul_http_fallback::dial::{self, Proxy, Target, Trust};
use haul_io::{Command, Waker, streams};
use haul_proto::control::{Agreement, Feature, Trouble, mark_frames};
use haul_proto::ladder::{Allowed, Rung};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::TransferRequest;
use crate::error::ClientError;
use crate::plan::{CarrierChoice, Secret};
use crate::ssh::FrameWriter;

/// TLS connections unless said otherwise: each has its own recovery, so that random loss slows a part only.
const STREAMS: u8 = 4;

/// Port of a proxy in front of the server unless its name has another.
const PUBLIC_PORT: u16 = 443;

/// Pieces of the channel that may wait for the protocol thread.
const FRAMES_WAITING: usize = 16;

/// Bytes of datagrams that are put between lines at once: a line waits no longer than that.
const FRAME_BYTES: usize = 32 << 10;

/// What the user allows, and the server has.
///
/// # Errors
/// If the user wants one that the server does not have.
pub(crate) fn allowed(request: &TransferRequest, agreement: &Agreement) -> Result<Allowed, ClientError> {
    let carriers = &request.plan.carrier;
    let has = Allowed {
        // Through a proxy there is no UDP, and what is behind it has no address here.
        udp: carriers.proxy.is_none() || carriers.choice == CarrierChoice::Udp,
        https: agreement.https.is_some(),
        ssh: agreement.features.contains(&Feature::SshCarrier),
    };
    let none = Allowed { udp: false, https: false, ssh: false };
    let wanted = match carriers.choice {
        CarrierChoice::Auto => has,
        CarrierChoice::Udp => Allowed { udp: true, ..none },
        CarrierChoice::Https => Allowed { https: has.https, ..none },
        CarrierChoice::Ssh => Allowed { ssh: has.ssh, ..none },
    };
    if wanted == none {
        return Err(ClientError::trouble(
            Trouble::Incompatible,
            "the server has not the carrier that --carrier asks for; leave --carrier away, or ask its administrator \
             for [https] listen"
                .to_owned(),
        ));
    }
    Ok(wanted)
}

/// What speaks with the protocol thread.
#[derive(Clone)]
pub(crate) struct Ears {
    pub(crate) commands: std::sync::mpsc::Sender<Command>,
    pub(crate) waker: Waker,
}

impl Ears {
    fn tell(&self, command: Command) {
        // The thread may have ended by itself; then there is nobody to tell.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}

/// The TLS connections of a session.
pub(crate) struct Https {
    target: Arc<Target>,
    count: u8,
    /// Each connection has a number of its own, also those that are opened again.
    next: Arc<AtomicU16>,
}

impl Https {
    /// Where they go; none if the server has no such carrier.
    ///
    /// # Errors
    /// If a proxy is named that is none.
    pub(crate) fn new(
        request: &TransferRequest,
        agreement: &Agreement,
        ssh_host: String,
    ) -> Result<Option<Self>, ClientError> {
        let Some(endpoint) = &agreement.https else { return Ok(None) };
        let carriers = &request.plan.carrier;
        let proxy = proxy(request)?;
        // Behind a proxy names may have other addresses than here: it gets the name.
        let host = if proxy.is_some() { request.host_name.clone() } else { ssh_host };
        let port = carriers.port.unwrap_or(endpoint.port);
        let fingerprint = Trust::Fingerprint(*endpoint.certificate_sha256.as_bytes());
        let (host, port, trust) = match &endpoint.proxy {
            None => (host, port, fingerprint),
            Some(public) => match public.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
                Some((host, Ok(port))) => (host.to_owned(), port, Trust::Authorities),
                _ => (public.clone(), carriers.port.unwrap_or(PUBLIC_PORT), Trust::Authorities),
            },
        };
        let (session, token) = (agreement.session.clone(), *endpoint.token.as_bytes());
        let target = Arc::new(Target { host, port, trust, session, token, proxy });
        Ok(Some(Self { target, count: carriers.streams.unwrap_or(STREAMS), next: Arc::default() }))
    }

    /// Opens them, and moves bytes until the session ends.
    pub(crate) fn open(&self, ears: Ears) {
        let (target, next, count) = (Arc::clone(&self.target), Arc::clone(&self.next), self.count);
        tokio::spawn(async move {
            let mut opening = JoinSet::new();
            for _ in 0..count {
                let (target, next, ears) = (Arc::clone(&target), Arc::clone(&next), ears.clone());
                opening.spawn(async move {
                    let number = next.fetch_add(1, Ordering::Relaxed).min(MAX_NUMBER);
                    let stream = dial::connect(&target, number).await.map_err(|error| error.to_string())?;
                    let (ours, theirs) = streams::pair().map_err(|error| error.to_string())?;
                    ears.tell(Command::AddStream(ours, Rung::Https));
                    tokio::spawn(async move {
                        let ended = pump(stream, theirs).await;
                        tracing::debug!(number, ?ended, "https connection ended");
                    });
                    Ok::<(), String>(())
                });
            }
            let (mut opened, mut reason) = (0, String::new());
            while let Some(result) = opening.join_next().await {
                match result.map_err(|error| error.to_string()).and_then(|result| result) {
                    Ok(()) => opened += 1,
                    Err(error) => reason = error,
                }
            }
            tracing::info!(opened, reason, "https connections");
            if opened == 0 {
                ears.tell(Command::StreamFailed(Rung::Https, crate::sanitize::text(&reason)));
            }
        });
    }
}

/// The proxy for TLS connections: of the options, else of the environment unless that excepts the host.
fn proxy(request: &TransferRequest) -> Result<Option<Proxy>, ClientError> {
    let carriers = &request.plan.carrier;
    let named = carriers.fallback_proxy.clone().or_else(|| carriers.proxy.clone());
    let of_environment = || {
        let variable = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok());
        let except = variable(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        variable(["HTTPS_PROXY", "https_proxy"])
            .filter(|proxy| !proxy.is_empty() && !is_excepted(&except, &request.host_name))
    };
    named.or_else(of_environment).map(|text| read_proxy(request, &text)).transpose()
}

/// Reads a proxy. The password may come from the environment, where `ps` does not show it.
pub(crate) fn read_proxy(request: &TransferRequest, text: &str) -> Result<Proxy, ClientError> {
    let password = request.plan.environment.proxy_password.as_ref();
    Proxy::parse(text, password.map(Secret::as_bytes))
        .map_err(|error| ClientError::trouble(Trouble::Incompatible, format!("proxy: {error}")))
}

/// Whether a list as of `NO_PROXY` holds the host: names with all below them, or `*`.
fn is_excepted(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split(',').map(|name| name.trim().trim_start_matches('.').to_ascii_lowercase()).any(|name| {
        name == "*"
            || (!name.is_empty()
                && (host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'))))
    })
}

/// The way for datagrams between lines, from the channel to the protocol thread.
pub(crate) type Frames = mpsc::Sender<Vec<u8>>;

/// Opens the stream between the lines of the channel.
///
/// # Errors
/// If the system has no more sockets.
pub(crate) fn between_lines(ears: &Ears, writer: FrameWriter) -> std::io::Result<Frames> {
    let (ours, theirs) = streams::pair()?;
    let (mut from_drive, mut to_drive) = UnixStream::from_std(theirs)?.into_split();
    let (frames, mut arrived) = mpsc::channel::<Vec<u8>>(FRAMES_WAITING);
    tokio::spawn(async move {
        while let Some(bytes) = arrived.recv().await {
            if to_drive.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; FRAME_BYTES];
        let (mut filled, mut marked) = (0, Vec::new());
        loop {
            let Some(room) = buffer.get_mut(filled..) else { return };
            let Ok(count @ 1..) = from_drive.read(room).await else { return };
            filled += count;
            marked.clear();
            let taken = mark_frames(buffer.get(..filled).unwrap_or_default(), &mut marked);
            if !marked.is_empty() && !writer.write(&marked).await {
                return;
            }
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
    });
    ears.tell(Command::AddStream(ours, Rung::Ssh));
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_excepted_from_the_proxy_with_all_below_them() {
        let cases = [
            ("example.org", "a.example.org", true),
            (".example.org", "a.example.org", true),
            ("example.org", "example.org", true),
            ("example.org", "notexample.org", false),
            ("localhost, Example.org", "a.EXAMPLE.org", true),
            ("*", "any", true),
            ("", "any", false),
        ];
        for (list, host, excepted) in cases {
            assert_eq!(is_excepted(list, host), excepted, "{list} {host}");
        }
    }
}
