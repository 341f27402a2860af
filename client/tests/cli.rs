//! The real `haul` binary against bad command lines, dead ports, and a real OpenSSH server.
//!
//! OpenSSH has no subsystem `haul` here, so "runs SSH but not haul" is the proof that the login worked.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A home directory, a source file, and `haul` with nothing of the real environment.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.at(".ssh")).unwrap();
        std::fs::set_permissions(place.at(".ssh"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(place.at("file"), b"content").unwrap();
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_haul")), arguments)
    }

    fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        for variable in ["SSH_AUTH_SOCK", "HAUL_PASSPHRASE", "ASPERA_SCP_PASS"] {
            command.env_remove(variable);
        }
        command
    }

    fn haul(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    fn keygen(&self, name: &str, passphrase: &str) -> PathBuf {
        let path = self.at(name);
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(&path));
        path
    }
}

/// How a run ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("haul was killed by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The exit status, and words on stderr.
    fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing: {self:?}");
        }
        // One message of one line and its remedy.
        let messages = self.stderr.lines().filter(|line| line.starts_with("haul: ")).count();
        assert!(messages <= 2 && !self.stderr.contains("panicked"), "{self:?}");
    }
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn user() -> String {
    run(Command::new("id").arg("-un")).trim().to_owned()
}

