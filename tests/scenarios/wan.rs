//! Long, lossy and hostile networks: what is sent arrives equal, at the rate the path has, and a path
//! without UDP is named as such.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use haul_tests::harness::{Outcome, Pair, ServerOptions, WAYS, Way, wait_until};
use haul_tests::require::{WAN, require};
use haul_tests::tree::{assert_no_partials, assert_same, make_file, make_small_files};
use haul_tests::wan::{DEVICE, Wan, WanConfig, Way as Direction};

const MIB: u64 = 1 << 20;
const MS: Duration = Duration::from_millis(1);
static TURN: Mutex<()> = Mutex::new(());

/// Tests that measure time take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path of the acceptance tests: 200 Mbit/s, 100 ms, 1 % loss.
fn long_and_lossy() -> WanConfig {
    WanConfig { rate: Some(200_000_000), rtt: 100 * MS, loss: 0.01, seed: 21, ..WanConfig::default() }
}

/// A path with a server at its end B. The path is dropped last.
fn start(config: WanConfig) -> (Wan, Pair) {
    let wan = Wan::start(config).expect("the emulator starts where root and tun are");
    let pair = Pair::start(ServerOptions::at_b(&wan));
    (wan, pair)
}

/// Copies `name`, made already, and compares.
#[track_caller]
fn copy(wan: &Wan, pair: &Pair, way: Way, name: &str, options: &[&str]) -> Outcome {
    let arrived = format!("{name}-arrived");
    let outcome = pair.copy(way, &[name], &arrived).args(options).in_namespace(wan.a()).run();
    println!("{way:?} {name} {options:?}: {}\n{}", outcome.stdout.lines().last().unwrap_or(""), wan.stats());
    outcome.assert_success();
    assert_same(&pair.from(way).join(name), &pair.to(way).join(arrived));
    assert_no_partials(&pair.to(way));
    outcome
}

fn seconds(outcome: &Outcome) -> f64 {
    outcome.done()["seconds"].as_f64().unwrap()
}

fn goodput(outcome: &Outcome) -> f64 {
    outcome.done()["bytes"].as_f64().unwrap() * 8.0 / seconds(outcome)
}

#[test]
fn a_long_lossy_path_delivers_a_file_equal() {
    if !require("file over a lossy path", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(long_and_lossy());
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 25 * MIB, 5);
        let outcome = copy(&wan, &pair, way, "file", &[]);
        let done = outcome.done();
        let rtt = done["rtt_ms"].as_f64().unwrap();
        assert!((95.0..250.0).contains(&rtt), "{done}");
        assert!(
            done["lost_packets"].as_u64() > Some(0) && done["retransmitted_bytes"].as_u64() > Some(0),
            "{done}"
        );
        assert!(goodput(&outcome) > 20e6, "fair without -l: {:.0} bit/s", goodput(&outcome));
    }
}

#[test]
fn a_long_lossy_path_delivers_a_tree_equal() {
    if !require("tree over a lossy path", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(long_and_lossy());
    for way in WAYS {
        make_small_files(&pair.from(way).join("tree"), 300, 0, 60_000, 6);
        copy(&wan, &pair, way, "tree", &[]);
    }
}

#[test]
fn loss_reordering_duplicates_and_corruption_change_nothing() {
    if !require("bad path", WAN) {
        return;
    }
    let _turn = turn();
    let bad = WanConfig {
        loss: 0.05,
        reorder: 0.01,
        duplicate: 0.01,
        corrupt: 0.01,
        jitter: 5 * MS,
        seed: 22,
        ..long_and_lossy()
    };
    let (wan, pair) = start(bad);
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 15 * MIB, 7);
        copy(&wan, &pair, way, "file", &[]);
        make_small_files(&pair.from(way).join("tree"), 300, 0, 20_000, 8);
        copy(&wan, &pair, way, "tree", &["--policy", "fixed", "-l", "50m"]);
    }
    let stats = wan.stats();
    assert!(stats.a_to_b.corrupted > 50 && stats.b_to_a.corrupted > 50, "{stats}");
}

#[test]
fn fixed_reaches_its_rate_whatever_is_lost() {
    if !require("fixed rate", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(long_and_lossy());
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 120 * MIB, 9);
        let outcome = copy(&wan, &pair, way, "file", &["--policy", "fixed", "-l", "200m"]);
        let wanted = 0.8 * 200e6 * 0.99;
        assert!(goodput(&outcome) >= wanted, "{way:?}: {:.0} bit/s, {wanted:.0} expected", goodput(&outcome));
    }
}

#[test]
fn small_files_take_little_longer_than_one_large_one() {
    if !require("small files", WAN) {
        return;
    }
    let _turn = turn();
    let config = WanConfig { rate: Some(100_000_000), loss: 0.001, ..long_and_lossy() };
    let (wan, pair) = start(config);
    for way in WAYS {
        make_file(&pair.from(way).join("large"), 300 * 10_240, 10);
        make_small_files(&pair.from(way).join("small"), 300, 10_240, 10_240, 11);
        let large = copy(&wan, &pair, way, "large", &[]).elapsed.as_secs_f64();
        let small = copy(&wan, &pair, way, "small", &[]).elapsed.as_secs_f64();
        assert!(small <= 2.5 * large + 0.5, "{way:?}: {small:.2} s, one large file takes {large:.2} s");
        println!("{way:?}: 300 files {small:.2} s, one file {large:.2} s");
    }
}

