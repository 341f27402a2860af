//! Accepts connections on several addresses and sees each to its end. Outlives a shortage of descriptors, and on a stop
//! lets the sessions end before it returns. What a connection says is not its business.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use russh::Disconnect;
use russh::keys::PrivateKey;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::admission::{Ending, NotAdmitted};
use crate::config::Config;
use crate::deadline::DeadlineStream;
use crate::error::ServerError;
use crate::front::{ConnectionPermit, Front, stopped};
use crate::host_key;
use crate::https::Https;
use crate::policy::random_session_name;
use crate::ssh::{Connection, Handler};
use crate::ssh_settings;
use crate::web::site::Web;
use crate::worker::{self, WorkerStart};

pub use crate::front::Options;

/// Connections the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Rest after a failed accept: doubled each time up to the limit. Descriptors come back when other connections end.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Refused connections are counted and told at most this often.
const REFUSALS_EVERY: Duration = Duration::from_secs(10);

/// From the stop until connections are dropped. Workers get ten seconds of it.
const STOP_TIME: Duration = Duration::from_secs(15);

/// Opens a listening socket; an IPv6 one does not take IPv4, so that both can be listened on.
///
/// # Errors
/// [`ServerError::Listen`].
pub fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let open = || {
        let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        if address.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        }
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|source: io::Error| ServerError::Listen { address, source })
}

/// Serves until `shutdown` turns true, then until the sessions have ended.
///
/// # Errors
/// If the state of the pages cannot be read; none while it serves.
pub async fn run(
    listeners: Vec<TcpListener>,
    https: Https,
    config: Config,
    host_key: PrivateKey,
    options: Options,
    shutdown: watch::Receiver<bool>,
) -> Result<(), ServerError> {
    let passwords = config.users.iter().any(|user| user.password.is_some());
    let certificate = host_key::certificate(config.host_certificate.as_deref(), &host_key)?;
    let ssh = ssh_settings::config(host_key, certificate, passwords);
    let web = Web::open(&config, &options)?;
    let front = Arc::new(Front::new(config, options, ssh, web, https.face()));
    front.trust.scan(&front.config.users);
    let mut broker = JoinSet::new();
    broker.spawn(Arc::clone(&front.broker).run());
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept_loop(listener, Arc::clone(&front), shutdown.clone()));
    }
    loops.spawn(https.run(Arc::clone(&front), shutdown));
    while loops.join_next().await.is_some() {}
    broker.shutdown().await;
    Ok(())
}

async fn accept_loop(listener: TcpListener, front: Arc<Front>, mut shutdown: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut refusals = Refusals::default();
    let mut rest = FIRST_REST;
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            // Collected as they end, so that the set does not grow.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    rest = FIRST_REST;
                    match front.admit(peer.ip()) {
                        Ok(permit) => {
                            connections.spawn(serve(stream, peer, permit, Arc::clone(&front), shutdown.clone()));
                        }
                        Err(reason) => refusals.handle(peer, reason),
                    }
                }
                Err(error) => {
                    warn!(%error, rest_ms = rest.as_millis(), "accept failed");
                    sleep(rest).await;
                    rest = (rest * 2).min(LONGEST_REST);
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIME, ended).await.is_err() {
        warn!(connections = connections.len(), "connections dropped at stop");
        connections.shutdown().await;
    }
}

/// One connection from greeting to end.
async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    mut permit: ConnectionPermit,
    front: Arc<Front>,
    shutdown: watch::Receiver<bool>,
) {
    let Ok(id) = random_session_name() else {
        warn!("connection dropped, the system has no random numbers");
        return;
    };
    let span = info_span!("connection", session = id, %peer);
    let ending = converse(stream, peer, id, front, shutdown).instrument(span.clone()).await;
    let _entered = span.enter();
    match ending {
        // A fixed form for log watchers.
        Ending::Refused | Ending::Overdue => info!(source = %peer.ip(), reason = ?ending, "login failed"),
        Ending::LoggedIn => info!("disconnected"),
        Ending::Silent | Ending::Anonymous => debug!("disconnected without a login"),
    }
    permit.ending = ending;
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    id: String,
    front: Arc<Front>,
    shutdown: watch::Receiver<bool>,
) -> Ending {
    debug!("connected");
    // The library sets this only in its own accept loop.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "connection gone at once");
        return Ending::Silent;
    }
    let local = stream.local_addr().ok();
    let logged_in = Arc::new(AtomicBool::new(false));
    let tried = Arc::new(AtomicBool::new(false));
    let stream = DeadlineStream::new(stream, front.options.login_deadline, Arc::clone(&logged_in));
    let (starts, queue) = mpsc::channel(1);
    let connection =
        Connection { id, peer, local, logged_in: Arc::clone(&logged_in), tried: Arc::clone(&tried), starts };
    let handler = Handler::new(Arc::clone(&front), connection, tracing::Span::current());
    let result = match russh::server::run_stream(Arc::clone(&front.ssh), stream, handler).await {
        Ok(session) => {
            let handle = session.handle();
            tokio::join!(session, serve_sessions(queue, handle, &front, shutdown)).0
        }
        Err(error) => Err(error),
    };
    let overdue = matches!(&result, Err(russh::Error::IO(error)) if error.kind() == io::ErrorKind::TimedOut);
    if let Err(error) = result {
        debug!(%error, "connection ended");
    }
    match (logged_in.load(Ordering::Relaxed), tried.load(Ordering::Relaxed)) {
        (true, _) => Ending::LoggedIn,
        (false, _) if overdue => Ending::Overdue,
        (false, true) => Ending::Refused,
        (false, false) => Ending::Silent,
    }
}

/// Owns the workers of a connection; ends when the SSH side has ended, or ends that at a stop.
async fn serve_sessions(
    mut queue: mpsc::Receiver<WorkerStart>,
    handle: russh::server::Handle,
    front: &Front,
    mut shutdown: watch::Receiver<bool>,
) {
    let workers_shutdown = shutdown.clone();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut shutdown) => {
                let reason = "the server is stopping".to_owned();
                // If it fails the connection is gone already.
                let _ = handle.disconnect(Disconnect::ByApplication, reason, String::new()).await;
                return;
            }
            start = queue.recv() => match start {
                Some(start) => {
                    let program = &front.options.worker_program;
                    worker::serve(start, program, front, workers_shutdown.clone()).await;
                }
                None => return,
            }
        }
    }
}

/// Connections that were not admitted. One log line for each would let a flood fill the disk.
#[derive(Default)]
struct Refusals {
    count: u64,
    told: Option<Instant>,
}

impl Refusals {
    fn handle(&mut self, peer: SocketAddr, reason: NotAdmitted) {
        self.count += 1;
        debug!(%peer, %reason, "connection refused");
        if self.told.is_none_or(|told| told.elapsed() >= REFUSALS_EVERY) {
            warn!(count = self.count, last = %peer, %reason, "connections refused");
            *self = Self { count: 0, told: Some(Instant::now()) };
        }
    }
}
