//! The ways in which `haul` proves who its user is: keys of files, of the environment and of an agent, encrypted ones,
//! certificates, passwords; and how it makes sure of the server.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use haul_tests::harness::{Client, Outcome, Server, ServerOptions, make_key, program, scratch};
use haul_tests::require::require;
use haul_tests::tree::{assert_same, make_file};
use nix::pty::openpty;

const NEEDS: [&str; 4] = ["ssh", "ssh-keygen", "ssh-agent", "ssh-add"];
const SECRET: &str = "correct horse battery";

fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn keygen() -> Command {
    let mut command = Command::new("ssh-keygen");
    command.arg("-q");
    command
}

/// A server that trusts an authority and takes a password, and a folder with that authority and a file `f`.
struct Scene {
    server: Server,
    folder: tempfile::TempDir,
    /// Connections so far, so that each copy has a name of its own.
    copies: std::cell::Cell<u32>,
}

impl Scene {
    fn start() -> Self {
        let folder = scratch();
        make_key(&folder.path().join("ca"));
        let hashing = format!("echo '{SECRET}' | {} password", program("hauld").display());
        let hash = must(Command::new("sh").args(["-c", &hashing]));
        let ssh_lines = format!("trusted_ca_keys = {:?}", folder.path().join("ca.pub").display().to_string());
        let user_lines = format!("password = {:?}", hash.trim());
        let server = Server::start(ServerOptions { ssh_lines, user_lines, ..ServerOptions::default() });
        make_file(&folder.path().join("f"), 1000, 1);
        Self { server, folder, copies: std::cell::Cell::new(0) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client without keys.
    fn client(&self) -> Client {
        let port = self.server.port().to_string();
        let client = Client::alone().args(["-P", &port, "--known-hosts"]).arg(self.server.known_hosts());
        client.env("HOME", self.folder.path())
    }

    /// Uploads the file, and says how it ended.
    fn copy(&self, client: Client) -> Outcome {
        self.copies.set(self.copies.get() + 1);
        let name = format!("copy{}", self.copies.get());
        let outcome = client.arg(self.at("f")).arg(self.server.destination(&name)).run();
        if outcome.status.success() {
            assert_same(&self.at("f"), &self.server.docroot().join(&name));
        }
        outcome
    }

    /// A key whose public half the server does not list, with a certificate for alice.
    fn certified(&self, name: &str, kind: &[&str]) -> PathBuf {
        let path = self.at(name);
        must(keygen().args(kind).args(["-N", "", "-f"]).arg(&path));
        must(
            keygen()
                .args(["-I", name, "-n", "alice", "-s"])
                .arg(self.at("ca"))
                .arg(path.with_extension("pub")),
        );
        path
    }
}

/// A running `ssh-agent` that holds keys.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path, keys: &[&Path]) -> Self {
        let socket = folder.join("agent");
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null());
        let agent = Self { child: command.spawn().unwrap(), socket };
        let up =
            haul_tests::harness::wait_until(std::time::Duration::from_secs(10), || agent.socket.exists());
        assert!(up, "ssh-agent does not listen");
        for key in keys {
            must(Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket));
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn encrypted_keys_and_keys_of_the_environment_open_without_a_question() {
    if !require("encrypted keys", &NEEDS) {
        return;
    }
    let scene = Scene::start();
    let text = fs::read_to_string(scene.server.key()).unwrap();
    for name in ["HAUL_KEY", "ASPERA_SCP_KEY"] {
        scene.copy(scene.client().env(name, &text)).assert_success();
    }
    let locked = scene.at("locked");
    fs::copy(scene.server.key(), &locked).unwrap();
    must(keygen().args(["-p", "-P", "", "-N", "phrase", "-f"]).arg(&locked));
    for name in ["HAUL_PASSPHRASE", "ASPERA_SCP_PASS"] {
        scene.copy(scene.client().arg("-i").arg(&locked).env(name, "phrase")).assert_success();
    }
    let none = scene.copy(scene.client().arg("-i").arg(&locked));
    none.assert_refused(4, &["encrypted", "no passphrase", "ssh-add", "HAUL_PASSPHRASE"]);
    let wrong = scene.copy(scene.client().arg("-i").arg(&locked).env("HAUL_PASSPHRASE", "other"));
    wrong.assert_refused(4, &["the passphrase given does not open it"]);
    scene.copy(scene.client().env("ASPERA_SCP_KEY", "garbage")).assert_refused(4, &["ASPERA_SCP_KEY"]);
}

#[test]
fn certificates_are_found_beside_keys_in_agents_and_in_ssh_config() {
    if !require("certificates of clients", &NEEDS) {
        return;
    }
    let scene = Scene::start();
    let key = scene.certified("ed", &["-t", "ed25519"]);
    scene.copy(scene.client().arg("-i").arg(&key)).assert_success();
    let rsa = scene.certified("rsa", &["-t", "rsa", "-b", "2048"]);
    scene.copy(scene.client().arg("-i").arg(&rsa)).assert_success();
    // Elsewhere than beside the key, named in ssh_config.
    fs::rename(scene.at("ed-cert.pub"), scene.at("elsewhere.pub")).unwrap();
    scene.copy(scene.client().arg("-i").arg(&key)).assert_code(4);
    let config = scene.at("config");
    fs::write(&config, format!("CertificateFile {}\n", scene.at("elsewhere.pub").display())).unwrap();
    scene.copy(scene.client().arg("-F").arg(&config).arg("-i").arg(&key)).assert_success();
    // The agent holds key and certificate, or the key only while the certificate is a file.
    let agent = Agent::start(scene.folder.path(), &[&rsa]);
    scene.copy(scene.client().env("SSH_AUTH_SOCK", &agent.socket)).assert_success();
    drop(agent);
    fs::remove_file(scene.at("agent")).unwrap_or_default();
    let bare = scene.at("bare");
    fs::copy(&rsa, &bare).unwrap();
    let agent = Agent::start(scene.folder.path(), &[&bare]);
    let public = scene.client().arg("-i").arg(scene.at("rsa.pub")).env("SSH_AUTH_SOCK", &agent.socket);
    scene.copy(public).assert_code(4);
    fs::write(&config, format!("CertificateFile {}\n", scene.at("rsa-cert.pub").display())).unwrap();
    let client = scene.client().arg("-F").arg(&config).arg("-i").arg(scene.at("rsa.pub"));
    scene.copy(client.env("SSH_AUTH_SOCK", &agent.socket)).assert_success();
    // An agent named in ssh_config is asked in place of the environment's, and none is none.
    let list = fs::read_to_string(scene.server.directory().join("authorized_keys")).unwrap();
    let listed = fs::read_to_string(scene.at("rsa.pub")).unwrap();
    fs::write(scene.server.directory().join("authorized_keys"), format!("{list}{listed}")).unwrap();
    fs::write(&config, format!("IdentityAgent {}\n", agent.socket.display())).unwrap();
    scene.copy(scene.client().arg("-F").arg(&config)).assert_success();
    fs::write(&config, "IdentityAgent none\n").unwrap();
    let none = scene.client().arg("-F").arg(&config).env("SSH_AUTH_SOCK", &agent.socket);
    scene.copy(none).assert_code(4);
}

#[test]
fn a_password_of_the_environment_opens_and_a_key_s_passphrase_is_not_sent() {
    if !require("passwords of clients", &NEEDS) {
        return;
    }
    let scene = Scene::start();
    for name in ["HAUL_PASSWORD", "ASPERA_SCP_PASS"] {
        scene.copy(scene.client().env(name, SECRET)).assert_success();
    }
    let wrong = scene.copy(scene.client().env("HAUL_PASSWORD", "wrong"));
    wrong.assert_refused(4, &["permission denied", "password of the environment"]);
    let stranger = scene.at("stranger");
    must(keygen().args(["-t", "ed25519", "-N", SECRET, "-f"]).arg(&stranger));
    let before = scene.server.log();
    let refused = scene.copy(scene.client().arg("-i").arg(&stranger).env("ASPERA_SCP_PASS", SECRET));
    refused.assert_refused(4, &["permission denied"]);
    let log = scene.server.log();
    assert!(!log[before.len()..].contains("password"), "the passphrase went to the server\n{log}");
    let hint = scene.copy(scene.client().arg("-i").arg(scene.certified("x", &["-t", "ed25519"])).arg("-q"));
    hint.assert_success();
}

/// Runs `haul` with a terminal of its own, and answers its first question.
fn at_a_terminal(scene: &Scene, arguments: &[&str], question: &str, answer: &str) -> (bool, String) {
    let pty = openpty(None, None).unwrap();
    let slave = || Stdio::from(pty.slave.as_fd().try_clone_to_owned().unwrap());
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(program("haul")).args(arguments);
    command.args(["-P", &scene.server.port().to_string(), "--known-hosts"]).arg(scene.server.known_hosts());
    command.arg(scene.at("f")).arg(scene.server.destination("asked"));
    command.env("HOME", scene.folder.path()).env_remove("SSH_AUTH_SOCK").env_remove("ASPERA_SCP_PASS");
    let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
    drop(command);
    drop(pty.slave);
    let mut master = File::from(pty.master);
    let (mut seen, mut answered, mut buffer) = (String::new(), false, [0; 4096]);
    // The terminal's end is an error on Linux.
    while let Ok(count) = master.read(&mut buffer) {
        if count == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if !answered && seen.contains(question) {
            answered = true;
            master.write_all(format!("{answer}\n").as_bytes()).unwrap();
        }
    }
    (child.wait().unwrap().success(), seen)
}

#[test]
fn at_a_terminal_passwords_and_passphrases_are_asked_for_and_not_shown() {
    if !require("questions", &["ssh-keygen", "setsid"]) {
        return;
    }
    let scene = Scene::start();
    let (opened, seen) = at_a_terminal(&scene, &[], "assword for alice@127.0.0.1: ", SECRET);
    assert!(opened && !seen.contains(SECRET), "{seen}\n{}", scene.server.log());
    let locked = scene.at("locked");
    fs::copy(scene.server.key(), &locked).unwrap();
    must(keygen().args(["-p", "-P", "", "-N", "phrase", "-f"]).arg(&locked));
    let locked = locked.display().to_string();
    let (opened, seen) = at_a_terminal(&scene, &["-i", &locked], "Passphrase for ", "phrase");
    assert!(opened && !seen.contains("phrase\r"), "{seen}\n{}", scene.server.log());
    // Without a terminal nothing is asked, and the way out is named.
    let refused = scene.copy(scene.client());
    refused.assert_refused(4, &["permission denied", "there was no key to try"]);
}

#[test]
fn the_server_is_known_by_its_fingerprint_or_its_authority() {
    if !require("host keys", &NEEDS) {
        return;
    }
    let scene = Scene::start();
    let printed =
        must(Command::new("ssh-keygen").args(["-l", "-E", "sha256", "-f"]).arg(scene.server.known_hosts()));
    let sha256 = printed.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
    let empty = scene.at("empty");
    fs::write(&empty, "").unwrap();
    let client = || {
        let port = scene.server.port().to_string();
        let client = Client::alone().args(["-P", &port, "--strict-host-key", "-i"]).arg(scene.server.key());
        client.env("HOME", scene.folder.path())
    };
    let fresh = || client().arg("--known-hosts").arg(&empty);
    scene.copy(fresh()).assert_code(4);
    scene.copy(fresh().args(["--check-sshfp", sha256])).assert_success();
    let wrong = scene.copy(
        client()
            .arg("--known-hosts")
            .arg(scene.server.known_hosts())
            .args(["--check-sshfp", "0000000000000000000000000000000000000000"]),
    );
    wrong.assert_refused(4, &["not the one asked for", sha256]);
    scene.copy(fresh().args(["--check-sshfp", "short"])).assert_refused(2, &["no fingerprint", "SHA256:"]);
}

#[test]
fn an_authority_on_record_vouches_for_a_server_with_a_certificate() {
    if !require("host certificates", &NEEDS) {
        return;
    }
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    make_key(&at("ca"));
    make_file(&at("f"), 1000, 1);
    let mut server = Server::start(ServerOptions::default());
    let key = server.state_dir().join("host_ed25519");
    fs::write(at("host.pub"), must(Command::new("ssh-keygen").arg("-y").arg("-f").arg(&key))).unwrap();
    let config = fs::read_to_string(server.config_file()).unwrap();
    let line = format!("[ssh]\nhost_certificate = {:?}\n", at("host-cert.pub").display().to_string());
    fs::write(server.config_file(), config.replace("[ssh]\n", &line)).unwrap();
    let authority = fs::read_to_string(at("ca.pub")).unwrap();
    fs::write(server.known_hosts(), format!("@cert-authority * {authority}")).unwrap();
    for (host, trusted) in [("127.0.0.1", true), ("example.org", false)] {
        must(keygen().args(["-h", "-I", "host", "-n", host, "-s"]).arg(at("ca")).arg(at("host.pub")));
        server.restart();
        let outcome =
            server.client().arg("--strict-host-key").arg(at("f")).arg(server.destination("copy")).run();
        if trusted {
            outcome.assert_success();
        } else {
            outcome.assert_refused(4, &["certificate", "example.org"]);
        }
    }
}

#[test]
fn the_stock_ssh_dials_in_haul_s_place() {
    if !require("--ssh-command", &NEEDS) {
        return;
    }
    let scene = Scene::start();
    make_file(&scene.at("large"), 3 << 20, 2);
    let client = || {
        let client = scene.server.client().args(["-F", "none", "--ssh-command", "ssh -o IdentitiesOnly=yes"]);
        client.env("HOME", scene.folder.path())
    };
    let up = client().arg(scene.at("large")).arg(scene.server.destination("up")).run();
    up.assert_success();
    assert_same(&scene.at("large"), &scene.server.docroot().join("up"));
    let down = client().arg(scene.server.destination("up")).arg(scene.at("down")).run();
    down.assert_success();
    assert_same(&scene.at("large"), &scene.at("down"));
    let by_variable = scene.server.client().args(["-F", "none"]).env("HAUL_SSH_COMMAND", "no-such-ssh");
    scene.copy(by_variable).assert_refused(2, &["no-such-ssh"]);
    let stranger = scene.at("stranger");
    make_key(&stranger);
    let stranger = scene.client().args(["-F", "none", "-q", "--ssh-command", "ssh", "-i"]).arg(&stranger);
    let refused = scene.copy(stranger);
    refused.assert_code(4);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.story());
    // A detour of ssh_config is not passed over in silence.
    let config = scene.at("config");
    fs::write(&config, "Host 127.0.0.1\n ProxyJump gate\n").unwrap();
    let detour = scene.copy(scene.server.client().arg("-F").arg(&config));
    detour.assert_refused(2, &["by way of gate", "--ssh-command ssh"]);
}
