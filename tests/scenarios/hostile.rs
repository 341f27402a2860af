//! Strangers on the wire: noise at the live ports harms nothing and draws no answer, and what SSH offers
//! besides haul is refused.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use haul_tests::harness::{Pair, Running, Server, ServerOptions, USER, WAYS, Way, wait_until};
use haul_tests::require::require;
use haul_tests::rng::Rng;
use haul_tests::tree::{assert_no_partials, assert_same, make_file};
use socket2::{Domain, Protocol, Socket, Type};

const MIB: u64 = 1 << 20;
/// All protocols of all interfaces (`ETH_P_ALL`).
const EVERYTHING: u16 = 3;
/// Ethernet, IPv4 and UDP headers of a captured packet.
const CAPTURED_HEADERS: usize = 14 + 20 + 8;

/// Local UDP ports of this range that are open, over both address families.
pub(crate) fn udp_sockets((first, last): (u16, u16)) -> Vec<u16> {
    let table = |path| fs::read_to_string(path).unwrap_or_default();
    let port = |line: &str| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    };
    let text = table("/proc/net/udp") + &table("/proc/net/udp6");
    text.lines().filter_map(port).filter(|port| (first..=last).contains(port)).collect()
}

/// A transfer that takes some seconds, its data moving already.
fn slow(pair: &Pair, way: Way) -> Running {
    make_file(&pair.from(way).join("file"), 10 * MIB, 1);
    let mut client = pair.copy(way, &["file"], "arrived").args(["-l", "30m"]).spawn();
    client.wait_for("progress", |client| super::kill::bytes_moved(client) > 0);
    client
}

#[track_caller]
fn assert_arrived(pair: &Pair, way: Way, client: Running) {
    client.wait().assert_success();
    assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
    assert_no_partials(&pair.to(way));
}

/// Runs `noise` again and again until the transfer has ended.
fn disturb(pair: &Pair, way: Way, mut client: Running, mut noise: impl FnMut(&mut Rng)) {
    let mut rng = Rng::new(way as u64);
    while !client.has_ended() {
        noise(&mut rng);
    }
    assert_arrived(pair, way, client);
}

fn server_socket(pair: &Pair) -> SocketAddr {
    let ports = udp_sockets(pair.server.udp_ports());
    assert_eq!(ports.len(), 1, "{ports:?}");
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]))
}

/// A socket that never waits.
fn noise_socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[track_caller]
fn assert_no_answer(socket: &UdpSocket) {
    let answer = socket.recv(&mut [0; 2000]);
    assert!(matches!(&answer, Err(error) if error.kind() == ErrorKind::WouldBlock), "an answer: {answer:?}");
}

/// Random bytes; half of them with the first byte of a haul datagram and a likely length.
fn random_datagram(rng: &mut Rng) -> Vec<u8> {
    let longest = if rng.chance(0.1) { 9000 } else { 1500 };
    let mut datagram = vec![0; rng.range(0, longest) as usize];
    rng.fill(&mut datagram);
    if rng.chance(0.5) && datagram.len() >= 2 {
        datagram[0] = if rng.chance(0.5) { 0x10 } else { 0x20 };
        datagram[1] = 0;
        datagram.truncate(datagram.len() / 16 * 16);
    }
    datagram
}

#[test]
fn random_datagrams_harm_nothing_and_draw_no_answer() {
    for way in WAYS {
        let pair = Pair::start(ServerOptions::default());
        let client = slow(&pair, way);
        let (target, noise) = (server_socket(&pair), noise_socket());
        let mut sent = 0;
        disturb(&pair, way, client, |rng| {
            for _ in 0..50 {
                let _ = noise.send_to(&random_datagram(rng), target);
            }
            sent += 50;
            thread::sleep(Duration::from_millis(2));
        });
        assert!(sent > 1000, "{sent} datagrams of noise");
        assert_no_answer(&noise);
    }
}

