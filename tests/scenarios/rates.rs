//! Rates that change while data moves, and caps that sessions share: what is asked for and what is allowed is what the
//! path carries.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use haul_tests::harness::{Client, Pair, Running, ServerOptions, USER, WAYS, Way, wait_until};
use haul_tests::require::{WAN, require};
use haul_tests::tree::{assert_same, make_file};
use haul_tests::wan::{Wan, WanConfig, Way as Direction};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::kill::bytes_moved;

const MIB: u64 = 1 << 20;
/// Long enough that the blocks in which progress comes do not matter.
const MEASURED: Duration = Duration::from_millis(2500);
/// From a change of who is there, or of what is wanted, until the rates must have followed.
const SETTLED: Duration = Duration::from_secs(1);
/// A new session counts as wanting its share for so long, whatever it uses.
const STARTED: Duration = Duration::from_secs(4);
static TURN: Mutex<()> = Mutex::new(());

/// Tests that measure rates take turns.
fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path with room to spare, and a server at its end B. The path is dropped last.
fn start(options: impl FnOnce(&mut ServerOptions)) -> (Wan, Pair) {
    let config =
        WanConfig { rate: Some(400_000_000), rtt: Duration::from_millis(40), ..WanConfig::default() };
    let wan = Wan::start(config).expect("the emulator starts where root and tun are");
    let mut server = ServerOptions::at_b(&wan);
    options(&mut server);
    let pair = Pair::start(server);
    (wan, pair)
}

/// A large copy of `name`, in full swing.
fn moving(wan: &Wan, client: Client) -> Running {
    let mut client = client.in_namespace(wan.a()).spawn();
    client.wait_for("progress", |client| bytes_moved(client) > 0);
    client
}

fn copy(pair: &Pair, way: Way, name: &str, size: u64) -> Client {
    make_file(&pair.from(way).join(name), size, 1);
    pair.copy(way, &[name], &format!("{name}-arrived"))
}

/// The client as another user of the same server.
fn as_user(pair: &Pair, way: Way, name: &str, user: &str) -> Client {
    make_file(&pair.from(way).join(name), 400 * MIB, 1);
    let here = |name: &str| pair.here().join(name).display().to_string();
    let there = |name: &str| pair.server.destination(name).replacen(USER, user, 1);
    let arrived = format!("{name}-arrived");
    let (from, to) = match way {
        Way::Up => (here(name), there(&arrived)),
        Way::Down => (there(name), here(&arrived)),
    };
    pair.server.client().arg("--json").args([from, to])
}

/// What moves, Mbit/s: IP bytes of the path from A to B and back, and content of each client.
#[derive(Debug)]
struct Rates {
    up: f64,
    down: f64,
    clients: Vec<f64>,
}

fn measure(wan: &Wan, clients: &[&Running]) -> Rates {
    let look = || {
        let stats = wan.stats();
        let moved: Vec<u64> = clients.iter().map(|client| bytes_moved(client)).collect();
        (Instant::now(), stats.a_to_b.bytes_in, stats.b_to_a.bytes_in, moved)
    };
    let before = look();
    thread::sleep(MEASURED);
    let after = look();
    let seconds = after.0.duration_since(before.0).as_secs_f64();
    let mbit = |before: u64, after: u64| (after - before) as f64 * 8e-6 / seconds;
    let clients = before.3.iter().zip(&after.3).map(|(before, after)| mbit(*before, *after)).collect();
    let rates = Rates { up: mbit(before.1, after.1), down: mbit(before.2, after.2), clients };
    println!("{rates:.1?}");
    rates
}

#[track_caller]
fn assert_near(what: &str, got: f64, wanted: f64, tolerance: f64, rates: &Rates) {
    assert!((got / wanted - 1.0).abs() <= tolerance, "{what}: {got:.1} Mbit/s, {wanted} wanted: {rates:?}");
}

