//! `ssh::connect` and the control channel against a server in this process that can be made to misbehave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use haul_client::config::{Presentation, resolve};
use haul_client::ssh::{ChannelEvent, Connection, connect};
use haul_client::{ClientError, Presenter, TransferRequest, cli};
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Preferred};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How the server behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Grants the subsystem and sends every line back.
    Echo,
    /// Refuses the subsystem.
    NoSubsystem,
    /// Has no strict key exchange.
    NotStrict,
    /// Ends like a worker that fails at once.
    Fails,
    /// Goes away without a word when the first data comes.
    Vanishes,
}

struct Server {
    manner: Manner,
    vanish: Arc<tokio::sync::Notify>,
    data_before_grant: Arc<AtomicBool>,
}

impl russh::server::Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        assert_eq!(name, "haul");
        match self.manner {
            Manner::NoSubsystem => session.channel_failure(channel)?,
            // The grant is held back until data has come: so the client cannot have waited for it.
            Manner::Echo | Manner::Vanishes | Manner::NotStrict => {}
            Manner::Fails => {
                session.channel_success(channel)?;
                session.extended_data(channel, 1, &b"no \x1bgood\n"[..])?;
                session.exit_status_request(channel, 7)?;
                session.close(channel)?;
            }
        }
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.manner {
            Manner::Echo => {
                if !self.data_before_grant.swap(true, Ordering::SeqCst) {
                    session.channel_success(channel)?;
                }
                session.data(channel, data.to_vec())?;
            }
            Manner::Vanishes => self.vanish.notify_one(),
            Manner::NoSubsystem | Manner::NotStrict | Manner::Fails => {}
        }
        Ok(())
    }
}

/// A server, a client's request for it, and what is deleted at the end.
struct Scene {
    request: TransferRequest,
    presenter: Presenter,
    server: JoinHandle<()>,
    data_before_grant: Arc<AtomicBool>,
    _folder: tempfile::TempDir,
}

async fn scene(manner: Manner) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let data_before_grant = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&data_before_grant);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let vanish = Arc::new(tokio::sync::Notify::new());
        let handler = Server { manner, vanish: Arc::clone(&vanish), data_before_grant: flag };
        let stream = Cut { stream, cut: Box::pin(async move { vanish.notified().await }) };
        let session = russh::server::run_stream(Arc::new(server_config(manner)), stream, handler).await;
        if let Ok(session) = session {
            let _ = session.await;
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let known_hosts = folder.path().join("known_hosts");
    let line = ["haul", "-F", "none", "-P", &port.to_string(), "-i"].map(OsString::from);
    let rest =
        [key.into(), "--known-hosts".into(), known_hosts.into(), "/dev/null".into(), "u@127.0.0.1:".into()];
    let args: Vec<OsString> = line.into_iter().chain(rest).collect();
    let cli::Asked::Transfer(cli) = cli::parse(&args).unwrap() else { panic!("no transfer asked for") };
    let presenter = Presenter::new(&Presentation::default());
    Scene { request: resolve(*cli).unwrap(), presenter, server, data_before_grant, _folder: folder }
}

fn server_config(manner: Manner) -> russh::server::Config {
    let mut preferred = Preferred::default();
    if manner == Manner::NotStrict {
        preferred.kex =
            preferred.kex.iter().filter(|name| !name.as_ref().starts_with("kex-strict")).copied().collect();
    }
    let mut seed = [7; 32];
    seed[0] = manner as u8;
    let key = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = PrivateKey::from(key);
    assert_eq!(key.algorithm(), Algorithm::Ed25519);
    russh::server::Config { keys: vec![key], preferred, ..Default::default() }
}

