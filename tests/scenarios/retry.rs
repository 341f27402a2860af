//! One command survives what passes by itself: a server that starts anew, a worker that dies. Its totals are those of
//! one transfer.

use std::time::Duration;

use haul_tests::harness::{Pair, Running, ServerOptions, WAYS, Way};
use haul_tests::tree::{assert_no_partials, assert_same, make_file, make_small_files};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::kill::bytes_moved;

const MIB: u64 = 1 << 20;

fn start(pair: &Pair, way: Way, source: &str, options: &[&str]) -> Running {
    pair.copy(way, &[source], "arrived").args(options).limit(Duration::from_secs(90)).spawn()
}

fn kill_workers(pair: &Pair) {
    for worker in pair.server.workers() {
        kill(Pid::from_raw(worker as i32), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn one_command_survives_the_restart_of_the_server() {
    for way in WAYS {
        let mut pair = Pair::start(ServerOptions::default());
        make_file(&pair.from(way).join("file"), 40 * MIB, 1);
        let mut client = start(&pair, way, "file", &["-l", "100m"]);
        client.wait_for("progress", |client| bytes_moved(client) > 16 * MIB);
        pair.server.kill();
        client.wait_for("the attempt after", |client| client.stdout().contains("trying again"));
        pair.server.restart();
        let outcome = client.wait();
        outcome.assert_success();
        let done = outcome.done();
        assert!(done["attempts"].as_u64() >= Some(2), "{done}");
        assert_eq!((&done["files"], &done["bytes"]), (&1.into(), &(40 * MIB).into()), "{done}");
        assert_eq!((&done["skipped"], &done["resumed_bytes"]), (&0.into(), &0.into()), "{done}");
        let sent = done["packets"].as_u64().unwrap() * 9200;
        assert!(sent > 40 * MIB, "the packets of both attempts: {done}");
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
        assert_no_partials(&pair.to(way));
    }
}

#[test]
fn a_tree_goes_on_after_the_death_of_its_worker_and_is_counted_once() {
    for (way, options) in WAYS
        .into_iter()
        .flat_map(|way| [&["-l", "30m"][..], &["-l", "30m", "-p"]].map(|options| (way, options)))
    {
        let pair = Pair::start(ServerOptions::default());
        let root = pair.from(way).join("tree");
        make_small_files(&root, 900, 0, 20_000, 3);
        let mut client = start(&pair, way, "tree", options);
        client.wait_for("progress", |client| bytes_moved(client) > 3 * MIB);
        kill_workers(&pair);
        let outcome = client.wait();
        outcome.assert_success();
        let done = outcome.done();
        assert_eq!(done["attempts"], 2, "{done}");
        let (files, skipped) = (done["files"].as_u64().unwrap(), done["skipped"].as_u64().unwrap());
        assert_eq!(files + skipped, 900, "{done}");
        // What came after the last report is not known to have come.
        assert!(skipped < 60, "{way:?} {options:?}: {done}");
        assert_same(&root, &pair.to(way).join("arrived"));
    }
}

#[test]
fn a_command_that_shall_not_try_again_does_not() {
    let pair = Pair::start(ServerOptions::default());
    make_file(&pair.here().join("file"), 20 * MIB, 1);
    for option in ["--no-retry", "-k0"] {
        let mut client = start(&pair, Way::Up, "file", &["-l", "40m", option]);
        client.wait_for("progress", |client| bytes_moved(client) > MIB);
        kill_workers(&pair);
        client.wait().assert_code(3);
    }
}