#[test]
fn lines_on_stdin_change_the_rate_of_a_running_transfer() {
    if !require("rate changed by JSON", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(|_| {});
    for way in WAYS {
        let carried = |rates: &Rates| if way == Way::Up { rates.up } else { rates.down };
        let client = copy(&pair, way, "file", 64 * MIB).args(["-l", "20m"]).listening();
        let mut client = moving(&wan, client);
        let check = |client: &Running, wanted| {
            thread::sleep(SETTLED);
            let rates = measure(&wan, &[client]);
            assert_near(&format!("{way:?}"), carried(&rates), wanted, 0.15, &rates);
        };
        check(&client, 20.0);
        for (line, target, wanted) in [
            (r#"{"set_rate":"60m","set_policy":"fixed"}"#, 60_000_000, 60.0),
            (r#"{"set_rate":"10m"}"#, 10_000_000, 10.0),
            (r#"{"set_policy":"low","set_rate":"40m","set_min_rate":"5m"}"#, 40_000_000, 40.0),
        ] {
            client.say(line);
            client.wait_for("the answer", |client| {
                client
                    .events()
                    .iter()
                    .any(|event| event["event"] == "rate" && event["target_rate_bps"] == target)
            });
            check(&client, wanted);
        }
        for line in ["noise", r#"{"set_rate":"fast"}"#, r#"{"set_min_rate":"1g"}"#] {
            client.say(line);
        }
        let errors =
            |client: &Running| client.events().iter().filter(|event| event["event"] == "error").count();
        client.wait_for("three errors", |client| errors(client) == 3);
        client.say(r#"{"set_rate":null}"#);
        let outcome = client.wait();
        outcome.assert_success();
        let last = outcome.events_with("event", "rate").last().unwrap();
        assert!(last["target_rate_bps"].is_null() && last["policy"] == "low", "{last}");
        assert_same(&pair.from(way).join("file"), &pair.to(way).join("file-arrived"));
    }
}

/// A terminal of its own for a client, and all it has shown so far.
struct Screen {
    master: File,
    shown: Arc<Mutex<String>>,
    child: Child,
}

impl Screen {
    fn start(client: &Client) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let haul = client.command();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        // A session of its own, with the terminal in control of it, as a shell's command has.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(haul.get_program()).args(haul.get_args());
        command.envs(haul.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = File::from(pty.master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut from, into) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { master, shown, child }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&self, words: &str) {
        let seen = wait_until(Duration::from_secs(20), || self.shown.lock().unwrap().contains(words));
        assert!(seen, "{words:?} is not shown: {}", self.shown.lock().unwrap());
    }

    fn takes_lines(&self) -> bool {
        let flags = tcgetattr(&self.master).unwrap().local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_on_a_terminal_change_the_rate_and_leave_the_terminal_as_it_was() {
    if !require("keys on a terminal", &["setsid"]) {
        return;
    }
    let pair = Pair::start(ServerOptions::default());
    make_file(&pair.here().join("file"), 64 * MIB, 1);
    let client = pair.server.client().args(["-l", "20m"]).arg(pair.here().join("file"));
    let mut screen = Screen::start(&client.arg(pair.server.destination("arrived")));
    screen.expect("target 20.0 Mbit/s (? for keys)");
    assert!(!screen.takes_lines(), "single keys come");
    screen.press("-");
    screen.expect("target 18.0 Mbit/s");
    screen.press("++q");
    screen.expect("target 21.8 Mbit/s");
    screen.press("?");
    screen.expect("u lifts it");
    screen.press("ux");
    screen.expect("policy fixed needs a target rate");
    // Ctrl-C.
    screen.press("\u{3}");
    screen.expect("interrupted");
    assert_eq!(screen.child.wait().unwrap().code(), Some(130));
    assert!(screen.takes_lines(), "as it was before");
}

#[test]
fn sessions_of_a_user_share_the_user_s_cap_and_who_stays_gets_the_rest() {
    if !require("per-user cap", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(|server| server.max_rate = Some("80m".to_owned()));
    for way in WAYS {
        let carried = |rates: &Rates| if way == Way::Up { rates.up } else { rates.down };
        let one = moving(&wan, copy(&pair, way, "one", 400 * MIB));
        let two = moving(&wan, copy(&pair, way, "two", 400 * MIB));
        thread::sleep(SETTLED);
        let rates = measure(&wan, &[&one, &two]);
        assert_near("together", carried(&rates), 80.0, 0.1, &rates);
        for share in &rates.clients {
            assert_near("each", *share, 38.0, 0.25, &rates);
        }
        // Later as well, when what they can use is no longer presumed but seen.
        thread::sleep(STARTED);
        let rates = measure(&wan, &[&one, &two]);
        assert_near("together", carried(&rates), 80.0, 0.1, &rates);
        let _ = one.kill();
        thread::sleep(SETTLED);
        let rates = measure(&wan, &[&two]);
        assert_near("alone", carried(&rates), 80.0, 0.1, &rates);
        let _ = two.kill();
    }
}

#[test]
fn policies_weigh_the_shares_of_a_cap() {
    if !require("weighted shares", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(|server| server.max_rate = Some("80m".to_owned()));
    let high = moving(&wan, copy(&pair, Way::Up, "high", 400 * MIB).args(["--policy", "high"]).listening());
    let fair = moving(&wan, copy(&pair, Way::Up, "fair", 400 * MIB));
    thread::sleep(SETTLED);
    let rates = measure(&wan, &[&high, &fair]);
    assert_near("together", rates.up, 80.0, 0.1, &rates);
    let ratio = rates.clients[0] / rates.clients[1];
    assert!((1.5..2.8).contains(&ratio), "high to fair {ratio:.2}: {rates:?}");
    let mut high = high;
    high.say(r#"{"set_policy":"fair"}"#);
    thread::sleep(SETTLED);
    let rates = measure(&wan, &[&high, &fair]);
    let ratio = rates.clients[0] / rates.clients[1];
    assert!((0.8..1.25).contains(&ratio), "fair to fair {ratio:.2}: {rates:?}");
}

#[test]
fn users_and_directions_share_the_server_s_cap() {
    if !require("per-server cap", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(|server| {
        server.more_users = vec!["bob".to_owned()];
        server.tables = "[limits]\nmax_rate = \"80m\"\n".to_owned();
    });
    let up = moving(&wan, copy(&pair, Way::Up, "up", 400 * MIB));
    let down = moving(&wan, as_user(&pair, Way::Down, "down", "bob"));
    thread::sleep(SETTLED);
    let rates = measure(&wan, &[&up, &down]);
    // Reports go the other way beside each.
    assert_near("together", rates.up + rates.down, 80.0, 0.1, &rates);
    for share in &rates.clients {
        assert_near("each", *share, 38.0, 0.25, &rates);
    }
    let _ = up.kill();
    thread::sleep(SETTLED);
    let rates = measure(&wan, &[&down]);
    assert_near("alone", rates.down, 80.0, 0.1, &rates);
}

#[test]
fn what_one_session_cannot_use_another_gets() {
    if !require("redistribution", WAN) {
        return;
    }
    let _turn = turn();
    let (wan, pair) = start(|server| server.max_rate = Some("80m".to_owned()));
    let mut slow = moving(&wan, copy(&pair, Way::Down, "slow", 400 * MIB).args(["-l", "10m"]).listening());
    let fast = moving(&wan, copy(&pair, Way::Down, "fast", 400 * MIB));
    thread::sleep(SETTLED);
    let rates = measure(&wan, &[&slow, &fast]);
    assert_near("the slow one", rates.clients[0], 9.5, 0.25, &rates);
    assert_near("together", rates.down, 80.0, 0.1, &rates);
    slow.say(r#"{"set_rate":null}"#);
    thread::sleep(SETTLED);
    let rates = measure(&wan, &[&slow, &fast]);
    assert_near("the slow one", rates.clients[0], 38.0, 0.25, &rates);
    assert_near("together", rates.down, 80.0, 0.1, &rates);
}

#[test]
fn a_rate_above_a_cap_is_told_with_the_cap_and_the_time_of_day() {
    let (caps, user) = ("all transfers of this user together to 80 Mbit/s", "max_rate = \"80m\"\n");
    let always = "[[schedule]]\nuser = \"alice\"\nmax_rate = \"30m\"\n";
    let never = "[[schedule]]\nfrom = \"00:00\"\nto = \"24:00\"\nmax_rate = \"300m\"\n";
    let rows = [
        (user, "", caps),
        (user, always, "of this user together to 30 Mbit/s at this time of day"),
        (user, never, caps),
        ("max_session_rate = \"50m\"\n", "", "each transfer of this user to 50 Mbit/s"),
        ("", "[limits]\nmax_rate_in = \"70m\"\nmax_rate_out = \"70m\"\n", "loads together to 70 Mbit/s"),
    ];
    for (row, (user, tables, words)) in rows.into_iter().enumerate() {
        let options = ServerOptions {
            user_lines: user.to_owned(),
            tables: tables.to_owned(),
            ..ServerOptions::default()
        };
        let pair = Pair::start(options);
        for way in WAYS {
            make_file(&pair.from(way).join("file"), MIB, 1);
            let client = pair.copy(way, &["file"], "arrived");
            let outcome = client.clone().args(["-l", "200m"]).run();
            outcome.assert_success();
            let said = |outcome: &haul_tests::harness::Outcome| {
                outcome
                    .events_with("event", "notice")
                    .any(|notice| notice["message"].as_str().unwrap().contains(words))
            };
            assert!(said(&outcome), "row {row}: {words}\n{}", outcome.story());
            let outcome = client.args(["-l", "20m"]).run();
            outcome.assert_success();
            assert!(!said(&outcome), "row {row}: below the cap nothing is said\n{}", outcome.story());
        }
    }
}

#[test]
fn a_schedule_goes_by_the_local_time_of_the_server() {
    let utc = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60;
    let time = |minute: u64| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    // Around the present time of a zone twelve hours ahead.
    let (from, to) = (time(utc + 11 * 60), time(utc + 13 * 60));
    let tables = format!("[[schedule]]\nfrom = \"{from}\"\nto = \"{to}\"\nmax_rate = \"30m\"\n");
    for (zone, limited) in [("EAST-12", true), ("HERE0", false)] {
        let environment = vec![("TZ".to_owned(), zone.to_owned())];
        let pair =
            Pair::start(ServerOptions { tables: tables.clone(), environment, ..ServerOptions::default() });
        make_file(&pair.from(Way::Up).join("file"), MIB, 1);
        let outcome = pair.copy(Way::Up, &["file"], "arrived").args(["-l", "200m"]).run();
        outcome.assert_success();
        assert_eq!(outcome.stdout.contains("at this time of day"), limited, "{zone}: {}", outcome.story());
    }
}

/// UDP datagrams to or from the server's ports that the kernel of the namespace has sent: with the mark, and in all.
fn count_marked(wan: &Wan, way: Direction, mark: &str) {
    let rules = format!(
        "add table inet t; flush table inet t; add chain inet t o {{ type filter hook output priority 0; }}; \
         add rule inet t o udp dport 1-65535 ip dscp {mark} counter; add rule inet t o udp dport 1-65535 counter"
    );
    let mut command = if way == Direction::AToB { wan.command_in_a("nft") } else { wan.command_in_b("nft") };
    assert!(command.arg(rules).status().unwrap().success());
}

fn marked(wan: &Wan, way: Direction) -> (u64, u64) {
    let mut command = if way == Direction::AToB { wan.command_in_a("nft") } else { wan.command_in_b("nft") };
    let output = command.args(["list", "table", "inet", "t"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let counts: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split("counter packets ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(counts.len(), 2, "{text}");
    (counts[0], counts[1])
}

#[test]
fn datagrams_carry_the_dscp_of_the_client_or_the_server_s_own() {
    if !require("DSCP", &[WAN, &["nft"]].concat()) {
        return;
    }
    // The server's setting, the client's option, the marks from A to B and back.
    let rows: [(&str, &[&str], &str, &str); 4] = [
        ("", &["--dscp", "EF"], "ef", "ef"),
        ("", &[], "cs0", "cs0"),
        ("dscp = \"CS1\"", &["--dscp", "34"], "af41", "cs1"),
        ("dscp = 0", &["--dscp", "ef"], "ef", "cs0"),
    ];
    for (setting, options, there, back) in rows {
        let (wan, pair) = start(|server| server.udp_lines = setting.to_owned());
        count_marked(&wan, Direction::AToB, there);
        count_marked(&wan, Direction::BToA, back);
        for way in WAYS {
            let client = copy(&pair, way, &format!("{way:?}"), 4 * MIB).args(options).in_namespace(wan.a());
            let outcome = client.run();
            outcome.assert_success();
            let told = outcome
                .events_with("event", "notice")
                .any(|notice| notice["message"].as_str().unwrap().contains("DSCP"));
            assert_eq!(told, !setting.is_empty(), "{}", outcome.story());
        }
        for direction in [Direction::AToB, Direction::BToA] {
            let (with, all) = marked(&wan, direction);
            // Of a batch the kernel counts one.
            assert!(with == all && all > 100, "{setting} {options:?} {direction:?}: {with} of {all} marked");
        }
    }
}
