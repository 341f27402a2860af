//! Who gets in at `hauld`, with the stock OpenSSH client on the other side: certificates, passwords, options of keys.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use haul_tests::harness::{Server, ServerOptions, USER, make_key, program, scratch};
use haul_tests::require::require;

const NEEDS: [&str; 2] = ["ssh", "ssh-keygen"];

/// What `hauld` says to everybody who is in and wants a shell.
const IN: &str = "no shell here";

/// OpenSSH's client at a server, with nothing of this machine's settings.
fn ssh(server: &Server, user: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes"]);
    command.args(["-o", "StrictHostKeyChecking=yes", "-o"]);
    command.arg(format!("UserKnownHostsFile={}", server.known_hosts().display()));
    command.args(arguments).args(["-p", &server.port().to_string(), "-l", user, "127.0.0.1"]);
    command.stdin(Stdio::null()).env_remove("SSH_AUTH_SOCK");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Whether the login works; it fails the test if the answer is neither yes nor a denial.
#[track_caller]
fn gets_in(server: &Server, user: &str, arguments: &[&str]) -> bool {
    let output = run(ssh(server, user, arguments).args(["-o", "BatchMode=yes"]));
    let err = String::from_utf8_lossy(&output.stderr);
    let is_in = err.contains(IN);
    assert!(is_in || err.contains("Permission denied"), "{arguments:?}: {err}\n{}", server.log());
    is_in
}

#[track_caller]
fn keygen(arguments: &[&str]) {
    let output = run(Command::new("ssh-keygen").arg("-q").args(arguments));
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A key with a certificate of this authority, made by OpenSSH; returns the private key's file.
fn certified(folder: &Path, name: &str, authority: &Path, arguments: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let text = |path: &Path| path.display().to_string();
    make_key(&path);
    let authority = text(authority);
    let public = text(&path.with_extension("pub"));
    let usual: &[&str] = &["-s", &authority, "-I", name];
    keygen(&[usual, arguments, &[&public]].concat());
    path
}

#[test]
fn certificates_of_a_trusted_authority_open_within_their_bounds_only() {
    if !require("certificates", &NEEDS) {
        return;
    }
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    for authority in ["ca", "own-ca", "stranger-ca"] {
        make_key(&at(authority));
    }
    fs::write(at("revoked"), "serial: 66\n").unwrap();
    let ssh_lines = format!(
        "trusted_ca_keys = {:?}\nrevoked_keys = {:?}\n",
        at("ca.pub").display().to_string(),
        at("revoked").display().to_string()
    );
    let server = Server::start(ServerOptions { ssh_lines, ..ServerOptions::default() });
    let keys = fs::read_to_string(server.directory().join("authorized_keys")).unwrap();
    let own = fs::read_to_string(at("own-ca.pub")).unwrap();
    let keys_file = server.directory().join("authorized_keys");
    fs::write(&keys_file, format!("{keys}cert-authority,principals=\"team\" {own}")).unwrap();
    let rows = [
        ("ca", &["-n", "alice"][..], true),
        ("ca", &["-n", "bob,alice", "-V", "-1h:+1h"], true),
        ("ca", &["-n", "alice", "-O", "source-address=127.0.0.0/8"], true),
        ("ca", &["-n", "alice", "-O", "force-command=haul-session"], true),
        ("own-ca", &["-n", "team"], true),
        ("own-ca", &["-n", "alice"], false),
        ("stranger-ca", &["-n", "alice"], false),
        ("ca", &["-n", "bob"], false),
        ("ca", &[], false),
        ("ca", &["-n", "alice", "-V", "-2h:-1h"], false),
        ("ca", &["-n", "alice", "-V", "+1h:+2h"], false),
        ("ca", &["-n", "alice", "-O", "source-address=192.0.2.0/24"], false),
        ("ca", &["-n", "alice", "-O", "force-command=/bin/date"], false),
        ("ca", &["-n", "alice", "-O", "critical:new@example.org=1"], false),
        ("ca", &["-n", "alice", "-z", "66"], false),
        ("ca", &["-h", "-n", "alice"], false),
    ];
    // At once: each refusal takes the server a second.
    std::thread::scope(|scope| {
        for (n, (authority, arguments, opens)) in rows.into_iter().enumerate() {
            let key = certified(folder.path(), &format!("key{n}"), &at(authority), arguments);
            let server = &server;
            scope.spawn(move || {
                let key = key.display().to_string();
                assert_eq!(gets_in(server, USER, &["-i", &key]), opens, "row {n}\n{}", server.log());
            });
        }
    });
    let key = at("key0").display().to_string();
    assert!(!gets_in(&server, "mallory", &["-i", &key]));
    // An authority's own key is no key to log in with, and plain keys go on as before.
    for (key, opens) in [(at("ca"), false), (at("own-ca"), false), (server.key(), true)] {
        assert_eq!(gets_in(&server, USER, &["-i", &key.display().to_string()]), opens, "{}", key.display());
    }
    let rsa = at("rsa");
    keygen(&["-t", "rsa", "-b", "2048", "-N", "", "-f", &rsa.display().to_string()]);
    let (ca, public) = (at("ca").display().to_string(), at("rsa.pub").display().to_string());
    keygen(&["-s", &ca, "-I", "rsa", "-n", "alice", &public]);
    assert!(gets_in(&server, USER, &["-i", &rsa.display().to_string()]), "RSA with SHA-2");
    let log = server.log();
    for words in ["from this address", "\"bob\"", "is not trusted", "the key is revoked"] {
        assert!(log.contains(words), "{words}\n{log}");
    }
}

#[test]
fn options_in_authorized_keys_limit_or_refuse_a_key() {
    if !require("authorized_keys options", &NEEDS) {
        return;
    }
    let server = Server::start(ServerOptions::default());
    let public = fs::read_to_string(server.key().with_extension("pub")).unwrap();
    let key = server.key().display().to_string();
    for (n, (options, opens)) in [
        ("", true),
        ("restrict ", true),
        ("no-pty,no-port-forwarding,no-x11-forwarding,no-agent-forwarding ", true),
        ("from=\"127.0.0.0/8,::1\" ", true),
        ("from=\"192.0.2.0/24\" ", false),
        ("from=\"*,!127.0.0.1\" ", false),
        ("expiry-time=\"20990101\" ", true),
        ("expiry-time=\"20200101\" ", false),
        ("command=\"haul-session\" ", true),
        ("command=\"/bin/date\" ", false),
        ("cert-authority ", false),
        ("environment=\"A=b\" ", false),
        ("no-such-option ", false),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(server.directory().join("authorized_keys"), format!("{options}{public}")).unwrap();
        assert_eq!(gets_in(&server, USER, &["-i", &key]), opens, "row {n}: {options}");
    }
    assert!(server.log().contains("unknown option `no-such-option`"), "{}", server.log());
}

/// What `hauld password` prints for a password on its standard input.
fn hashed(password: &str) -> String {
    let command = format!("printf '%s\\n' \"$1\" | {} password", program("hauld").display());
    let output = run(Command::new("sh").args(["-c", &command, "sh", password]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// OpenSSH's client with a password and no key.
fn ssh_with_password(server: &Server, folder: &Path, user: &str, password: &str) -> String {
    let helper = folder.join("askpass");
    fs::write(&helper, "#!/bin/sh\nprintf '%s\\n' \"$SECRET\"\n").unwrap();
    fs::set_permissions(&helper, Permissions::from_mode(0o755)).unwrap();
    let options =
        ["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=30"];
    let mut command = ssh(server, user, &options);
    command.env("SSH_ASKPASS", &helper).env("SSH_ASKPASS_REQUIRE", "force").env("SECRET", password);
    String::from_utf8_lossy(&run(&mut command).stderr).into_owned()
}

#[test]
fn passwords_open_for_users_who_have_one_and_tell_guessers_nothing() {
    if !require("passwords", &NEEDS) {
        return;
    }
    let folder = scratch();
    let hash = hashed("correct horse battery staple");
    assert!(hash.starts_with("$argon2id$"), "{hash}");
    let user_lines = format!("password = {hash:?}\n");
    let server = Server::start(ServerOptions { user_lines, ..ServerOptions::default() });
    let try_with = |user: &str, password: &str| ssh_with_password(&server, folder.path(), user, password);
    let said = try_with(USER, "correct horse battery staple");
    assert!(said.contains(IN), "{said}\n{}", server.log());
    let wrong = try_with(USER, "wrong");
    let unknown = try_with("mallory", "correct horse battery staple");
    assert!(wrong.contains("Permission denied (publickey,password)"), "{wrong}");
    assert_eq!(wrong.replace(USER, "X"), unknown.replace("mallory", "X"));
    // Guessing does not lock the account, and keys work beside passwords.
    for _ in 0..4 {
        assert!(try_with(USER, "guess").contains("Permission denied"));
    }
    let said = try_with(USER, "correct horse battery staple");
    assert!(said.contains(IN), "{said}\n{}", server.log());
    assert!(gets_in(&server, USER, &["-i", &server.key().display().to_string()]));
    let printed =
        run(Command::new(program("hauld")).arg("print-config").arg("--config").arg(server.config_file()));
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("password = \"not shown\"") && !printed.contains("argon2"), "{printed}");
    assert!(!server.log().contains("battery"), "{}", server.log());
}

#[test]
fn a_host_certificate_is_enough_for_a_client_that_knows_the_authority() {
    if !require("host certificates", &NEEDS) {
        return;
    }
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    make_key(&at("ca"));
    // The host key is made at the first start, so the certificate comes with the second.
    let mut server = Server::start(ServerOptions::default());
    let private = server.state_dir().join("host_ed25519").display().to_string();
    let public = run(Command::new("ssh-keygen").args(["-y", "-f", &private]));
    fs::write(at("host.pub"), public.stdout).unwrap();
    let (ca, host) = (at("ca").display().to_string(), at("host.pub").display().to_string());
    keygen(&["-s", &ca, "-h", "-I", "host", "-n", "127.0.0.1", &host]);
    let config = fs::read_to_string(server.config_file()).unwrap();
    let line = format!("[ssh]\nhost_certificate = {:?}\n", at("host-cert.pub").display().to_string());
    fs::write(server.config_file(), config.replace("[ssh]\n", &line)).unwrap();
    server.restart();
    let authority = fs::read_to_string(at("ca.pub")).unwrap();
    fs::write(server.known_hosts(), format!("@cert-authority * {authority}")).unwrap();
    assert!(gets_in(&server, USER, &["-i", &server.key().display().to_string()]), "{}", server.log());
}
