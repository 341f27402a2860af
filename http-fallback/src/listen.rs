//! The accept loop of HTTPS, and of plain HTTP behind a proxy on the same machine: admission, a deadline for TLS, the
//! protocol by ALPN, deadlines and bounds for headers, an orderly stop. What requests mean is the router's business.
//!
//! hyper's and axum's own loops have no such deadlines: a peer that says nothing would keep its place for ever.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::identity::Identity;

/// From the first byte of TLS to the end of its handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);

/// From the first byte of a request, or the end of the one before, to the end of its headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// Most headers of a request, and their bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Requests of one HTTP/2 connection at a time.
const MAX_STREAMS: u32 = 64;

/// An HTTP/2 peer is asked for a sign of life this often, and has so long to give it.
const H2_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Rest after a failed accept: doubled each time up to the limit. Descriptors come back when other connections end.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Who has not shown who he is by then has to come again.
const STRANGER_TIME: Duration = Duration::from_secs(60);

/// From the stop until connections are dropped.
const STOP_TIME: Duration = Duration::from_secs(10);

/// The place of an admitted connection; it is given back on drop.
pub trait Place: Send + Sync {
    /// Whoever is there has shown who he is: limits for strangers do not apply any more.
    fn on_login(&self);
    /// Whether somebody is known to be there.
    fn is_known(&self) -> bool;
    /// A password or token was wrong.
    fn on_refused(&self);
}

/// Decides which connections are admitted.
pub trait Gate: Send + Sync {
    /// A place for a connection from `peer`, or why there is none.
    ///
    /// # Errors
    /// The reason, for the log.
    fn admit(&self, peer: IpAddr) -> Result<Arc<dyn Place>, String>;
}

/// Who asks: an extension of each request.
#[derive(Clone)]
pub struct Caller {
    /// The other end of the TCP connection; behind a proxy, the proxy.
    pub address: SocketAddr,
    /// Whether it came over TLS to this process.
    pub tls: bool,
    /// Its place. Whoever goes on with the connection after an upgrade keeps a clone.
    pub place: Arc<dyn Place>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("address", &self.address).field("tls", &self.tls).finish()
    }
}

/// What all connections of a listener share.
pub struct Service {
    /// Answers requests; each has a [`Caller`] among its extensions.
    pub router: Router,
    /// Admits connections.
    pub gate: Arc<dyn Gate>,
    /// The certificate; none serves plain HTTP.
    pub identity: Option<Identity>,
}

/// Serves until `shutdown` turns true, then until requests under way have ended or [`STOP_TIME`] has passed.
pub async fn serve(listener: TcpListener, service: Service, mut shutdown: watch::Receiver<bool>) {
    let acceptor = service.identity.as_ref().map(|identity| TlsAcceptor::from(identity.config()));
    let mut connections = JoinSet::new();
    let mut rest = FIRST_REST;
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            // Collected as they end, so that the set does not grow.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    rest = FIRST_REST;
                    match service.gate.admit(address.ip()) {
                        Ok(place) => {
                            let caller = Caller { address, tls: acceptor.is_some(), place };
                            let router = service.router.clone();
                            connections.spawn(connection(stream, acceptor.clone(), router, caller, shutdown.clone()));
                        }
                        Err(reason) => debug!(%address, reason, "https connection refused"),
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
        connections.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    router: Router,
    caller: Caller,
    shutdown: watch::Receiver<bool>,
) {
    let peer = caller.address;
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "connection gone at once");
        return;
    }
    haul_io::streams::bound_unsent(&stream);
    let Some(acceptor) = acceptor else {
        return speak_http1(stream, router, caller, shutdown).await;
    };
    match timeout(TLS_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let place = Arc::clone(&caller.place);
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let speak = async {
                if h2 {
                    speak_http2(stream, router, caller, shutdown).await;
                } else {
                    speak_http1(stream, router, caller, shutdown).await;
                }
            };
            tokio::select! {
                () = speak => {}
                () = overdue(&*place) => debug!(%peer, "a stranger stayed too long"),
            }
        }
        Ok(Err(error)) => debug!(%peer, %error, "no TLS"),
        Err(_) => debug!(%peer, "no TLS in time"),
    }
}

/// Returns when somebody who has not shown who he is has been there for long enough.
async fn overdue(place: &dyn Place) {
    tokio::time::sleep(STRANGER_TIME).await;
    if place.is_known() {
        std::future::pending::<()>().await;
    }
}

async fn speak_http1<S>(stream: S, router: Router, caller: Caller, mut shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(with_caller(router, &caller));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(peer = %caller.address, %error, "connection ended");
    }
}

async fn speak_http2<S>(stream: S, router: Router, caller: Caller, mut shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(with_caller(router, &caller));
    let (interval, patience) = H2_ALIVE;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(interval)
        .keep_alive_timeout(patience);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(peer = %caller.address, %error, "connection ended");
    }
}

/// The router, telling each request who asks. The value is made for each connection: a router is cheap to clone.
fn with_caller(router: Router, caller: &Caller) -> Router {
    router.layer(axum::Extension(caller.clone()))
}

/// Returns when the server is to stop; never if nobody can stop it any more.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
