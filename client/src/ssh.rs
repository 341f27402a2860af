//! The SSH connection to the server, and the control channel on it as an ordered stream of bytes.
//!
//! Set-up cost: the subsystem is requested without waiting for the answer, so the first message of the session rides
//! with the request. Not here: what the bytes mean.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use haul_proto::control::Trouble;
use russh::client::{Config, Handle, Msg};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{
    ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Preferred, SshId, cipher, compression, kex,
    mac,
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch};

use crate::config::TransferRequest;
use crate::dial::dial;
use crate::error::ClientError;
use crate::fingerprint::Fingerprint;
use crate::handler::{Broken, Handler, why};
use crate::keys::{self, Given};
use crate::known_hosts::KnownHosts;
use crate::login::login;
use crate::plan::Secret;
use crate::progress::Presenter;
use crate::sanitize;
use crate::ssh_program::{self, SshProgram};

/// The SSH subsystem that speaks the control conversation.
pub(crate) const SUBSYSTEM: &str = "haul";

/// From the first byte of SSH to the end of the key exchange; a port that is not SSH stays silent.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// From the login to the open channel.
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a clean goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What comes over the control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Bytes of the control conversation.
    Data(Vec<u8>),
    /// Words for the user, not yet sanitised: hand them to [`Presenter::server_words`].
    Stderr(Vec<u8>),
    /// The worker ended with this status.
    ExitStatus(u32),
    /// The worker was killed by this signal.
    ExitSignal(String),
    /// Nothing more comes; every later [`Connection::recv`] says so again.
    Closed,
}

/// A logged-in connection with its control channel.
pub struct Connection {
    /// The address that SSH was reached on: where the datagrams go unless the agreement names others.
    pub peer_address: SocketAddr,
    way: Way,
    host: String,
    port: u16,
    /// The server has granted the subsystem.
    granted: bool,
    closed: bool,
    /// Events that came while [`Connection::granted`] waited for something else.
    early: VecDeque<ChannelEvent>,
}

/// What is asked of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Service {
    /// The control conversation of a transfer.
    Transfers,
    /// One of the commands that hauld has.
    Command(String),
}

/// Writes datagrams between the lines of the control channel.
pub(crate) struct FrameWriter {
    turn: Arc<Mutex<()>>,
    writer: Mutex<Box<dyn AsyncWrite + Send + Unpin>>,
}

impl FrameWriter {
    /// Writes bytes in one go, as fast as the server's window allows. `false` if the connection is gone.
    pub(crate) async fn write(&self, bytes: &[u8]) -> bool {
        let _turn = self.turn.lock().await;
        let mut writer = self.writer.lock().await;
        writer.write_all(bytes).await.is_ok() && writer.flush().await.is_ok()
    }
}

/// How the channel reaches the server.
enum Way {
    /// Our own SSH.
    Library(Box<Library>),
    /// A program that speaks SSH for us.
    Program(Box<SshProgram>),
}

struct Library {
    handle: Handle<Handler>,
    reader: ChannelReadHalf,
    writer: ChannelWriteHalf<Msg>,
    /// Lines, and datagrams between them, are written whole.
    turn: Arc<Mutex<()>>,
    ended: watch::Receiver<Option<String>>,
}

/// Connects, checks the host key, logs in, opens the control channel and asks for the subsystem.
///
/// # Errors
/// If any of it fails; the error says which and what to do.
pub async fn connect(
    request: &TransferRequest,
    presenter: &mut Presenter,
) -> Result<Connection, ClientError> {
    open(request, &Service::Transfers, presenter).await
}