/// Keeps TCP below the path's limit, as routers that change its MSS do; UDP has to find it.
fn clamp_tcp(wan: &Wan) {
    for namespace in [wan.a(), wan.b()] {
        let route = ["-n", namespace, "route", "replace", "10.77.0.0/24", "dev", DEVICE, "advmss", "1200"];
        assert!(Command::new("ip").args(route).status().unwrap().success());
    }
}

#[test]
fn a_path_that_carries_small_packets_only_delivers() {
    if !require("small path MTU", WAN) {
        return;
    }
    let (wan, pair) = start(WanConfig {
        rate: Some(100_000_000),
        rtt: 20 * MS,
        path_mtu: Some(1280),
        ..WanConfig::default()
    });
    clamp_tcp(&wan);
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 8 * MIB, 12);
        copy(&wan, &pair, way, "file", &[]);
    }
}

#[test]
fn a_path_that_begins_to_swallow_large_packets_is_survived() {
    if !require("path MTU that shrinks without a word", WAN) {
        return;
    }
    let config = WanConfig { rate: Some(100_000_000), rtt: 20 * MS, mtu: 9000, ..WanConfig::default() };
    let (wan, pair) = start(config);
    clamp_tcp(&wan);
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 12 * MIB, 15);
        let client = pair.copy(way, &["file"], "arrived").args(["-l", "30m"]).in_namespace(wan.a());
        let mut client = client.spawn();
        client.wait_for("progress", |client| super::kill::bytes_moved(client) > 2 * MIB);
        wan.set_path_mtu(Some(1280));
        let outcome = client.wait();
        wan.set_path_mtu(None);
        outcome.assert_success();
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
        let sender = if way == Way::Up { outcome.stderr.clone() } else { pair.server.log() };
        assert!(sender.contains("swallows large datagrams"), "{way:?}: {}", outcome.story());
        // 3.4 s at its rate; noticing costs a few round trips.
        assert!(seconds(&outcome) < 6.0, "{way:?}: {}", outcome.done());
    }
}

#[test]
fn an_outage_in_the_middle_is_survived() {
    if !require("outage", WAN) {
        return;
    }
    let (wan, pair) = start(WanConfig { rate: Some(100_000_000), rtt: 40 * MS, ..WanConfig::default() });
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 12 * MIB, 13);
        let client = pair.copy(way, &["file"], "arrived").args(["-l", "20m"]).in_namespace(wan.a());
        let mut client = client.spawn();
        client.wait_for("progress", |client| super::kill::bytes_moved(client) > MIB);
        wan.set_blackout(true);
        thread::sleep(Duration::from_secs(3));
        wan.set_blackout(false);
        client.wait().assert_success();
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
    }
}

/// Starts a copy each way, which must both end with the verdict that UDP does not pass.
#[track_caller]
fn assert_udp_verdict(wan: &Wan, pair: &Pair, from: Duration, to: Duration, words: &[&str]) {
    for way in WAYS {
        // More than the first flight, which alone could bring a small file over a path that is open in one direction.
        make_file(&pair.from(way).join("file"), 1_000_000, 14);
    }
    let clients = WAYS.map(|way| {
        let client = pair.copy(way, &["file"], "arrived").args(["--carrier", "udp"]);
        (way, client.in_namespace(wan.a()).spawn())
    });
    for (way, client) in clients {
        let outcome = client.wait();
        outcome.assert_refused(7, words);
        assert!(
            (from..to).contains(&outcome.elapsed),
            "{way:?}: the verdict took {:?}\n{}",
            outcome.elapsed,
            outcome.story()
        );
        assert!(!pair.to(way).join("arrived").exists());
    }
    let ended = wait_until(Duration::from_secs(15), || pair.server.workers().is_empty());
    assert!(ended, "workers are left: {:?}\n{}", pair.server.workers(), pair.server.log());
    WAYS.iter().for_each(|way| assert_no_partials(&pair.to(*way)));
}

#[test]
fn dropped_udp_is_named_within_five_seconds() {
    if !require("UDP dropped", WAN) {
        return;
    }
    let (wan, pair) = start(WanConfig { rtt: 20 * MS, ..WanConfig::default() });
    wan.set_drop_udp(true);
    let (from, to) = (Duration::from_secs(2), Duration::from_secs(5));
    assert_udp_verdict(&wan, &pair, from, to, &["UDP", "port 330", "firewall"]);
    wan.set_drop_udp(false);
    // One direction is enough to make it useless.
    wan.set_drop_udp_way(Direction::BToA, true);
    assert_udp_verdict(&wan, &pair, from, to, &["UDP", "port 330", "firewall"]);
    wan.set_drop_udp_way(Direction::BToA, false);
    copy(&wan, &pair, Way::Up, "file", &[]);
}

#[test]
fn rejected_udp_is_named_at_once() {
    if !require("UDP rejected", &[WAN, &["nft"]].concat()) {
        return;
    }
    let (wan, pair) = start(WanConfig { rtt: 20 * MS, ..WanConfig::default() });
    // The kernel sends one client's worth of such messages a second; here two clients ask at once.
    let unlimited = wan.command_in_b("sysctl").args(["-qw", "net.ipv4.icmp_ratelimit=0"]).status();
    assert!(unlimited.unwrap().success());
    let rules = "add table inet t; add chain inet t i { type filter hook input priority 0; }; \
                 add rule inet t i udp dport 33001-33100 reject";
    assert!(wan.command_in_b("nft").arg(rules).status().unwrap().success());
    assert_udp_verdict(&wan, &pair, Duration::ZERO, Duration::from_secs(2), &["UDP", "port 330", "firewall"]);
}