/// The UDP datagrams that pass the loopback interface to or from this port, GSO trains as one.
fn capture() -> Socket {
    let protocol = Protocol::from(i32::from(EVERYTHING.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// The payload of a captured packet to or from this UDP port.
fn payload(frame: &[u8], port: u16) -> Option<&[u8]> {
    let is_udp4 = frame.get(12..14)? == [8, 0] && frame.get(14)? == &0x45 && frame.get(23)? == &17;
    let ports = frame.get(34..38)?;
    let ours = ports[..2] == port.to_be_bytes() || ports[2..] == port.to_be_bytes();
    (is_udp4 && ours).then(|| frame.get(CAPTURED_HEADERS..)).flatten()
}

#[test]
fn captured_datagrams_that_are_replayed_cut_or_changed_harm_nothing() {
    if !require("replayed datagrams", &["root"]) {
        return;
    }
    for way in WAYS {
        let pair = Pair::start(ServerOptions::default());
        let client = slow(&pair, way);
        let (target, noise, mut capture) = (server_socket(&pair), noise_socket(), capture());
        let (mut frame, mut sent) = (vec![0; 1 << 17], 0);
        disturb(&pair, way, client, |rng| {
            while let Ok(length) = capture.read(&mut frame) {
                let Some(original) = payload(&frame[..length], target.port()) else { continue };
                let mut datagram = original[..original.len().min(9000)].to_vec();
                match rng.range(0, 2) {
                    0 => datagram.truncate(rng.range(0, datagram.len() as u64) as usize),
                    1 if !datagram.is_empty() => {
                        let at = rng.range(0, datagram.len() as u64 - 1) as usize;
                        datagram[at] ^= 1 << rng.range(0, 7);
                    }
                    _ => {}
                }
                let _ = noise.send_to(&datagram, target);
                sent += 1;
                if sent % 64 == 0 {
                    break;
                }
            }
            thread::sleep(Duration::from_millis(2));
        });
        assert!(sent > 50, "{sent} datagrams captured");
        assert_no_answer(&noise);
    }
}

/// Connects to the server from another address of loopback, so that what this costs us in the server's
/// books is not charged to the test's own clients.
fn connect_as_other(server: &Server) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.connect_timeout(
        &SocketAddr::from((Ipv4Addr::LOCALHOST, server.port())).into(),
        Duration::from_secs(1),
    )?;
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    Ok(stream)
}

fn talk_nonsense(server: &Server, rng: &mut Rng) {
    let Ok(mut stream) = connect_as_other(server) else { return };
    let mut noise = vec![0; rng.range(1, 60_000) as usize];
    rng.fill(&mut noise);
    if rng.chance(0.5) {
        let _ = stream.write_all(b"SSH-2.0-noise\r\n");
    }
    let _ = stream.write_all(&noise);
}

#[test]
fn noise_at_the_ssh_port_harms_no_session_and_no_later_login() {
    let pair = Pair::start(ServerOptions::default());
    for way in WAYS {
        let client = slow(&pair, way);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for seed in 0..8 {
                let (server, stop) = (&pair.server, &stop);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed);
                    while !stop.load(Ordering::Relaxed) {
                        talk_nonsense(server, &mut rng);
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            }
            let outcome = client.wait();
            stop.store(true, Ordering::Relaxed);
            outcome.assert_success();
        });
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
        fs::remove_file(pair.to(way).join("arrived")).unwrap();
    }
}

/// `ssh` with the server's own files and nothing of this machine's.
fn ssh(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["30", "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
    command.args(["-o", "StrictHostKeyChecking=yes", "-o"]);
    command.arg(format!("UserKnownHostsFile={}", server.known_hosts().display()));
    command.arg("-p").arg(server.port().to_string()).arg("-i").arg(server.key());
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

fn host() -> String {
    format!("{USER}@127.0.0.1")
}

#[test]
fn a_stock_ssh_client_gets_no_shell_but_a_polite_line() {
    let pair = Pair::start(ServerOptions::default());
    for arguments in [&[][..], &["-T"]] {
        let (output, stderr) = run(ssh(&pair.server, arguments).arg(host()));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("no shell here") && stderr.contains("`haul`"), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    let (output, stderr) = run(ssh(&pair.server, &[]).arg(host()).args(["touch", "/tmp/haul-was-here"]));
    assert!(output.status.code() == Some(1) && stderr.contains("no shell here"), "{stderr}");
    let (output, _) = run(ssh(&pair.server, &["-s"]).arg(host()).arg("sftp"));
    assert!(!output.status.success());
}

/// With a terminal as its stdin, ssh asks for one at the far end too.
#[test]
fn a_stock_ssh_client_on_a_terminal_gets_the_same_line() {
    let pair = Pair::start(ServerOptions::default());
    let terminal = nix::pty::openpty(None, None).unwrap();
    let (output, stderr) = run(ssh(&pair.server, &[]).arg(host()).stdin(terminal.slave));
    assert!(
        output.status.code() == Some(1) && stderr.contains("no shell here"),
        "{}: {stderr}",
        output.status
    );
    assert!(stderr.contains("PTY allocation request failed"), "{stderr}");
}

#[test]
fn a_stock_ssh_client_sees_strict_key_exchange() {
    let pair = Pair::start(ServerOptions::default());
    let (_, stderr) = run(ssh(&pair.server, &["-vvv"]).arg(host()));
    assert!(stderr.contains("will use strict KEX ordering"), "{stderr}");
}

#[test]
fn ports_are_not_forwarded() {
    let pair = Pair::start(ServerOptions::default());
    let port = pair.server.port();
    let forward = format!("127.0.0.1:{port}");
    // -W asks for a connection from the server's side at once.
    let (output, stderr) = run(ssh(&pair.server, &["-W", &forward]).arg(host()));
    assert!(!output.status.success() && !output.stdout.starts_with(b"SSH-2.0"), "{stderr}");
}

#[test]
fn random_bytes_in_one_session_s_channel_disturb_no_other() {
    for way in WAYS {
        let pair = Pair::start(ServerOptions::default());
        let client = slow(&pair, way);
        let mut rng = Rng::new(5);
        for round in 0..6 {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let mut command = ssh(&pair.server, &["-s"]);
            command.arg(host()).arg("haul").stdin(std::os::fd::OwnedFd::from(theirs));
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            drop(command);
            let mut noise = vec![0; 1 << (8 + 2 * round)];
            rng.fill(&mut noise);
            let _ = ours.write_all(&noise);
            let _ = ours.write_all(b"\n{\"type\":\"offer\"}\n{}\n");
            let _ = ours.shutdown(std::net::Shutdown::Write);
            let output = child.wait_with_output().unwrap();
            assert!(output.status.code() != Some(124), "round {round}: the worker holds on to its channel");
        }
        let only_ours = wait_until(Duration::from_secs(15), || pair.server.workers().len() <= 1);
        assert!(only_ours, "{:?}\n{}", pair.server.workers(), pair.server.log());
        assert_arrived(&pair, way, client);
    }
}