/// As [`connect`], for any service.
pub(crate) async fn open(
    request: &TransferRequest,
    service: &Service,
    presenter: &mut Presenter,
) -> Result<Connection, ClientError> {
    if let Some(command) = &request.plan.login.ssh_command {
        let peer_address = match service {
            Service::Transfers => ssh_program::address(request).await?,
            // No datagrams go anywhere, and only the program may know the host.
            Service::Command(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let way = Way::Program(Box::new(ssh_program::start(request, command, service)?));
        return Ok(Connection::new(request, peer_address, way));
    }
    // Everything that can fail on this machine goes first.
    let environment = &request.plan.environment;
    let given = Given { key: text(environment.key.as_ref()), password: text(environment.password.as_ref()) };
    let files = keys::read_all(&request.identities, given)?;
    let fingerprint = request.plan.login.fingerprint.as_deref().map(Fingerprint::parse).transpose()?;
    let known_hosts = KnownHosts::new(request.host_keys.files.clone());
    let recorded = known_hosts.algorithms(&request.host_name, request.ssh_port)?;
    let certified = !known_hosts.authorities(&request.host_name, request.ssh_port)?.is_empty();
    let stream = match &request.plan.carrier.proxy {
        Some(proxy) => through_proxy(request, proxy).await?,
        None => {
            dial(&request.host_name, request.ssh_port, request.plan.peer.ipv6_only, &request.host).await?
        }
    };
    let peer_address = stream.peer_addr().map_err(|error| lost(request, error.to_string()))?;
    tracing::info!(host = request.host, %peer_address, "connected");
    let (end_sender, ended) = watch::channel(None);
    let (note_sender, mut notes) = mpsc::channel(64);
    let handler = Handler {
        host_name: request.host_name.clone(),
        port: request.ssh_port,
        known_hosts,
        strict: request.host_keys.strict,
        fingerprint,
        ended: end_sender,
        notes: note_sender,
        keys_exchanged: false,
    };
    let mut show_notes = || {
        while let Ok(note) = notes.try_recv() {
            presenter.notice(&note);
        }
    };
    let logging_in = async {
        let mut handle = handshake(request, stream, handler, &recorded, certified).await?;
        login(&mut handle, request, files, || ended.borrow().clone(), &mut show_notes).await?;
        Ok(handle)
    };
    let logged_in: Result<_, ClientError> = logging_in.await;
    show_notes();
    let handle = logged_in?;
    let (reader, writer) = open_channel(request, service, &handle, &ended).await?;
    let way = Way::Library(Box::new(Library { handle, reader, writer, turn: Arc::default(), ended }));
    Ok(Connection::new(request, peer_address, way))
}

/// Bytes of the environment that are text; others could be no key and no password.
fn text(secret: Option<&Secret>) -> Option<&str> {
    secret.and_then(|secret| std::str::from_utf8(secret.as_bytes()).ok())
}

impl Connection {
    fn new(request: &TransferRequest, peer_address: SocketAddr, way: Way) -> Self {
        let (host, port) = (request.host.clone(), request.ssh_port);
        Self { peer_address, way, host, port, granted: false, closed: false, early: VecDeque::new() }
    }

    /// Sends bytes in order. Waits while the server's window is full; if the future is dropped then, a part may
    /// have been sent, so do not race it against anything you go on after.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let library = match &mut self.way {
            Way::Library(library) => library,
            Way::Program(program) => return program.send(bytes, &self.host).await,
        };
        let mut ended = library.ended.clone();
        let mut heard = Vec::new();
        let sent = {
            let (turn, writer) = (&library.turn, &library.writer);
            let writing = async {
                let _turn = turn.lock().await;
                writer.data_bytes(bytes.to_vec()).await
            };
            tokio::pin!(writing);
            loop {
                tokio::select! {
                    sent = &mut writing => break sent.is_ok(),
                    // The window of a dead connection never opens, nor that of a server that refuses the subsystem.
                    _ = ended.wait_for(Option::is_some) => break false,
                    message = library.reader.wait() => match message {
                        None => break false,
                        Some(message) => {
                            let last = matches!(message, ChannelMsg::Failure | ChannelMsg::Close);
                            heard.push(message);
                            if last {
                                break false;
                            }
                        }
                    },
                }
            }
        };
        for message in heard {
            let event = self.interpret(message)?;
            self.early.extend(event);
        }
        if sent { Ok(()) } else { Err(self.lost()) }
    }

    /// A writer for datagrams between the lines; none if another program has the channel.
    #[must_use]
    pub(crate) fn frame_writer(&self) -> Option<FrameWriter> {
        let Way::Library(library) = &self.way else { return None };
        let writer: Box<dyn AsyncWrite + Send + Unpin> = Box::new(Box::pin(library.writer.make_writer()));
        Some(FrameWriter { turn: Arc::clone(&library.turn), writer: Mutex::new(writer) })
    }

    /// The next event. Dropping the future loses nothing. It has to be called steadily: a channel that nobody reads
    /// stops the whole connection, keep-alives included.
    ///
    /// # Errors
    /// If the server has no such subsystem, or the connection is gone.
    pub async fn recv(&mut self) -> Result<ChannelEvent, ClientError> {
        if let Some(event) = self.early.pop_front() {
            return Ok(event);
        }
        self.next_event().await
    }

    /// Waits until the server has granted the subsystem. Not needed before [`Connection::send`].
    ///
    /// # Errors
    /// As [`Connection::recv`].
    pub async fn granted(&mut self) -> Result<(), ClientError> {
        while !self.granted {
            match self.next_event().await? {
                ChannelEvent::Closed => return Err(self.not_haul()),
                event => self.early.push_back(event),
            }
        }
        Ok(())
    }

    /// Says goodbye and waits a moment for it to get out.
    pub async fn disconnect(self) {
        let Library { handle, reader, .. } = match self.way {
            Way::Library(library) => *library,
            Way::Program(program) => return program.disconnect().await,
        };
        // An unread channel would keep the session task from seeing the goodbye.
        drop(reader);
        let goodbye = async {
            let _ = handle.disconnect(Disconnect::ByApplication, "", "en").await;
            let _ = handle.await;
        };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }

    /// The next event from the wire; also returns once the grant is seen, so that `granted` can look.
    async fn next_event(&mut self) -> Result<ChannelEvent, ClientError> {
        while !self.closed {
            let message = match &mut self.way {
                Way::Library(library) => library.reader.wait().await,
                Way::Program(program) => {
                    let event = program.next_event(&self.host).await?;
                    self.closed = event == ChannelEvent::Closed;
                    return Ok(if matches!(event, ChannelEvent::Data(_)) {
                        self.speaks(event)
                    } else {
                        event
                    });
                }
            };
            let Some(message) = message else { return Err(self.lost()) };
            if let Some(event) = self.interpret(message)? {
                return Ok(event);
            }
        }
        Ok(ChannelEvent::Closed)
    }

    /// What a message of the channel means; none if nothing.
    fn interpret(&mut self, message: ChannelMsg) -> Result<Option<ChannelEvent>, ClientError> {
        Ok(match message {
            ChannelMsg::Data { data } => Some(self.speaks(ChannelEvent::Data(data.into()))),
            ChannelMsg::ExtendedData { data, ext: 1 } => Some(ChannelEvent::Stderr(data.into())),
            ChannelMsg::ExitStatus { exit_status } => Some(ChannelEvent::ExitStatus(exit_status)),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                Some(ChannelEvent::ExitSignal(sanitize::text(&format!("{signal_name:?}"))))
            }
            // An empty event is harmless, and ends the wait of `granted`.
            ChannelMsg::Success => Some(self.speaks(ChannelEvent::Data(Vec::new()))),
            ChannelMsg::Failure if !self.granted => return Err(self.not_haul()),
            ChannelMsg::Close => {
                self.closed = true;
                None
            }
            // The end of the worker's output comes before its exit status and the close.
            other => {
                tracing::trace!(message = ?other, "channel message passed over");
                None
            }
        })
    }

    /// Data or a grant: haul is there.
    const fn speaks(&mut self, event: ChannelEvent) -> ChannelEvent {
        self.granted = true;
        event
    }

    fn not_haul(&self) -> ClientError {
        ClientError::NotHaul { host: self.host.clone(), port: self.port, said: None }
    }

    /// The error for a connection that is gone, with the reason if one is known.
    #[must_use]
    pub fn lost(&self) -> ClientError {
        let reason = match &self.way {
            Way::Library(library) => library.ended.borrow().clone(),
            Way::Program(_) => None,
        };
        let reason = reason.unwrap_or_else(|| "the server closed the connection".to_owned());
        ClientError::ConnectionLost { host: self.host.clone(), reason }
    }
}

