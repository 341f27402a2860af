//! The WAN emulator keeps its own settings: without this, no number measured through it means anything.
//!
//! Each test measures from outside, with ordinary sockets in the two namespaces, and takes turns with the
//! others, as all of them need the machine's attention.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use haul_tests::require::{WAN, require};
use haul_tests::rng::Rng;
use haul_tests::wan::{Burst, Wan, WanConfig, Way};
use socket2::SockRef;

/// IPv4 and UDP header, which the emulator counts and the sockets do not show.
const HEADERS: usize = 28;
const PORT: u16 = 5000;
const MS: Duration = Duration::from_millis(1);
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(config: WanConfig) -> Wan {
    Wan::start(config).expect("the emulator starts where root and tun are")
}

/// A socket at A connected to one at B.
fn udp_pair(wan: &Wan, a: IpAddr, b: IpAddr) -> (UdpSocket, UdpSocket) {
    let bind = move |ip| move || UdpSocket::bind((ip, PORT)).unwrap();
    let at_a = wan.enter_a(bind(a)).unwrap();
    let at_b = wan.enter_b(bind(b)).unwrap();
    at_a.connect((b, PORT)).unwrap();
    at_b.connect((a, PORT)).unwrap();
    for socket in [&at_a, &at_b] {
        SockRef::from(socket).set_recv_buffer_size(8 << 20).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    }
    (at_a, at_b)
}

fn udp4(wan: &Wan) -> (UdpSocket, UdpSocket) {
    udp_pair(wan, wan.address_a(), wan.address_b())
}

/// One received packet.
struct Arrival {
    /// The number the sender gave it.
    number: u32,
    /// When it was sent, since the blast's start.
    sent: Duration,
    /// When it was received.
    received: Duration,
    intact: bool,
}

/// Sends `count` numbered packets of `payload` bytes, evenly at `rate` bits per second of IP packets in
/// bursts of about a millisecond, and returns what arrives.
fn blast(from: &UdpSocket, to: &UdpSocket, count: u32, payload: usize, rate: u64) -> Vec<Arrival> {
    let begin = Instant::now();
    let gap = Duration::from_nanos((payload + HEADERS) as u64 * 8_000_000_000 / rate);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut arrivals = Vec::with_capacity(count as usize);
            let mut buffer = vec![0; 9000];
            while let Ok(len) = to.recv(&mut buffer) {
                let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
                let sent = Duration::from_nanos(u64::from_be_bytes(buffer[4..12].try_into().unwrap()));
                let intact =
                    buffer[12..20] == check(&buffer[..12]) && buffer[20..len] == pattern()[20..payload];
                arrivals.push(Arrival { number, sent, received: begin.elapsed(), intact });
            }
            arrivals
        });
        let mut packet = pattern()[..payload].to_vec();
        for number in 0..count {
            let due = gap * number;
            let now = begin.elapsed();
            if due > now + MS {
                thread::sleep(due - now);
            }
            packet[..4].copy_from_slice(&number.to_be_bytes());
            packet[4..12].copy_from_slice(&(begin.elapsed().as_nanos() as u64).to_be_bytes());
            let check = check(&packet[..12]);
            packet[12..20].copy_from_slice(&check);
            from.send(&packet).unwrap();
        }
        receiver.join().unwrap()
    })
}

/// What fills the packets.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut bytes = vec![0; 1500];
        Rng::new(77).fill(&mut bytes);
        bytes
    })
}

/// Shows that number and time of a packet have not changed.
fn check(header: &[u8]) -> [u8; 8] {
    let mix = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    header.iter().fold(0xcbf2_9ce4_8422_2325, mix).to_be_bytes()
}

