//! Death of a part: whatever is killed, the rest ends soon, says what was lost, and leaves no half file
//! under its final name; other sessions go on.

use std::path::Path;
use std::time::{Duration, Instant};

use haul_tests::harness::{Pair, Running, ServerOptions, WAYS, Way, wait_until};
use haul_tests::tree::{assert_no_partials, assert_same, make_file, partials};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MIB: u64 = 1 << 20;
/// The other side must have noticed by then.
const NOTICE: Duration = Duration::from_secs(15);

/// Content bytes that a client with `--json` has reported so far.
pub(crate) fn bytes_moved(client: &Running) -> u64 {
    client.events().iter().filter_map(|event| event["bytes"].as_u64()).max().unwrap_or(0)
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !matches!(stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()), None | Some("Z" | "X"))
}

fn sigkill(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

/// A server, a transfer of it in full swing, and its worker.
struct Victim {
    pair: Pair,
    way: Way,
    client: Running,
    worker: u32,
}

impl Victim {
    fn start(way: Way) -> Self {
        Self::start_with(way, &[])
    }

    fn start_with(way: Way, options: &[&str]) -> Self {
        let pair = Pair::start(ServerOptions::default());
        make_file(&pair.from(way).join("file"), 64 * MIB, 1);
        let mut client =
            pair.copy(way, &["file"], "arrived").args(["-l", "20m", "--no-retry"]).args(options).spawn();
        client.wait_for("progress", |client| bytes_moved(client) > MIB);
        let workers = pair.server.workers();
        assert_eq!(workers.len(), 1, "{}", pair.server.log());
        Self { way, client, worker: workers[0], pair }
    }

    /// Another session, moving already, that has seconds to go.
    fn bystander(&self) -> Running {
        make_file(&self.pair.from(self.way).join("other"), 8 * MIB, 2);
        let mut other = self.pair.copy(self.way, &["other"], "other-arrived").args(["-l", "20m"]).spawn();
        other.wait_for("progress", |client| bytes_moved(client) > 0);
        other
    }

    #[track_caller]
    fn assert_nothing_half(&self) {
        let arrived = self.pair.to(self.way).join("arrived");
        assert!(!arrived.exists(), "a half file bears its final name: {}", arrived.display());
    }
}

/// The bystander must not have noticed.
#[track_caller]
fn assert_goes_on(mut other: Running, from: &Path, to: &Path) {
    assert!(!other.has_ended(), "the other session ended too early to tell");
    other.wait().assert_success();
    assert_same(&from.join("other"), &to.join("other-arrived"));
}

#[test]
fn a_killed_worker_is_named_and_others_go_on() {
    for way in WAYS {
        let victim = Victim::start(way);
        let other = victim.bystander();
        sigkill(victim.worker);
        let killed = Instant::now();
        let outcome = victim.client.wait();
        assert!(killed.elapsed() < NOTICE, "{way:?}: {:?}\n{}", killed.elapsed(), outcome.story());
        outcome.assert_code(3);
        assert!(outcome.stderr.contains("worker was killed by signal 9"), "{}", outcome.story());
        let arrived = victim.pair.to(way).join("arrived");
        assert!(!arrived.exists(), "a half file bears its final name\n{}", outcome.story());
        assert_goes_on(other, &victim.pair.from(way), &victim.pair.to(way));
    }
}

#[test]
fn a_killed_client_ends_its_worker_and_others_go_on() {
    for way in WAYS {
        let victim = Victim::start(way);
        let other = victim.bystander();
        victim.client.signal(Signal::SIGKILL);
        let ended = wait_until(NOTICE, || !is_alive(victim.worker));
        assert!(ended, "{way:?}: the worker lives on\n{}", victim.pair.server.log());
        let named = wait_until(NOTICE, || victim.pair.server.log().contains("client gone"));
        assert!(named, "the log does not say so\n{}", victim.pair.server.log());
        victim.assert_nothing_half();
        assert_goes_on(other, &victim.pair.from(way), &victim.pair.to(way));
    }
}

#[test]
fn a_killed_server_ends_clients_and_workers() {
    for way in WAYS {
        let mut victim = Victim::start(way);
        victim.pair.server.kill();
        let killed = Instant::now();
        let ended = wait_until(NOTICE, || !is_alive(victim.worker));
        assert!(ended, "{way:?}: the worker lives on\n{}", victim.pair.server.log());
        victim.assert_nothing_half();
        let Victim { pair, client, .. } = victim;
        let outcome = client.wait();
        assert!(killed.elapsed() < NOTICE, "{way:?}: {:?}\n{}", killed.elapsed(), outcome.story());
        outcome.assert_refused(3, &["lost"]);
        assert!(!pair.to(way).join("arrived").exists(), "{}", outcome.story());
    }
}

#[test]
fn a_server_that_was_killed_serves_again_at_once() {
    let mut victim = Victim::start(Way::Up);
    victim.pair.server.kill();
    victim.pair.server.restart();
    let other = victim.bystander();
    other.wait().assert_success();
    assert_same(&victim.pair.here().join("other"), &victim.pair.server.docroot().join("other-arrived"));
}

#[test]
fn an_interrupted_client_says_so_and_no_partial_file_stays_unless_it_may_be_continued() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        for way in WAYS {
            let victim = Victim::start_with(way, &["-k0"]);
            let to = victim.pair.to(way);
            assert!(!partials(&to).is_empty(), "{way:?}: no partial file while the transfer runs");
            victim.client.signal(signal);
            let asked = Instant::now();
            let outcome = victim.client.wait();
            assert!(asked.elapsed() < Duration::from_secs(5), "{:?}\n{}", asked.elapsed(), outcome.story());
            outcome.assert_refused(130, &["interrupted"]);
            assert_eq!(outcome.done()["exit_code"], 130, "{}", outcome.story());
            if way == Way::Down {
                assert!(partials(&to).is_empty(), "left: {:?}\n{}", partials(&to), outcome.story());
            }
            let removed = wait_until(NOTICE, || partials(&to).is_empty() && !is_alive(victim.worker));
            assert!(removed, "{way:?}: left: {:?}\n{}", partials(&to), outcome.story());
            assert!(!to.join("arrived").exists(), "{}", outcome.story());
        }
    }
}

#[test]
fn a_stopped_server_tells_its_clients() {
    for way in WAYS {
        let mut victim = Victim::start_with(way, &["-k0"]);
        victim.pair.server.terminate(Duration::from_secs(20));
        let Victim { pair, client, worker, .. } = victim;
        let outcome = client.wait();
        outcome.assert_refused(3, &["the server is being stopped"]);
        assert!(!is_alive(worker) && !pair.to(way).join("arrived").exists(), "{}", outcome.story());
        assert_no_partials(&pair.to(way));
    }
}