/// SSH itself through the proxy that the user names for everything.
async fn through_proxy(request: &TransferRequest, proxy: &str) -> Result<TcpStream, ClientError> {
    let proxy = crate::streams::read_proxy(request, proxy)?;
    let dialling = haul_http_fallback::dial::dial(&request.host_name, request.ssh_port, Some(&proxy));
    let error = match tokio::time::timeout(HANDSHAKE_TIMEOUT, dialling).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the proxy does not answer within {} s", HANDSHAKE_TIMEOUT.as_secs()),
    };
    Err(ClientError::Trouble {
        trouble: Trouble::PeerLost,
        message: sanitize::text(&error),
        remedy: "check --proxy; its password may come from HAUL_PROXY_PASSWORD".to_owned(),
    })
}

async fn handshake(
    request: &TransferRequest,
    stream: TcpStream,
    handler: Handler,
    recorded: &[Algorithm],
    certified: bool,
) -> Result<Handle<Handler>, ClientError> {
    let config = Arc::new(client_config(recorded, certified));
    let failed = |message: String, source| ClientError::Handshake {
        host: request.host.clone(),
        port: request.ssh_port,
        message,
        source,
    };
    let connecting = russh::client::connect_stream(config, stream, handler);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(handle)) => Ok(handle),
        Ok(Err(Broken::Refused(error))) => Err(*error),
        Ok(Err(Broken::Ssh(error))) => Err(failed(why(&error), Some(Box::new(error)))),
        Err(_) => Err(failed(format!("timed out after {} s", HANDSHAKE_TIMEOUT.as_secs()), None)),
    }
}