/// Fails unless `found` is within four standard deviations of a binomial distribution.
fn assert_share(what: &str, found: usize, trials: usize, share: f64) {
    let mean = trials as f64 * share;
    let sigma = (mean * (1.0 - share)).sqrt();
    let off = (found as f64 - mean).abs() / sigma;
    println!("{what}: {found} of {trials}, expected {mean:.0}, off by {off:.1} sigma");
    assert!(off < 4.0, "{what}: {found} of {trials}, expected {mean:.0} +- {sigma:.1}");
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// Rate of the arrivals between two times, in bits per second of IP packets.
fn rate_between(arrivals: &[Arrival], payload: usize, from: Duration, to: Duration) -> f64 {
    let inside: Vec<&Arrival> = arrivals.iter().filter(|a| (from..to).contains(&a.received)).collect();
    let span = inside[inside.len() - 1].received - inside[0].received;
    (inside.len() - 1) as f64 * (payload + HEADERS) as f64 * 8.0 / span.as_secs_f64()
}

#[test]
fn emulator_keeps_the_rate_within_two_percent() {
    if !require("emulator rate", WAN) {
        return;
    }
    let _turn = turn();
    for rate in [20_000_000u64, 100_000_000, 500_000_000] {
        let wan = start(WanConfig { rate: Some(rate), rtt: 10 * MS, ..WanConfig::default() });
        let (a, b) = udp4(&wan);
        let offered = rate * 6 / 5;
        let count = (offered / 8 / 1500) as u32;
        let arrivals = blast(&a, &b, count, 1472, offered);
        let found = rate_between(&arrivals, 1472, 200 * MS, 1000 * MS);
        println!("asked {rate}, found {found:.0} bit/s; {}", wan.stats().a_to_b);
        let error = (found / rate as f64 - 1.0).abs();
        assert!(error < 0.02, "asked {rate}, found {found:.0} bit/s\n{}", wan.stats());
    }
}

#[test]
fn emulator_follows_a_changed_rate() {
    if !require("emulator rate change", WAN) {
        return;
    }
    let _turn = turn();
    let queue_bytes = Some(30_000);
    let wan = start(WanConfig { rate: Some(50_000_000), rtt: 10 * MS, queue_bytes, ..WanConfig::default() });
    let (a, b) = udp4(&wan);
    let begin = Instant::now();
    let arrivals = thread::scope(|scope| {
        let wan = &wan;
        scope.spawn(move || {
            thread::sleep((800 * MS).saturating_sub(begin.elapsed()));
            wan.set_rate(Some(10_000_000));
        });
        blast(&a, &b, 8000, 1472, 60_000_000)
    });
    for (from, to, asked) in [(200, 780, 50e6), (900, 1500, 10e6)] {
        let found = rate_between(&arrivals, 1472, from * MS, to * MS);
        assert!((found / asked - 1.0).abs() < 0.03, "asked {asked}, found {found}\n{}", wan.stats());
    }
}

#[test]
fn emulator_keeps_the_round_trip_time_within_a_millisecond() {
    if !require("emulator round-trip time", WAN) {
        return;
    }
    let _turn = turn();
    for rtt in [4 * MS, 80 * MS] {
        let wan = start(WanConfig { rtt, ..WanConfig::default() });
        let ends = [udp4(&wan), udp_pair(&wan, wan.address6_a(), wan.address6_b())]
            .map(|(a, b)| (a, b, echoes(rtt)));
        for (a, b, count) in ends {
            let found = median(round_trips(&a, &b, count));
            println!("asked {rtt:?}, found {found:?}; {}", wan.stats().a_to_b);
            assert!(found >= rtt && found < rtt + MS, "asked {rtt:?}, found {found:?}");
        }
    }
}

/// About half a second of echoes.
fn echoes(rtt: Duration) -> u32 {
    (500 / rtt.as_millis().max(1) as u32).clamp(9, 51)
}

fn round_trips(a: &UdpSocket, b: &UdpSocket, count: u32) -> Vec<Duration> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 100];
            while let Ok(len) = b.recv(&mut buffer) {
                b.send(&buffer[..len]).unwrap();
            }
        });
        let ping = || {
            let begin = Instant::now();
            a.send(b"echo").unwrap();
            a.recv(&mut [0; 100]).unwrap();
            begin.elapsed()
        };
        (0..count).map(|_| ping()).collect()
    })
}

#[test]
fn emulator_loses_the_asked_share() {
    if !require("emulator loss", WAN) {
        return;
    }
    let _turn = turn();
    let wan = start(WanConfig { rtt: 2 * MS, loss: 0.03, seed: 11, ..WanConfig::default() });
    let (a, b) = udp4(&wan);
    let count = 30_000;
    let arrivals = blast(&a, &b, count, 100, 30_000_000);
    let lost = count as usize - arrivals.len();
    let counted = wan.stats().a_to_b.lost as usize;
    assert!(lost.abs_diff(counted) <= 2, "{lost} are missing, {counted} were thrown away\n{}", wan.stats());
    assert_share("loss", lost, count as usize, 0.03);
}

#[test]
fn emulator_reorders_and_duplicates_the_asked_shares() {
    if !require("emulator reordering", WAN) {
        return;
    }
    let _turn = turn();
    let wan =
        start(WanConfig { rtt: 2 * MS, reorder: 0.02, duplicate: 0.03, seed: 12, ..WanConfig::default() });
    let (a, b) = udp4(&wan);
    let count = 20_000usize;
    let arrivals = blast(&a, &b, count as u32, 100, 25_000_000);
    let mut copies = vec![0u32; count];
    let (mut highest, mut late) = (0, 0);
    for arrival in &arrivals {
        let seen = &mut copies[arrival.number as usize];
        *seen += 1;
        late += usize::from(*seen == 1 && arrival.number < highest);
        highest = highest.max(arrival.number);
    }
    let twice = copies.iter().filter(|n| **n == 2).count();
    assert!(!copies.contains(&0), "packets are missing\n{}", wan.stats());
    assert_share("reordered", late, count, 0.02);
    assert_share("duplicated", twice, count, 0.03);
}

#[test]
fn emulator_corrupts_the_asked_share_unseen_by_the_checksum() {
    if !require("emulator corruption", WAN) {
        return;
    }
    let _turn = turn();
    let wan = start(WanConfig { rtt: 2 * MS, corrupt: 0.05, seed: 13, ..WanConfig::default() });
    let (a, b) = udp4(&wan);
    let arrivals = blast(&a, &b, 10_000, 200, 40_000_000);
    let changed = arrivals.iter().filter(|arrival| !arrival.intact).count();
    assert_eq!(arrivals.len(), 10_000, "packets are missing\n{}", wan.stats());
    assert_eq!(changed as u64, wan.stats().a_to_b.corrupted);
    assert_share("corrupted", changed, 10_000, 0.05);
}

