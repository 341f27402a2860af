//! The binary as an operator meets it: what it prints and the exit codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

fn hauld(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hauld")).args(arguments).env_remove("HAUL_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A configuration that fits whoever runs the tests.
fn good(folder: &Path) -> String {
    let keys = folder.join("keys");
    fs::write(&keys, "").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    let account = if Uid::effective().is_root() { "account = \"nobody\"" } else { "" };
    format!(
        "state_dir = \"{0}/state\"\n[ssh]\nlisten = [\"127.0.0.1:0\"]\n[[user]]\nname = \"alice\"\ndocroot = \"{0}\"\n\
         authorized_keys = \"{0}/keys\"\npermissions = [\"read\", \"list\"]\nmax_rate = \"2500m\"\n{account}\n",
        folder.display()
    )
}

fn write(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("hauld.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_good_configuration_is_ok() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(&folder, &good(folder.path()));
    let output = hauld(&["check-config", "--config", &config]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("ok\n".to_owned(), String::new()));
    assert!(output.status.success());
}

#[test]
fn each_mistake_is_one_line_and_the_exit_code_is_three() {
    let folder = tempfile::tempdir().unwrap();
    let good = good(folder.path());
    let cases = [
        ("docroot", "docrot", "unknown key `docrot` in [[user]], line 6: did you mean `docroot`?"),
        ("\"2500m\"", "2500", "`max_rate` in [[user]], line 9: expected a rate with its unit such as"),
        ("\"read\"", "\"reed\"", "`permissions` in [[user]], line 8: expected a list of"),
        ("127.0.0.1:0", "127.0.0.1", "`listen` in [ssh], line 3: expected a list of addresses with port"),
        ("[[user]]", "[user]", "`user`, line 4: expected [[user]], found [user]"),
        ("[ssh]", "[ssh", "no valid TOML, line 2:"),
        ("/keys\"", "/missing\"", "user `alice` cannot log in with a key, line 7:"),
    ];
    for (n, (from, to, expected)) in cases.into_iter().enumerate() {
        let config = write(&folder, &good.replace(from, to));
        let output = hauld(&["check-config", "--config", &config]);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "row {n}: {err}");
        assert!(err.lines().any(|line| line.contains(expected)), "row {n}: {err}");
        assert!(err.lines().all(|line| line.starts_with(&format!("hauld: {config}: "))), "row {n}: {err}");
        assert!(output.stdout.is_empty(), "row {n}");
    }
}

#[test]
fn all_problems_of_the_system_come_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let user = "[[user]]\nname = \"a\"\ndocroot = \"/nonexistent\"\nauthorized_keys = \"/nonexistent\"\npermissions = []\naccount = \"root\"\n";
    let config = write(&folder, &user.repeat(2));
    let err = text(&hauld(&["check-config", "--config", &config]).stderr);
    for expected in ["docroot /nonexistent cannot be opened", "`root` has uid 0", "duplicate user `a`"] {
        assert!(err.contains(expected), "{err}");
    }
    assert!(err.lines().count() >= 5, "{err}");
}

#[test]
fn the_printed_configuration_names_origins_and_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(&folder, &good(folder.path()));
    let printed = text(&hauld(&["print-config", "--config", &config]).stdout);
    let line = |key: &str| printed.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
    assert!(line("ports").contains("\"33001-33100\"") && line("ports").ends_with("# default"), "{printed}");
    assert!(line("max_rate").contains("\"2500m\"") && line("max_rate").ends_with("# line 9"), "{printed}");
    let again = write(&folder, &printed);
    assert_eq!(text(&hauld(&["check-config", "--config", &again]).stdout), "ok\n");
    let limits = "[limits]\nmax_rate_out = \"800k\"\n[[schedule]]\ndays = \"Mon-Fri\"\nto = \"8:30\"\nmax_rate = \"200m\"\n";
    let config = write(&folder, &format!("{}{limits}[udp]\ndscp = 8\n", good(folder.path())));
    let printed = text(&hauld(&["print-config", "--config", &config]).stdout);
    let has = |value: &str, origin: &str| {
        printed.lines().any(|line| line.starts_with(value) && line.ends_with(&format!("# {origin}")))
    };
    for (value, origin) in [
        ("max_rate_out = \"800k\"", "line 12"),
        ("days = \"mon-fri\"", "line 14"),
        ("from = \"00:00\"", "default"),
        ("to = \"08:30\"", "line 15"),
        ("max_rate = \"200m\"", "line 16"),
        ("dscp = \"CS1\"", "line 18"),
    ] {
        assert!(has(value, origin), "{value}: {printed}");
    }
    let again = write(&folder, &printed);
    assert_eq!(text(&hauld(&["check-config", "--config", &again]).stdout), "ok\n");
}

#[test]
fn root_is_told_what_to_write_and_a_user_is_served() {
    let output = hauld(&["print-config"]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    if Uid::effective().is_root() {
        assert_eq!(output.status.code(), Some(3));
        for expected in ["started as root without a configuration", "[[user]]", "docroot = ", "[ssh]"] {
            assert!(err.contains(expected), "{err}");
        }
        assert_eq!(hauld(&["serve"]).status.code(), Some(3));
        assert_eq!(hauld(&["session"]).status.code(), Some(6), "root is no transfer user");
    } else {
        assert!(out.contains(".ssh/authorized_keys") && out.contains("single-user mode"), "{out}{err}");
    }
}

#[test]
fn failures_to_start_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let good = good(folder.path());
    assert_eq!(hauld(&["serve", "--config", "/nonexistent.toml"]).status.code(), Some(3));
    assert_eq!(hauld(&["no-such-command"]).status.code(), Some(2));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = write(&folder, &good.replace("127.0.0.1:0", &address));
    let output = hauld(&["serve", "--config", &config]);
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains(&format!("cannot listen on {address}")),
        "{}",
        text(&output.stderr)
    );
    fs::set_permissions(folder.path().join("state/host_ed25519"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = hauld(&["serve", "--config", &config]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("chmod 600"), "{}", text(&output.stderr));
}

#[test]
fn a_worker_with_a_wrong_policy_ends() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hauld"))
        .args(["session", "--policy-on-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[0xff; 64]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(output.stdout.is_empty());
}

/// A server that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_server_says_where_it_listens_opens_no_udp_socket_and_stops_at_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = write(&folder, &format!("{}[udp]\nports = \"{port}\"\n", good(folder.path())));
    let mut server = Running(
        Command::new(env!("CARGO_BIN_EXE_hauld"))
            .args(["serve", "--config", &config])
            .env_remove("HAUL_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let start: Vec<String> = log.by_ref().take_while(|line| !line.contains("listening")).collect();
    assert!(start.iter().any(|line| line.contains("host_key=\"SHA256:")), "{start:#?}");
    let udp = fs::read_to_string("/proc/net/udp").unwrap() + &fs::read_to_string("/proc/net/udp6").unwrap();
    assert!(!udp.contains(&format!(":{port:04X} ")), "a UDP socket without a session");
    kill(Pid::from_raw(server.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(log.any(|line| line.contains("stopped")));
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn a_server_whose_log_is_closed_goes_on_and_stops_at_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(&folder, &good(folder.path()));
    let mut server = Running(
        Command::new(env!("CARGO_BIN_EXE_hauld"))
            .args(["serve", "--config", &config])
            .env_remove("HAUL_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = log.find(|line| line.contains("listening")).unwrap();
    drop(log);
    let address = line.rsplit_once("address=").unwrap().1;
    let mut greeting = [0; 8];
    TcpStream::connect(address).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-2.0-");
    kill(Pid::from_raw(server.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
