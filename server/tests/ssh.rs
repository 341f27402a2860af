//! The SSH front as clients meet it: who gets in, what is refused, how a session ends.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use harness::{PATIENCE, Server, USER};
use russh::client::{Handle, KeyboardInteractiveAuthResponse, Msg};
use russh::keys::{HashAlg, PrivateKeyWithHashAlg};
use russh::{Channel, ChannelMsg, MethodKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// All that a channel says until it closes.
#[derive(Default, Debug)]
struct Heard {
    out: Vec<u8>,
    err: String,
    status: Option<u32>,
    success: usize,
    failure: usize,
    closed: bool,
}

async fn hear(channel: &mut Channel<Msg>) -> Heard {
    let mut heard = Heard::default();
    while let Some(message) = timeout(PATIENCE, channel.wait()).await.expect("the channel goes on") {
        match message {
            ChannelMsg::Data { data } => heard.out.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => heard.err.push_str(&String::from_utf8_lossy(&data)),
            ChannelMsg::ExitStatus { exit_status } => heard.status = Some(exit_status),
            ChannelMsg::Success => heard.success += 1,
            ChannelMsg::Failure => heard.failure += 1,
            ChannelMsg::Close => {
                heard.closed = true;
                break;
            }
            _ => {}
        }
    }
    heard
}

async fn subsystem(handle: &Handle<harness::Trusting>) -> Channel<Msg> {
    let channel = handle.channel_open_session().await.unwrap();
    channel.request_subsystem(true, "haul").await.unwrap();
    channel
}

/// Reads until the server hangs up; panics if it does not.
async fn hang_up(stream: &mut TcpStream) {
    let mut sink = Vec::new();
    // A reset is a hang-up too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut sink)).await.expect("the server hangs up");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_that_are_not_offered_are_refused_even_if_sent() {
    let server = Server::start().await;
    let refused = |result: russh::client::AuthResult| match result {
        russh::client::AuthResult::Success => panic!("logged in"),
        russh::client::AuthResult::Failure { remaining_methods, .. } => remaining_methods,
    };
    let mut handle = server.connect().await;
    let methods = refused(handle.authenticate_none(USER).await.unwrap());
    assert_eq!(methods.to_vec(), [MethodKind::PublicKey]);
    refused(handle.authenticate_password(USER, "").await.unwrap());
    let answer = handle.authenticate_keyboard_interactive_start(USER, None).await.unwrap();
    assert!(matches!(answer, KeyboardInteractiveAuthResponse::Failure { .. }), "{answer:?}");
    let stranger = PrivateKeyWithHashAlg::new(server.secret("stranger"), None);
    refused(handle.authenticate_publickey(USER, stranger).await.unwrap());
    let listed = PrivateKeyWithHashAlg::new(server.secret("ed25519"), None);
    refused(handle.authenticate_publickey("mallory", listed.clone()).await.unwrap());
    assert!(handle.authenticate_publickey(USER, listed).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_works_before_login() {
    let server = Server::start().await;
    let handle = server.connect().await;
    let opened = timeout(Duration::from_secs(1), handle.channel_open_session()).await;
    assert!(!matches!(opened, Ok(Ok(_))), "a channel without a login");
}

#[tokio::test(flavor = "multi_thread")]
async fn rsa_is_accepted_with_sha2_only() {
    let server = Server::start().await;
    let key = server.secret("rsa");
    for (hash, expected) in [(None, false), (Some(HashAlg::Sha256), true), (Some(HashAlg::Sha512), true)] {
        let mut handle = server.connect().await;
        let answer = handle.authenticate_publickey(USER, PrivateKeyWithHashAlg::new(key.clone(), hash)).await;
        assert_eq!(answer.unwrap().success(), expected, "{hash:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_each_type_log_in_with_openssh_and_a_shell_is_refused_politely() {
    let server = Server::start().await;
    for key in ["ed25519", "ecdsa", "rsa"] {
        for arguments in [&[][..], &["ls"][..]] {
            let output = server.ssh(key, arguments).await;
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{key} {arguments:?}: {err}");
            assert!(err.contains("file transfer with `haul` only; no shell here"), "{key}: {err}");
        }
    }
    let output = server.ssh("stranger", &[]).await;
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied (publickey)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_sees_strict_key_exchange_and_no_compression() {
    let server = Server::start().await;
    let output = server.ssh("ed25519", &["-vvv", "-C"]).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("will use strict KEX ordering"), "{err}");
    assert!(err.contains("server->client cipher: ") && !err.contains("compression: zlib"), "{err}");
    let ours = err.split("peer server KEXINIT proposal").nth(1).unwrap();
    let ours = ours.split("kex: algorithm").next().unwrap();
    assert!(
        ours.contains("compression stoc: none") && !ours.contains("zlib") && !ours.contains("sha1"),
        "{ours}"
    );
    let algorithms = err.lines().find(|line| line.contains("server-sig-algs")).unwrap();
    assert!(algorithms.contains("rsa-sha2-512") && !algorithms.contains("ssh-rsa"), "{algorithms}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_log_in_in_time_is_dropped_and_who_has_stays() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder, Duration::from_secs(1), &["127.0.0.1:0"], None).await;
    let handle = server.login().await;
    // One says nothing, one greets only, one has exchanged keys.
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut greeting = TcpStream::connect(server.address()).await.unwrap();
    greeting.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let idle = server.connect().await;
    tokio::join!(hang_up(&mut silent), hang_up(&mut greeting));
    let gone = timeout(PATIENCE, async {
        while !idle.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("a client without a login is dropped");
    assert!(handle.channel_open_session().await.is_ok(), "the one that logged in stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_addresses_are_served_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"];
    let server = Server::start_with(folder, PATIENCE, &addresses, None).await;
    for address in &server.addresses {
        greets(*address).await;
    }
}

async fn greets(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut start = [0; 14];
    timeout(PATIENCE, stream.read_exact(&mut start)).await.unwrap().unwrap();
    assert_eq!(&start, b"SSH-2.0-hauld_", "{address}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_but_a_haul_session_is_refused_with_an_answer() {
    let server = Server::start().await;
    let handle = server.login().await;
    let mut channel = handle.channel_open_session().await.unwrap();
    channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.unwrap();
    channel.set_env(true, "LANG", "C").await.unwrap();
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
    channel.agent_forward(true).await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    channel.request_shell(true).await.unwrap();
    let heard = hear(&mut channel).await;
    assert_eq!(
        (heard.failure, heard.success, heard.status, heard.closed),
        (5, 1, Some(1), true),
        "{heard:?}"
    );
    assert!(heard.err.contains("no shell here"), "{heard:?}");
    assert!(handle.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
    assert!(handle.channel_open_direct_streamlocal("/run/x").await.is_err());
    assert!(handle.tcpip_forward("127.0.0.1", 0).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_floods_before_it_is_a_session_is_closed() {
    let server = Server::start().await;
    let handle = server.login().await;
    let mut requests = handle.channel_open_session().await.unwrap();
    for n in 0..40 {
        requests.set_env(false, format!("V{n}"), "x").await.unwrap();
    }
    assert!(hear(&mut requests).await.closed);
    let mut data = handle.channel_open_session().await.unwrap();
    data.data_bytes(b"hello".to_vec()).await.unwrap();
    assert!(hear(&mut data).await.closed);
    // The connection lives, and channels are counted.
    for _ in 0..2 {
        assert!(handle.channel_open_session().await.is_ok());
    }
    assert!(handle.channel_open_session().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_carries_bytes_both_ways_unchanged_and_ends_with_its_status() {
    let server = Server::with_worker("/bin/cat > $0.data; /bin/cat $0.data; exit 7").await;
    let handle = server.login().await;
    let channel = subsystem(&handle).await;
    let sent: Vec<u8> = (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut input, output) = channel.split();
    let to_send = sent.clone();
    let sending = tokio::spawn(async move {
        output.data_bytes(to_send).await.unwrap();
        output.eof().await.unwrap();
    });
    let (mut received, mut status) = (Vec::new(), None);
    while let Some(message) = timeout(PATIENCE, input.wait()).await.unwrap() {
        match message {
            ChannelMsg::Data { data } => received.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            ChannelMsg::Close => break,
            _ => {}
        }
    }
    sending.await.unwrap();
    // The echo begins with the policy: four bytes of length, then JSON.
    let length = u32::from_be_bytes(received[..4].try_into().unwrap()) as usize;
    let policy = haul_server::policy::SessionPolicy::read_from(&mut &received[..]).unwrap();
    assert_eq!((policy.user.as_str(), policy.session.len()), (USER, 16));
    assert_eq!(policy.udp_bind, Some(server.address().ip()));
    assert_eq!(policy.docroot, server.folder.path());
    assert!(received[4 + length..] == sent[..], "the bytes differ");
    assert_eq!(status, Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_with_an_empty_environment() {
    let server = Server::with_worker("exec /usr/bin/env").await;
    let mut channel = subsystem(&server.login().await).await;
    let out = String::from_utf8(hear(&mut channel).await.out).unwrap();
    let names: Vec<&str> =
        out.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // What the shell itself sets, and our log filter if the tests run with one.
    assert!(
        names.iter().all(|name| ["PWD", "OLDPWD", "SHLVL", "_", "HAUL_LOG", "RUST_LOG"].contains(name)),
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_told_to_the_client_and_harms_no_other_session() {
    let server = Server::with_worker("read -r line; case $line in *die*) kill -9 $$;; esac; /bin/cat").await;
    let (one, two) = (server.login().await, server.login().await);
    let (mut victim, mut other) = (subsystem(&one).await, subsystem(&two).await);
    victim.data_bytes(b"die\n".to_vec()).await.unwrap();
    let heard = hear(&mut victim).await;
    assert_eq!(heard.status, Some(255));
    assert!(heard.err.contains("killed by signal 9; nothing incomplete bears its final name"), "{heard:?}");
    other.data_bytes(b"live\nstill here".to_vec()).await.unwrap();
    other.eof().await.unwrap();
    let heard = hear(&mut other).await;
    assert_eq!((heard.status, heard.out.as_slice()), (Some(0), b"still here".as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_start_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let server = Server::start_with(folder, PATIENCE, &["127.0.0.1:0"], Some(missing)).await;
    let mut channel = subsystem(&server.login().await).await;
    let heard = hear(&mut channel).await;
    assert_eq!(heard.status, Some(255));
    assert!(heard.err.contains("could not be started"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_client_is_gone_ends() {
    // It writes its process id, then sleeps through the end of its input.
    let server = Server::with_worker("echo $$; exec /bin/sleep 1000").await;
    let handle = server.login().await;
    let mut channel = subsystem(&handle).await;
    let pid = loop {
        if let Some(ChannelMsg::Data { data }) = timeout(PATIENCE, channel.wait()).await.unwrap() {
            break String::from_utf8_lossy(&data).trim().to_owned();
        }
    };
    let process = std::path::PathBuf::from(format!("/proc/{pid}"));
    assert!(process.exists());
    drop((channel, handle));
    let gone = timeout(PATIENCE, async {
        while process.exists() {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("the worker is ended and reaped");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_per_connection() {
    let server = Server::with_worker("exec /bin/cat").await;
    let handle = server.login().await;
    let mut first = subsystem(&handle).await;
    let mut second = subsystem(&handle).await;
    let heard = hear(&mut second).await;
    assert!(heard.err.contains("one session per connection"), "{heard:?}");
    first.eof().await.unwrap();
    assert_eq!(hear(&mut first).await.status, Some(0), "the first is not harmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_insists_on_tiny_packets_is_turned_away() {
    let server = Server::with_worker("exec /bin/cat").await;
    let config = russh::client::Config { maximum_packet_size: 512, ..Default::default() };
    let handle = server.login_with(config).await;
    let mut channel = subsystem(&handle).await;
    let heard = hear(&mut channel).await;
    assert!(heard.err.contains("at least 1024 bytes"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_worker_ends_when_its_input_ends() {
    let server = Server::start().await;
    let handle = server.login().await;
    let mut channel = subsystem(&handle).await;
    channel.eof().await.unwrap();
    let heard = hear(&mut channel).await;
    assert!(heard.closed && heard.status.is_some(), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_sessions_and_connections() {
    let server = Server::with_worker("echo up; exec /bin/sleep 1000").await;
    let (busy, idle) = (server.login().await, server.login().await);
    let mut channel = subsystem(&busy).await;
    // A session that is not yet running when the stop comes is never started.
    let mut next = async || timeout(PATIENCE, channel.wait()).await.unwrap().expect("the session goes on");
    while !matches!(next().await, ChannelMsg::Data { .. }) {}
    let session = async move {
        let heard = hear(&mut channel).await;
        assert!(heard.err.contains("signal 15"), "{heard:?}");
        drop((busy, idle));
    };
    tokio::join!(server.stop(), session);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_logins_at_once_are_served() {
    let server = Server::start().await;
    let logins: Vec<_> = (0..50).map(|_| server.login()).collect();
    let mut handles = Vec::new();
    for login in logins.into_iter().map(Box::pin) {
        handles.push(login);
    }
    let served = futures_in_parallel(handles).await;
    assert_eq!(served, 50);
}

/// Polls all at once and counts those that end.
async fn futures_in_parallel<F: Future + Unpin>(mut futures: Vec<F>) -> usize {
    let total = futures.len();
    timeout(
        PATIENCE * 2,
        std::future::poll_fn(|cx| {
            futures.retain_mut(|future| std::pin::Pin::new(future).poll(cx).is_pending());
            if futures.is_empty() { std::task::Poll::Ready(total) } else { std::task::Poll::Pending }
        }),
    )
    .await
    .expect("all are served")
}