/// A TCP stream that ends when told to, as when the peer is killed.
struct Cut {
    stream: tokio::net::TcpStream,
    cut: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl tokio::io::AsyncRead for Cut {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Cut {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

async fn next(connection: &mut Connection) -> Result<ChannelEvent, ClientError> {
    tokio::time::timeout(Duration::from_secs(10), connection.recv())
        .await
        .expect("nothing came for ten seconds")
}

#[tokio::test]
async fn the_first_message_does_not_wait_for_the_grant() {
    let mut scene = scene(Manner::Echo).await;
    let mut connection = connect(&scene.request, &mut scene.presenter).await.unwrap();
    assert_eq!(connection.peer_address.port(), scene.request.ssh_port);
    connection.send(b"offer\n").await.unwrap();
    connection.granted().await.unwrap();
    assert!(scene.data_before_grant.load(Ordering::SeqCst));
    let mut received = Vec::new();
    while received != b"offer\nmore\n" {
        match next(&mut connection).await.unwrap() {
            ChannelEvent::Data(bytes) => received.extend(bytes),
            other => panic!("{other:?}"),
        }
        if received == b"offer\n" {
            connection.send(b"more\n").await.unwrap();
        }
    }
    connection.disconnect().await;
    tokio::time::timeout(Duration::from_secs(5), scene.server)
        .await
        .expect("the server saw no goodbye")
        .unwrap();
}

#[tokio::test]
async fn a_large_message_passes_the_window() {
    let mut scene = scene(Manner::Echo).await;
    let mut connection = connect(&scene.request, &mut scene.presenter).await.unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    connection.send(&bytes).await.unwrap();
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        if let ChannelEvent::Data(piece) = next(&mut connection).await.unwrap() {
            received.extend(piece);
        }
    }
    assert!(received == bytes);
}

#[tokio::test]
async fn a_missing_subsystem_is_said_to_whoever_listens_first() {
    for wait_for_grant in [true, false] {
        let mut scene = scene(Manner::NoSubsystem).await;
        let mut connection = connect(&scene.request, &mut scene.presenter).await.unwrap();
        connection.send(b"offer\n").await.unwrap();
        let error =
            if wait_for_grant { connection.granted().await } else { next(&mut connection).await.map(drop) };
        assert!(matches!(error, Err(ClientError::NotHaul { .. })), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_without_strict_key_exchange_is_refused() {
    let mut scene = scene(Manner::NotStrict).await;
    let error = connect(&scene.request, &mut scene.presenter).await.err().unwrap();
    assert!(error.to_string().contains("strict key exchange"), "{error}");
}

#[tokio::test]
async fn a_worker_that_fails_is_heard_to_its_end() {
    let mut scene = scene(Manner::Fails).await;
    let mut connection = connect(&scene.request, &mut scene.presenter).await.unwrap();
    connection.granted().await.unwrap();
    let mut events = Vec::new();
    while events.last() != Some(&ChannelEvent::Closed) {
        events.push(next(&mut connection).await.unwrap());
    }
    assert!(events.contains(&ChannelEvent::Stderr(b"no \x1bgood\n".to_vec())), "{events:?}");
    assert!(events.contains(&ChannelEvent::ExitStatus(7)), "{events:?}");
    assert_eq!(next(&mut connection).await.unwrap(), ChannelEvent::Closed);
}

#[tokio::test]
async fn a_vanished_server_is_a_lost_connection() {
    let mut scene = scene(Manner::Vanishes).await;
    let mut connection = connect(&scene.request, &mut scene.presenter).await.unwrap();
    // More than the server's window, which a dead server never opens.
    let sending = tokio::time::timeout(Duration::from_secs(10), connection.send(&[0; 1 << 23])).await;
    assert!(matches!(sending, Ok(Err(ClientError::ConnectionLost { .. }))), "{sending:?}");
    let error = next(&mut connection).await.unwrap_err();
    assert!(matches!(error, ClientError::ConnectionLost { .. }), "{error}");
}

#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    let mut scene = scene(Manner::Echo).await;
    let mut connection = connect(&scene.request, &mut scene.presenter).await.unwrap();
    let mut received = Vec::new();
    for round in 0..50_u8 {
        connection.send(&[round]).await.unwrap();
        // Polled once and dropped.
        tokio::select! {
            biased;
            event = connection.recv() => if let ChannelEvent::Data(bytes) = event.unwrap() { received.extend(bytes) },
            () = tokio::task::yield_now() => {}
        }
    }
    while received.len() < 50 {
        if let ChannelEvent::Data(bytes) = next(&mut connection).await.unwrap() {
            received.extend(bytes);
        }
    }
    assert_eq!(received, (0..50).collect::<Vec<u8>>());
}