async fn open_channel(
    request: &TransferRequest,
    service: &Service,
    handle: &Handle<Handler>,
    ended: &watch::Receiver<Option<String>>,
) -> Result<(ChannelReadHalf, ChannelWriteHalf<Msg>), ClientError> {
    let gone = || {
        lost(request, ended.borrow().clone().unwrap_or_else(|| "the server closed the connection".to_owned()))
    };
    let opening = tokio::time::timeout(CHANNEL_TIMEOUT, handle.channel_open_session());
    let channel = match opening.await {
        Ok(Ok(channel)) => channel,
        Ok(Err(russh::Error::ChannelOpenFailure(reason))) => {
            return Err(lost(
                request,
                format!("the server opens no session: {}", sanitize::text(&format!("{reason:?}"))),
            ));
        }
        Ok(Err(_)) => return Err(gone()),
        Err(_) => return Err(lost(request, "the server opens no session".to_owned())),
    };
    let (reader, writer) = channel.split();
    // The answer is read with the first events: waiting for it here would cost a round trip.
    let asked = match service {
        Service::Transfers => writer.request_subsystem(true, SUBSYSTEM).await,
        Service::Command(command) => writer.exec(true, command.as_bytes()).await,
    };
    asked.map_err(|_| gone())?;
    Ok((reader, writer))
}

fn lost(request: &TransferRequest, reason: String) -> ClientError {
    ClientError::ConnectionLost { host: request.host.clone(), reason }
}

fn client_config(recorded: &[Algorithm], certified: bool) -> Config {
    Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-haul_", env!("CARGO_PKG_VERSION")))),
        preferred: preferred(recorded, certified),
        // A dead peer is noticed after a minute even when no data flows.
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        channel_buffer_size: 32,
        nodelay: true,
        ..Config::default()
    }
}

/// Our algorithms: ring's AEADs first, nothing with SHA-1, no compression before or after the login.
///
/// Certificates of host keys are asked for where an authority is on record for the host.
fn preferred(recorded: &[Algorithm], certified: bool) -> Preferred {
    const EXCHANGES: [kex::Name; 6] = [
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::DH_G16_SHA512,
        kex::DH_G18_SHA512,
        kex::DH_G14_SHA256,
    ];
    // These entries are no exchanges: without them there is no strict key exchange and no `server-sig-algs`.
    const MARKERS: [kex::Name; 4] = [
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    let wanted = |name: &&kex::Name| EXCHANGES.contains(name) || MARKERS.contains(name);
    Preferred {
        kex: Preferred::DEFAULT.kex.iter().filter(wanted).copied().collect(),
        key: host_key_algorithms(recorded).into(),
        host_key_certificates: if certified { host_key_algorithms(&[]).into() } else { Cow::Borrowed(&[]) },
        cipher: Cow::Borrowed(&[
            cipher::AES_128_GCM,
            cipher::AES_256_GCM,
            cipher::CHACHA20_POLY1305,
            cipher::AES_256_CTR,
        ]),
        mac: Cow::Borrowed(&[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// The kinds of host key, those on record first: a server with several keys then shows the one we know.
fn host_key_algorithms(recorded: &[Algorithm]) -> Vec<Algorithm> {
    let all = [
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    let on_record = |algorithm: &Algorithm| {
        recorded.iter().any(|one| match (one, algorithm) {
            (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
            (one, other) => one == other,
        })
    };
    let (first, second): (Vec<_>, Vec<_>) = all.into_iter().partition(on_record);
    first.into_iter().chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offer_keeps_strict_kex_and_nothing_weak() {
        let preferred = preferred(&[], false);
        let names: Vec<&str> = preferred.kex.iter().map(AsRef::as_ref).collect();
        for marker in
            ["kex-strict-c-v00@openssh.com", "ext-info-c", "mlkem768x25519-sha256", "curve25519-sha256"]
        {
            assert!(names.contains(&marker), "{marker} is missing in {names:?}");
        }
        assert!(!names.iter().any(|name| name.ends_with("sha1")), "{names:?}");
        assert!(preferred.key.iter().all(|key| key.as_str() != "ssh-rsa"));
        assert_eq!(preferred.cipher.first().map(AsRef::as_ref), Some("aes128-gcm@openssh.com"));
    }

    #[test]
    fn the_kind_of_key_on_record_is_asked_for_first() {
        let order = host_key_algorithms(&[Algorithm::Rsa { hash: None }]);
        assert_eq!(order.first(), Some(&Algorithm::Rsa { hash: Some(HashAlg::Sha512) }));
        assert_eq!(order.len(), 6);
    }
}