/// A real OpenSSH server on a free port of loopback.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    fn start(place: &Place, authorized: &[&Path], extra: &str) -> Self {
        for attempt in 0..5 {
            if let Some(sshd) = Self::try_start(place, authorized, extra, attempt) {
                return sshd;
            }
        }
        panic!("sshd found no free port");
    }

    fn try_start(place: &Place, authorized: &[&Path], extra: &str, attempt: u32) -> Option<Self> {
        const PROGRAM: &str = "/usr/sbin/sshd";
        assert!(Path::new(PROGRAM).exists(), "these tests need OpenSSH's server, {PROGRAM}");
        if user() == "root" {
            // Where sshd separates privileges; a bare container has not made it yet.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        let host_key = place.at("host_key");
        if !host_key.exists() {
            place.keygen("host_key", "");
        }
        let keys: String =
            authorized.iter().map(|path| std::fs::read_to_string(public(path)).unwrap()).collect();
        std::fs::write(place.at("authorized"), keys).unwrap();
        let config = place.at(&format!("sshd_config{attempt}"));
        let text = format!(
            "ListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nPermitRootLogin yes\n{extra}\n",
            host_key.display(),
            place.at("authorized").display()
        );
        std::fs::write(&config, text).unwrap();
        let port = free_port();
        let mut child = Command::new(PROGRAM)
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .args(["-p", &port.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("Server listening") {
            if log.read_line(&mut seen).unwrap() == 0 {
                let _ = child.wait();
                assert!(seen.contains("Address already in use"), "sshd did not start: {seen}");
                return None;
            }
        }
        // sshd must never block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self { child, port })
    }

    fn record(&self, place: &Place, host_key: &Path) {
        let key = std::fs::read_to_string(public(host_key)).unwrap();
        std::fs::write(place.at(".ssh/known_hosts"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn public(private: &Path) -> PathBuf {
    private.with_extension("pub")
}

fn fingerprint(key: &Path) -> String {
    run(Command::new("ssh-keygen").arg("-lf").arg(public(key))).split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn help_and_version_exit_0() {
    let place = Place::new();
    for arguments in [&["-h"][..], &["--help"]] {
        let ended = place.haul(arguments);
        ended.expect(0, &[]);
        for word in ["-P", "-l", "--policy", "Exit status", "[user@]host"] {
            assert!(ended.stdout.contains(word), "{word} is missing in {}", ended.stdout);
        }
    }
    for arguments in [&["-A"][..], &["--version"]] {
        let ended = place.haul(arguments);
        ended.expect(0, &[]);
        assert!(ended.stdout.lines().nth(1).unwrap().starts_with("haul version 0.1.0"), "{}", ended.stdout);
    }
}

#[test]
fn explain_says_what_a_line_means_and_connects_to_nothing() {
    let place = Place::new();
    std::fs::write(place.at("config"), "Host alias\n  HostName real.invalid\n  Port 2222\n  User bob\n")
        .unwrap();
    let ended =
        place.haul(&["--explain", "-F", "config", "-QTl300m", "missing", "alias:in", "--file-crypt=encrypt"]);
    ended.expect(0, &[]);
    let meaning: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    for (field, expected) in [
        ("direction", "upload"),
        ("host", "alias"),
        ("host_name", "real.invalid"),
        ("user", "bob"),
        ("destination", "in"),
    ] {
        assert_eq!(meaning[field], expected, "{field}");
    }
    assert_eq!((&meaning["ssh_port"], &meaning["target_rate_bps"]), (&2222.into(), &300_000_000.into()));
    assert_eq!(meaning["ignored"][0]["option"], "-T");
    assert!(ended.stderr.is_empty(), "{ended:?}");
    place.haul(&["--explain", "a", "b"]).expect(2, &["neither side is remote"]);
}

#[test]
fn a_link_named_ascp_has_ascp_s_port_status_and_name() {
    let place = Place::new();
    place.haul(&["--install-ascp", "."]).expect(0, &[]);
    let ascp =
        |arguments: &[&str]| Ended::of(place.command_of(&place.at("ascp"), arguments).output().unwrap());
    let meaning: serde_json::Value =
        serde_json::from_str(&ascp(&["--explain", "-F", "none", "a", "h:"]).stdout).unwrap();
    assert_eq!((&meaning["ssh_port"], &meaning["manner"]), (&22.into(), &"ascp".into()));
    let ended = ascp(&["--no-such-option", "a", "h:"]);
    ended.expect(1, &["ascp: ", "--no-such-option", "ascp --help"]);
    let ended = ascp(&["-DDA"]);
    ended.expect(0, &[]);
    assert_eq!(ended.stdout.lines().nth(1).unwrap().split(' ').nth(1), Some("version"), "{ended:?}");
    ascp(&["-h"]).expect(0, &[]);
    ascp(&["missing", "h:"])
        .expect(1, &["ascp: No such file or directory, exiting.", "no such file or folder: missing"]);
}

#[test]
fn usage_errors_exit_2_and_show_the_way_out() {
    let place = Place::new();
    for (n, (arguments, words)) in [
        (&[][..], &["no source"][..]),
        (&["file", "other"], &["neither side is remote", "haul file host:other"]),
        (&["a:x", "b:y"], &["both sides are remote"]),
        (&["-p", "33001", "file", "h:"], &["did you mean -P 33001?"]),
        (&["--no-such-option", "file", "h:"], &["--no-such-option"]),
        (&["-l", "fast", "file", "h:"], &["`fast` is not a rate"]),
        (&["--delete-before-transfer", "list", "h:"], &["--delete-before-transfer", "leave it out"]),
        (&["-F", "none.conf", "file", "h:"], &["none.conf: no such file"]),
    ]
    .into_iter()
    .enumerate()
    {
        let ended = place.haul(arguments);
        ended.expect(2, words);
        assert!(ended.stdout.is_empty() && ended.stderr.lines().count() <= 2, "row {n}: {ended:?}");
    }
}

#[test]
fn local_paths_are_checked_before_anything_is_dialled() {
    let place = Place::new();
    place.haul(&["missing", "h.invalid:"]).expect(5, &["haul: no such file or folder: missing"]);
    place.haul(&["h.invalid:x", "no/such/dir"]).expect(5, &["no such folder", "-d"]);
    place.haul(&["h.invalid:x", "h.invalid:y", "file"]).expect(5, &["not a folder"]);
}

#[test]
fn unknown_hosts_and_dead_ports_exit_3() {
    let place = Place::new();
    place.haul(&["file", "no-such-host.invalid:"]).expect(3, &["host not found: no-such-host.invalid"]);
    let port = free_port().to_string();
    let ended = place.haul(&["-P", &port, "file", "127.0.0.1:"]);
    ended.expect(3, &["connection refused", &format!("is hauld running on TCP port {port}?")]);
}

#[test]
fn json_ends_with_a_done_line_even_without_a_connection() {
    let place = Place::new();
    let port = free_port().to_string();
    for (arguments, code) in [
        (&["--json", "-P", &port, "file", "127.0.0.1:"][..], 3),
        (&["--json", "--wrong"], 2),
        (&["--json", "no", "h:"], 5),
    ] {
        let ended = place.haul(arguments);
        ended.expect(code, &[]);
        let last: serde_json::Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
        assert_eq!((last["event"].as_str(), last["ok"].as_bool()), (Some("done"), Some(false)), "{last}");
        assert_eq!(last["exit_code"].as_i64(), Some(i64::from(code)), "{last}");
        assert!(!last["error"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_port_that_is_not_ssh_is_named() {
    let place = Place::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    place.haul(&["-P", &port, "file", "127.0.0.1:"]).expect(3, &["SSH handshake failed", "-P"]);
    server.join().unwrap();
}

#[test]
fn a_signal_while_connecting_exits_130() {
    let place = Place::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut command = place.command(&["-P", &port, "file", "127.0.0.1:"]);
    let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Connected, so its signal handlers are in place.
    let _stream = listener.accept().unwrap();
    run(Command::new("kill").args(["-INT", &child.id().to_string()]));
    Ended::of(child.wait_with_output().unwrap()).expect(130, &["interrupted"]);
}

#[test]
fn a_new_host_is_learnt_and_a_login_with_a_key_works() {
    let place = Place::new();
    let key = place.keygen("key", "");
    let sshd = Sshd::start(&place, &[&key], "");
    let port = sshd.port.to_string();
    let arguments = ["-i", "key", "-P", &port, "file", "127.0.0.1:"];
    let ended = place.haul(&arguments);
    ended.expect(3, &["runs SSH but not haul", "new host key", &fingerprint(&place.at("host_key"))]);
    let learnt = std::fs::read_to_string(place.at(".ssh/known_hosts")).unwrap();
    assert!(
        learnt.starts_with(&format!("[127.0.0.1]:{port} ssh-ed25519 ")) && learnt.lines().count() == 1,
        "{learnt}"
    );
    let again = place.haul(&arguments);
    again.expect(3, &["runs SSH but not haul", "install hauld's subsystem"]);
    assert!(!again.stderr.contains("new host key"), "{again:?}");
    // OpenSSH's own client agrees with what was written.
    run(Command::new("ssh-keygen")
        .args(["-F", &format!("[127.0.0.1]:{port}"), "-f"])
        .arg(place.at(".ssh/known_hosts")));
}

#[test]
fn an_unknown_host_is_refused_in_strict_mode() {
    let place = Place::new();
    let sshd = Sshd::start(&place, &[], "");
    let port = sshd.port.to_string();
    let ended = place.haul(&["--strict-host-key", "-P", &port, "file", "127.0.0.1:"]);
    ended.expect(4, &["is unknown", &fingerprint(&place.at("host_key"))]);
    assert!(!place.at(".ssh/known_hosts").exists());
    std::fs::write(place.at("config"), "StrictHostKeyChecking yes\n").unwrap();
    place.haul(&["-F", "config", "-P", &port, "file", "127.0.0.1:"]).expect(4, &["is unknown"]);
}

#[test]
fn a_changed_host_key_is_refused_with_both_fingerprints() {
    let place = Place::new();
    let other = place.keygen("other", "");
    let sshd = Sshd::start(&place, &[], "");
    sshd.record(&place, &other);
    let ended = place.haul(&["-P", &sshd.port.to_string(), "file", "127.0.0.1:"]);
    let remedy = format!("ssh-keygen -R '[127.0.0.1]:{}' -f", sshd.port);
    let (old, new) = (fingerprint(&other), fingerprint(&place.at("host_key")));
    ended.expect(4, &["has changed", &old, &new, "known_hosts:1", &remedy]);
    let key = std::fs::read_to_string(public(&place.at("host_key"))).unwrap();
    std::fs::write(place.at("kh"), format!("@revoked * {key}")).unwrap();
    let revoked = place.haul(&["--known-hosts", "kh", "-P", &sshd.port.to_string(), "file", "127.0.0.1:"]);
    revoked.expect(4, &["is revoked", "kh:1"]);
}

#[test]
fn a_failed_login_lists_the_keys_tried() {
    let place = Place::new();
    let (right, wrong) = (place.keygen("right", ""), place.keygen("wrong", ""));
    let sshd = Sshd::start(&place, &[&right], "");
    let port = sshd.port.to_string();
    let ended = place.haul(&["-i", "wrong", "-P", &port, "file", "127.0.0.1:"]);
    ended.expect(4, &["authentication failed", "permission denied", &fingerprint(&wrong), "authorized_keys"]);
    place.haul(&["-P", &port, "file", "127.0.0.1:"]).expect(4, &["no key to try", "-i"]);
    place
        .haul(&["-i", "none", "-P", &port, "file", "127.0.0.1:"])
        .expect(4, &["cannot use the key none: no such file"]);
    place.haul(&["-i", "wrong", "-i", "right", "-P", &port, "file", "127.0.0.1:"]).expect(3, &["not haul"]);
}

#[test]
fn encrypted_keys_need_their_passphrase_or_the_agent() {
    let place = Place::new();
    let key = place.keygen("key", "secret");
    let sshd = Sshd::start(&place, &[&key], "");
    let port = sshd.port.to_string();
    let arguments = ["-i", "key", "-P", &port, "file", "127.0.0.1:"];
    place.haul(&arguments).expect(4, &["key: it is encrypted", "ssh-add key", "HAUL_PASSPHRASE"]);
    for variable in ["HAUL_PASSPHRASE", "ASPERA_SCP_PASS"] {
        let output = place.command(&arguments).env(variable, "secret").output().unwrap();
        Ended::of(output).expect(3, &["runs SSH but not haul"]);
    }
    let wrong = place.command(&arguments).env("HAUL_PASSPHRASE", "wrong").output().unwrap();
    Ended::of(wrong).expect(4, &["does not open it"]);
}

/// An agent of this test's own.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(place: &Place) -> Self {
        let socket = place.at("agent");
        let child =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "ssh-agent does not listen");
            std::thread::yield_now();
        }
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        run(Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_agent_s_keys_are_used() {
    let place = Place::new();
    let key = place.at("rsa");
    run(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]).arg(&key));
    let agent = Agent::start(&place);
    agent.add(&place.keygen("other", ""));
    agent.add(&key);
    let sshd = Sshd::start(&place, &[&key], "");
    let port = sshd.port.to_string();
    let with_agent = |arguments: &[&str]| {
        Ended::of(place.command(arguments).env("SSH_AUTH_SOCK", &agent.socket).output().unwrap())
    };
    with_agent(&["-P", &port, "file", "127.0.0.1:"]).expect(3, &["runs SSH but not haul"]);
    // A public key on the command line stands for the agent's private half.
    std::fs::remove_file(&key).unwrap();
    with_agent(&["-i", "rsa.pub", "-P", &port, "file", "127.0.0.1:"]).expect(3, &["runs SSH but not haul"]);
    std::fs::write(place.at("config"), "IdentitiesOnly yes\nIdentityFile ~/other\n").unwrap();
    with_agent(&["-F", "config", "-P", &port, "file", "127.0.0.1:"]).expect(4, &["authentication failed"]);
}

#[test]
fn ssh_config_names_host_user_port_and_key() {
    let place = Place::new();
    let key = place.keygen("key", "");
    let sshd = Sshd::start(&place, &[&key], "");
    let text = format!(
        "Host far\n HostName 127.0.0.1\n Port {}\n User {}\n IdentityFile ~/key\n UserKnownHostsFile ~/kh\n",
        sshd.port,
        user()
    );
    std::fs::write(place.at(".ssh/config"), text).unwrap();
    place.haul(&["file", "far:"]).expect(3, &["the server at far", "runs SSH but not haul"]);
    assert!(place.at("kh").exists() && !place.at(".ssh/known_hosts").exists());
    let log = place.haul(&["-vT", "file", "far:"]);
    log.expect(3, &["the data stays encrypted", "logged in"]);
    place.haul(&["-v", "-L", ".", "file", "far:"]).expect(3, &["not haul"]);
    assert!(std::fs::read_to_string(place.at("haul.log")).unwrap().contains("logged in"));
}

#[test]
fn banners_and_disconnects_of_the_server_are_shown_without_their_controls() {
    let place = Place::new();
    let keys: Vec<PathBuf> = (0..3).map(|n| place.keygen(&format!("key{n}"), "")).collect();
    std::fs::write(place.at("banner"), "be\x1b[31mware\n").unwrap();
    let extra = format!("Banner {}\nMaxAuthTries 2", place.at("banner").display());
    let sshd = Sshd::start(&place, &[], &extra);
    sshd.record(&place, &place.at("host_key"));
    let mut arguments: Vec<&str> = keys.iter().flat_map(|key| ["-i", key.to_str().unwrap()]).collect();
    let port = sshd.port.to_string();
    arguments.extend(["-P", &port, "file", "127.0.0.1:"]);
    let ended = place.haul(&arguments);
    ended.expect(4, &["be\\u{1b}[31mware", "the server said", "Too many authentication failures"]);
}

/// Passes bytes on and counts how often the client had to wait for the server before it spoke again.
fn relay(target: u16) -> (u16, std::thread::JoinHandle<usize>) {
    use std::io::Read;
    use std::sync::{Arc, Mutex};
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let turns = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let pass = |mut from: TcpStream, mut to: TcpStream, side: bool| {
            let order = Arc::clone(&order);
            std::thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(count @ 1..) = from.read(&mut buffer) {
                    // The delay makes a round trip long against the work on both ends.
                    std::thread::sleep(Duration::from_millis(20));
                    let mut order = order.lock().unwrap();
                    if order.last() != Some(&side) {
                        order.push(side);
                    }
                    drop(order);
                    if to.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(std::net::Shutdown::Both);
            })
        };
        let up = pass(client.try_clone().unwrap(), server.try_clone().unwrap(), true);
        let down = pass(server, client, false);
        up.join().unwrap();
        down.join().unwrap();
        let order = order.lock().unwrap();
        order.iter().filter(|&&side| side).count()
    });
    (port, turns)
}

#[test]
fn setting_up_takes_no_more_turns_than_ssh_needs() {
    let place = Place::new();
    let key = place.keygen("key", "");
    let sshd = Sshd::start(&place, &[&key], "");
    let (port, turns) = relay(sshd.port);
    place.haul(&["-i", "key", "-P", &port.to_string(), "file", "127.0.0.1:"]).expect(3, &["not haul"]);
    let turns = turns.join().unwrap();
    println!("client turns from connect to goodbye: {turns}");
    // Version; key exchange (2); service; probe; signature; channel; subsystem; goodbye.
    assert!(turns <= 9, "{turns} turns");
}

#[test]
fn statistics_never_replace_a_source_and_pictures_need_statistics() {
    let place = Place::new();
    let port = free_port().to_string();
    place
        .haul(&["--stats", "file", "-P", &port, "file", "127.0.0.1:"])
        .expect(5, &["no statistics of haul: file", "name a new file after --stats"]);
    assert_eq!(std::fs::read(place.at("file")).unwrap(), b"content");
    place.haul(&["--stats", "-", "file", "h:"]).expect(2, &["--json writes the same"]);
    place.haul(&["--plot", "file"]).expect(2, &["file:", "haul --stats"]);
    place.haul(&["--plot", "no.csv"]).expect(5, &["no such file or folder: no.csv"]);
    place.haul(&["--plot", "file", "h:"]).expect(2, &["--plot"]);
}
