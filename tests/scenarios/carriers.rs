//! The same transfer over other carriers than UDP: pinned, when UDP is blocked from the start, and when it goes and comes
//! back in the middle.

use std::time::Duration;

use haul_tests::harness::{Outcome, Pair, ServerOptions, WAYS, Way};
use haul_tests::require::{WAN, require};
use haul_tests::tree::{assert_no_partials, assert_same, make_file, make_small_files};
use haul_tests::wan::{Wan, WanConfig};

const MIB: u64 = 1 << 20;

fn path() -> WanConfig {
    let rtt = Duration::from_millis(60);
    WanConfig { rate: Some(100_000_000), rtt, ..WanConfig::default() }
}

fn start(https: bool) -> (Wan, Pair) {
    let wan = Wan::start(path()).expect("the emulator starts where root and tun are");
    let pair = Pair::start(ServerOptions { https, ..ServerOptions::at_b(&wan) });
    (wan, pair)
}

#[track_caller]
fn assert_arrived(pair: &Pair, way: Way, name: &str, outcome: &Outcome, carrier: &str) {
    outcome.assert_success();
    assert_eq!(outcome.done()["carrier"], carrier, "{way:?}\n{}", outcome.story());
    assert_same(&pair.from(way).join(name), &pair.to(way).join(format!("{name}-{carrier}")));
    assert_no_partials(&pair.to(way));
}

/// The carriers it went over, in turn, the first one apart.
fn changes(outcome: &Outcome) -> Vec<String> {
    outcome
        .events_with("event", "carrier")
        .map(|event| event["carrier"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_pinned_carrier_brings_a_file_and_a_tree_in_both_directions() {
    let pair = Pair::start(ServerOptions { https: true, ..ServerOptions::default() });
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 20 * MIB + 7, 1);
        make_small_files(&pair.from(way).join("tree"), 300, 0, 20_000, 2);
        for carrier in ["https", "ssh", "udp"] {
            for name in ["file", "tree"] {
                let client =
                    pair.copy(way, &[name], &format!("{name}-{carrier}")).args(["--carrier", carrier]);
                let outcome = client.run();
                assert_arrived(&pair, way, name, &outcome, carrier);
                assert_eq!(changes(&outcome), [""; 0]);
            }
        }
    }
}

#[test]
fn a_server_without_https_refuses_to_be_asked_for_it_alone() {
    let pair = Pair::start(ServerOptions::default());
    make_file(&pair.from(Way::Up).join("file"), MIB, 1);
    let outcome = pair.copy(Way::Up, &["file"], "x").args(["--carrier", "https"]).run();
    assert!(outcome.code() != Some(0), "{}", outcome.story());
    assert!(outcome.story().contains("[https]"), "{}", outcome.story());
}

#[test]
fn blocked_udp_costs_a_second_at_most_and_the_transfer_goes_over_tls_else_over_ssh() {
    if !require("UDP blocked", WAN) {
        return;
    }
    for (https, carrier) in [(true, "https"), (false, "ssh")] {
        let (wan, pair) = start(https);
        for way in WAYS {
            make_file(&pair.from(way).join("file"), 2 * MIB, 3);
            wan.set_drop_udp(true);
            let copy = pair.copy(way, &["file"], &format!("file-{carrier}")).in_namespace(wan.a()).run();
            assert_arrived(&pair, way, "file", &copy, carrier);
            assert_eq!(changes(&copy), [carrier], "{}", copy.story());
            // 0.17 s for the data at the rate of the link, and what TCP needs to get there.
            let seconds = copy.done()["seconds"].as_f64().unwrap();
            assert!(seconds < 3.0, "{way:?} {carrier}: {seconds} s\n{}", copy.story());
        }
    }
}

#[test]
fn udp_that_goes_in_the_middle_is_replaced_and_taken_up_again_without_sending_twice() {
    if !require("UDP lost in the middle", WAN) {
        return;
    }
    for way in WAYS {
        let (wan, pair) = start(true);
        make_file(&pair.from(way).join("file"), 24 * MIB, 4);
        let client = pair.copy(way, &["file"], "file-udp").args(["-l", "20m"]).in_namespace(wan.a());
        let mut client = client.spawn();
        let moved = super::kill::bytes_moved;
        client.wait_for("progress", |client| moved(client) > 2 * MIB);
        wan.set_drop_udp(true);
        let carrier = |client: &haul_tests::harness::Running, name: &str| {
            client.events().iter().any(|event| event["event"] == "carrier" && event["carrier"] == name)
        };
        client.wait_for("the change to TLS", |client| carrier(client, "https"));
        let then = moved(&client);
        client.wait_for("progress on TLS", |client| moved(client) > then + MIB);
        wan.set_drop_udp(false);
        client.wait_for("the return to UDP", |client| carrier(client, "udp"));
        let outcome = client.wait();
        assert_arrived(&pair, way, "file", &outcome, "udp");
        let again = outcome.done()["retransmitted_bytes"].as_u64().unwrap();
        assert!(again < 4 * MIB, "{again} bytes were sent twice\n{}", outcome.story());
    }
}