#[test]
fn emulator_stays_within_the_queue_and_shows_its_delay() {
    if !require("emulator queue", WAN) {
        return;
    }
    let _turn = turn();
    let config =
        WanConfig { rate: Some(10_000_000), rtt: 20 * MS, queue_bytes: Some(50_000), ..WanConfig::default() };
    let wan = start(config);
    let (a, b) = udp4(&wan);
    let arrivals = blast(&a, &b, 2500, 1472, 30_000_000);
    let stats = wan.stats().a_to_b;
    println!("{stats}");
    assert!((48_500..=50_000).contains(&stats.queue_bytes_max), "{stats}");
    assert!(stats.dropped_by_queue > 1000 && stats.overrun == 0, "{stats}");
    // 33 packets of 1500 bytes at 10 Mbit/s are 39.6 ms, and 10 ms of propagation.
    let full = arrivals.iter().filter(|arrival| arrival.sent > 200 * MS);
    let delay = median(full.map(|arrival| arrival.received - arrival.sent).collect());
    assert!((47 * MS..52 * MS).contains(&delay), "delay through a full queue: {delay:?}\n{stats}");
}

#[test]
fn emulator_blocks_udp_while_tcp_passes() {
    if !require("emulator UDP block", WAN) {
        return;
    }
    let _turn = turn();
    let wan = start(WanConfig { rate: Some(100_000_000), rtt: 4 * MS, ..WanConfig::default() });
    let (a, b) = udp4(&wan);
    let passes = || blast(&a, &b, 10, 100, 1_000_000).len();
    assert_eq!(passes(), 10);
    wan.set_drop_udp(true);
    assert_eq!(passes(), 0);
    assert_eq!(wan.stats().a_to_b.blocked, 10);
    assert_eq!(tcp_echo(&wan, 200_000), 200_000);
    wan.set_drop_udp(false);
    assert_eq!(passes(), 10);
    wan.set_blackout_way(Way::AToB, true);
    assert_eq!(passes(), 0);
    assert_eq!(blast(&b, &a, 10, 100, 1_000_000).len(), 10);
    wan.set_blackout(true);
    assert_eq!(blast(&b, &a, 10, 100, 1_000_000).len(), 0);
    wan.set_blackout(false);
    assert_eq!(passes(), 10);
    wan.set_path_mtu(Some(600));
    assert_eq!(blast(&a, &b, 10, 600 - HEADERS, 1_000_000).len(), 10);
    assert_eq!(blast(&a, &b, 10, 601 - HEADERS, 1_000_000).len(), 0);
}

/// Bytes that come back from an echo service at B.
fn tcp_echo(wan: &Wan, bytes: usize) -> usize {
    let address = SocketAddr::new(wan.address_b(), PORT);
    let listener = wan.enter_b(|| TcpListener::bind(address).unwrap()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            std::io::copy(&mut stream, &mut writer).unwrap();
        });
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
        let mut stream = wan.enter_a(connect).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(&vec![7; bytes]).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        back.len()
    })
}

#[test]
fn emulator_outages_take_the_asked_share_of_time() {
    if !require("emulator outages", WAN) {
        return;
    }
    let _turn = turn();
    let burst = Some(Burst::Outage { length: 20 * MS, every: 100 * MS });
    let wan = start(WanConfig { rtt: 2 * MS, burst, seed: 3, ..WanConfig::default() });
    let (a, b) = udp4(&wan);
    let arrivals = blast(&a, &b, 20_000, 100, 10_000_000);
    let mut longest_gap = 0;
    for pair in arrivals.windows(2) {
        longest_gap = longest_gap.max(pair[1].number.saturating_sub(pair[0].number));
    }
    let share = 1.0 - arrivals.len() as f64 / 20_000.0;
    assert!((0.1..0.3).contains(&share), "share lost {share}\n{}", wan.stats());
    // 20 ms at 9766 packets per second.
    assert!(longest_gap >= 180, "longest gap {longest_gap} packets");
}

#[test]
fn emulator_leaves_no_namespace_behind() {
    if !require("emulator namespaces", WAN) {
        return;
    }
    let _turn = turn();
    let exists = |name: &str| std::path::Path::new("/run/netns").join(name).exists();
    // No process has this number: the kernel's limit is 2^22.
    let stale = "haul-4194999-0-a";
    let made = std::process::Command::new("ip").args(["netns", "add", stale]).status().unwrap();
    assert!(made.success() || exists(stale));
    let wan = start(WanConfig::default());
    let names = [wan.a().to_owned(), wan.b().to_owned()];
    assert!(names.iter().all(|name| exists(name)) && !exists(stale));
    drop(wan);
    assert!(!names.iter().any(|name| exists(name)));
}
