//! A kernel that begins to refuse batches in mid-transfer: offload that a route change takes away, full device queues,
//! packets that a firewall on this host rejects. strace makes the real calls of the real sender fail.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use haul_tests::harness::{Pair, ServerOptions, WAYS, Way, wait_until};
use haul_tests::require::require;
use haul_tests::tree::{assert_no_partials, assert_same, make_file};

const MIB: u64 = 1 << 20;

/// Lets some of the `sendmsg` calls of a running process fail.
fn strace(pid: u32, error: &str, log: &std::path::Path) -> Child {
    let inject = format!("inject=sendmsg:error={error}");
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-e", "trace=sendmsg", "-e", &inject, "-p", &pid.to_string(), "-o"]).arg(log);
    command.stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn calls_that_begin_to_fail_cost_speed_and_nothing_else() {
    if !require("failing send calls", &["root", "strace"]) {
        return;
    }
    let pair = Pair::start(ServerOptions::default());
    for way in WAYS {
        make_file(&pair.from(way).join("file"), 10 * MIB, 31);
    }
    // Offload refused; too large a datagram; no room; a firewall's word. `+`: again and again.
    for error in
        ["EIO:when=20", "EINVAL:when=20", "EMSGSIZE:when=20", "ENOBUFS:when=20+10", "EPERM:when=20..60"]
    {
        let runs = WAYS.map(|way| {
            let mut client = pair.copy(way, &["file"], "arrived").args(["-l", "40m"]).spawn();
            client.wait_for("progress", |client| super::kill::bytes_moved(client) > 0);
            (way, client)
        });
        let runs = runs.map(|(way, client)| {
            let sender = match way {
                Way::Up => client.pid(),
                // Of the two sessions the later one.
                Way::Down => *pair.server.workers().last().unwrap(),
            };
            let log = pair.to(Way::Down).join(format!("strace-{way:?}"));
            (way, client, strace(sender, error, &log), log)
        });
        for (way, client, mut strace, log) in runs {
            let outcome = client.wait();
            outcome.assert_success();
            println!("{error} {way:?}: {}", outcome.done());
            assert_same(&pair.from(way).join("file"), &pair.to(way).join("arrived"));
            assert_no_partials(&pair.to(way));
            let ended = wait_until(Duration::from_secs(10), || strace.try_wait().unwrap().is_some());
            assert!(ended, "strace goes on after its process has ended");
            let calls = std::fs::read_to_string(&log).unwrap();
            assert!(calls.contains("(INJECTED)"), "{error} {way:?}: no call failed\n{calls:.2000}");
            std::fs::remove_file(log).unwrap();
            std::fs::remove_file(pair.to(way).join("arrived")).unwrap();
        }
    }
}
