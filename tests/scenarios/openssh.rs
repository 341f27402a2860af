//! The worker below a stock OpenSSH server, as `Subsystem haul`.

use std::fs::{self, File, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use haul_tests::harness::{Client, make_key, program, scratch, wait_until};
use haul_tests::require::require;
use haul_tests::tree::{assert_no_partials, assert_same, make_file, make_odd_names};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// The account database is changed by one at a time.
static ACCOUNTS: Mutex<()> = Mutex::new(());
const NEEDS: [&str; 4] = ["root", "sshd", "useradd", "ssh-keygen"];

/// A running `sshd` on a port of its own, with one ordinary account that is removed afterwards.
struct OpenSsh {
    directory: TempDir,
    sshd: Child,
    port: u16,
    account: String,
}

impl OpenSsh {
    /// `subsystem` is the name under which the worker is offered.
    fn start(name: &str, subsystem: &str) -> Self {
        let directory = scratch();
        let at = |name: &str| directory.path().join(name);
        make_key(&at("host_key"));
        make_key(&at("key"));
        fs::create_dir(at("here")).unwrap();
        // The build may be in a place that the account cannot pass.
        fs::copy(program("hauld"), at("hauld")).unwrap();
        fs::set_permissions(at("key.pub"), Permissions::from_mode(0o644)).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let account = format!("haul-{name}-{}", std::process::id());
        let home = at("home").display().to_string();
        add_account(&account, &home);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::write(at("sshd_config"), config(directory.path(), port, subsystem)).unwrap();
        let log = File::create(at("sshd.log")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(at("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null());
        let sshd = command.stderr(log).spawn().unwrap();
        let up = wait_until(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let started = Self { directory, sshd, port, account };
        assert!(up, "sshd does not listen: {}", started.log());
        started
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("sshd.log")).unwrap_or_default()
    }

    fn here(&self) -> std::path::PathBuf {
        self.directory.path().join("here")
    }

    fn home(&self) -> std::path::PathBuf {
        self.directory.path().join("home")
    }

    /// A client with this server's key; the host key is learnt.
    fn client(&self) -> Client {
        let at = |name: &str| self.directory.path().join(name);
        let client = Client::alone().args(["--json", "-F", "none", "-P", &self.port.to_string(), "-i"]);
        client.arg(at("key")).arg("--known-hosts").arg(at("known_hosts"))
    }

    fn remote(&self, path: &str) -> String {
        format!("{}@127.0.0.1:{path}", self.account)
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        let _turn = ACCOUNTS.lock();
        let _ = Command::new("userdel").arg("-f").arg(&self.account).stderr(Stdio::null()).status();
        if std::thread::panicking() {
            eprintln!("log of sshd:\n{}", self.log());
        }
    }
}

/// An ordinary account that no password fits, which OpenSSH does not take for locked.
fn add_account(name: &str, home: &str) {
    let _turn = ACCOUNTS.lock();
    let made = Command::new("useradd").args(["-m", "-d", home, "-s", "/bin/sh", "-p", "*", name]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "useradd: {}", String::from_utf8_lossy(&made.stderr));
}

fn config(directory: &Path, port: u16, subsystem: &str) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
         UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nSubsystem {subsystem} {} session\n",
        at("host_key"),
        at("key.pub"),
        at("hauld")
    )
}

#[test]
fn the_worker_serves_below_a_stock_openssh_server() {
    if !require("OpenSSH subsystem", &NEEDS) {
        return;
    }
    let openssh = OpenSsh::start("a", "haul");
    let here = openssh.here();
    make_file(&here.join("file"), 20 * MIB, 1);
    make_odd_names(&here.join("tree"), 2);
    let up = openssh.client().arg(here.join("file")).arg(here.join("tree")).arg(openssh.remote("")).run();
    up.assert_success();
    assert_same(&here.join("file"), &openssh.home().join("file"));
    assert_same(&here.join("tree"), &openssh.home().join("tree"));
    let names = [openssh.remote("file"), openssh.remote("tree")];
    let down = openssh.client().args(names).arg("-d").arg(here.join("back")).run();
    down.assert_success();
    assert_same(&here.join("file"), &here.join("back/file"));
    assert_same(&here.join("tree"), &here.join("back/tree"));
    assert_no_partials(&openssh.home());
    // Where UDP is blocked, too: in the channel that sshd gives its subsystem.
    let pinned = |client: Client| client.args(["--carrier", "ssh", "--no-retry"]);
    pinned(openssh.client()).arg(here.join("file")).arg(openssh.remote("by-ssh")).run().assert_success();
    assert_same(&here.join("file"), &openssh.home().join("by-ssh"));
    let down = pinned(openssh.client()).arg(openssh.remote("by-ssh")).arg(here.join("by-ssh")).run();
    down.assert_success();
    assert_eq!(down.done()["carrier"], "ssh");
    assert_same(&here.join("file"), &here.join("by-ssh"));
    let escape = openssh.client().arg(openssh.remote("../key")).arg(&here).run();
    escape.assert_refused(5, &["docroot"]);
}

#[test]
fn root_is_told_that_it_is_no_transfer_user() {
    if !require("OpenSSH and root", &NEEDS) {
        return;
    }
    let openssh = OpenSsh::start("c", "haul");
    let here = openssh.here();
    make_file(&here.join("file"), 1000, 1);
    let root = openssh.client().arg(here.join("file")).arg("root@127.0.0.1:haul-must-not-write-here").run();
    assert!(!root.status.success(), "{}", root.story());
    assert!(root.stderr.contains("root") && root.stderr.contains("no transfer may use"), "{}", root.story());
    assert!(!Path::new("/root/haul-must-not-write-here").exists());
}

#[test]
fn an_ssh_server_without_the_subsystem_is_named() {
    if !require("OpenSSH without the subsystem", &NEEDS) {
        return;
    }
    let openssh = OpenSsh::start("b", "other");
    make_file(&openssh.here().join("file"), 1000, 1);
    let client = openssh.client().arg("-q").limit(Duration::from_secs(20));
    let outcome = client.arg(openssh.here().join("file")).arg(openssh.remote("")).run();
    outcome.assert_refused(3, &["not haul", "subsystem"]);
}
