//! A running `hauld` with its own keys, configuration, docroot and ports.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};
use tempfile::TempDir;

use super::client::Client;
use super::deadline::Deadline;
use super::process::{children_of, free_ports, output_of, wait_until};
use super::{program, scratch, scratch_in};
use crate::wan::{self, Wan};

/// The transfer user of every test server.
pub const USER: &str = "alice";
/// UDP ports a server on loopback gets unless a test says otherwise.
const UDP_PORTS: u16 = 16;
const START_LIMIT: Duration = Duration::from_secs(15);
/// The well-known port, used where the network is the test's own.
const WELL_KNOWN: u16 = 33001;
const WELL_KNOWN_LAST: u16 = 33100;
const WELL_KNOWN_HTTPS: u16 = 8443;

/// The system account sessions run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// `nobody` when the test runs as root, else none.
    Fitting,
    /// None, whoever runs the test.
    None,
    /// This one.
    Named(String),
}

/// How a test server differs from the usual one.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// What the user may do.
    pub permissions: Vec<String>,
    /// The user's `max_rate`, as the configuration writes it.
    pub max_rate: Option<String>,
    /// The account of the sessions.
    pub account: Account,
    /// More lines for the top of the configuration, before the first table.
    pub top_lines: String,
    /// More lines for the `[ssh]` table.
    pub ssh_lines: String,
    /// More lines for the `[udp]` table.
    pub udp_lines: String,
    /// More lines for the user's table.
    pub user_lines: String,
    /// Names of more users, who differ from the usual one in their name only.
    pub more_users: Vec<String>,
    /// More tables for the end.
    pub tables: String,
    /// Listen for the HTTPS fallback: on 8443 in a namespace, else on a free port.
    pub https: bool,
    /// More lines for the `[https]` table.
    pub https_lines: String,
    /// Environment of `hauld`.
    pub environment: Vec<(String, String)>,
    /// Namespace and address to serve in; none is loopback.
    pub place: Option<(String, IpAddr)>,
    /// Ask for the host key with `ssh-keyscan` and write it into the client's known hosts.
    pub known: bool,
    /// UDP ports on loopback.
    pub udp_ports: u16,
    /// Where the server's directory is made; none is where tests have theirs.
    pub parent: Option<PathBuf>,
    /// End the program when the server runs for minutes, as no test does.
    pub deadline: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            permissions: ["read", "write", "list"].map(str::to_owned).to_vec(),
            max_rate: None,
            account: Account::Fitting,
            top_lines: String::new(),
            ssh_lines: String::new(),
            udp_lines: String::new(),
            user_lines: String::new(),
            more_users: Vec::new(),
            tables: String::new(),
            https: false,
            https_lines: String::new(),
            environment: Vec::new(),
            place: None,
            known: true,
            udp_ports: UDP_PORTS,
            parent: None,
            deadline: true,
        }
    }
}

impl ServerOptions {
    /// Options for a server at end B of an emulated path; clients belong at end A.
    #[must_use]
    pub fn at_b(wan: &Wan) -> Self {
        Self { place: Some((wan.b().to_owned(), wan.address_b())), ..Self::default() }
    }
}

/// A running `hauld`. Dropping it kills it and its workers and removes its directory.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    options: ServerOptions,
    child: Child,
    ports: Ports,
    account: Option<String>,
    _deadline: Option<Deadline>,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    ssh: u16,
    https: u16,
    udp: (u16, u16),
}

impl Ports {
    fn choose(options: &ServerOptions) -> Self {
        if options.place.is_some() {
            return Self { ssh: WELL_KNOWN, https: WELL_KNOWN_HTTPS, udp: (WELL_KNOWN, WELL_KNOWN_LAST) };
        }
        let first = free_ports(2 + options.udp_ports);
        Self { ssh: first, https: first + 1, udp: (first + 2, first + 1 + options.udp_ports) }
    }
}

impl Server {
    /// Makes keys and configuration, starts `hauld serve` and waits until it accepts connections.
    ///
    /// # Panics
    /// When it does not come up; the message holds its log.
    #[must_use]
    pub fn start(options: ServerOptions) -> Self {
        let directory = options.parent.as_deref().map_or_else(scratch, scratch_in);
        let ports = Ports::choose(&options);
        for name in ["state", "docroot", "home"] {
            fs::create_dir(directory.path().join(name)).expect("our own directory is writable");
        }
        make_key(&directory.path().join("key"));
        fs::copy(directory.path().join("key.pub"), directory.path().join("authorized_keys"))
            .expect("our own directory is writable");
        let account = account_name(&options.account);
        if let Some(name) = &account {
            give_away(&directory.path().join("docroot"), name);
        }
        let text = configuration(directory.path(), &options, account.as_deref(), ports);
        fs::write(directory.path().join("hauld.toml"), text).expect("our own directory is writable");
        fs::write(directory.path().join("known_hosts"), "").expect("our own directory is writable");
        let child = launch(directory.path(), &options);
        let deadline = options.deadline.then(Deadline::start);
        let mut server = Self { directory, options, child, ports, account, _deadline: deadline };
        server.wait_for_start();
        if server.options.known {
            server.write_known_hosts();
        }
        server
    }

    /// Process id of `hauld serve`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The user's document root.
    #[must_use]
    pub fn docroot(&self) -> PathBuf {
        self.directory.path().join("docroot")
    }

    /// Where the server keeps its own state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The directory that holds key, configuration, log and docroot.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("hauld.toml")
    }

    /// The user's private key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key")
    }

    /// Known hosts file with this server's host key.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.path().join("known_hosts")
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.ssh
    }

    /// TCP port of the HTTPS fallback, in use when the options asked for it.
    #[must_use]
    pub fn https_port(&self) -> u16 {
        self.ports.https
    }

    /// First and last UDP port.
    #[must_use]
    pub fn udp_ports(&self) -> (u16, u16) {
        self.ports.udp
    }

    /// Address that clients dial.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.options.place.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, address)| *address)
    }

    /// `alice@ADDRESS:PATH`, as `haul` takes it.
    #[must_use]
    pub fn destination(&self, path: &str) -> String {
        match self.address() {
            IpAddr::V4(address) => format!("{USER}@{address}:{path}"),
            IpAddr::V6(address) => format!("{USER}@[{address}]:{path}"),
        }
    }

    /// The destination at another address of the server, as `[::1]`.
    #[must_use]
    pub fn destination_at(&self, address: &str, path: &str) -> String {
        format!("{USER}@{address}:{path}")
    }

    /// Gives a file or tree below the docroot to the account of the sessions, where they have one.
    ///
    /// # Panics
    /// When there is no such path.
    pub fn hand_over(&self, path: &Path) {
        let Some(name) = &self.account else { return };
        give_away(path, name);
        if path.is_dir() {
            for entry in fs::read_dir(path).expect("our own directory is readable") {
                self.hand_over(&entry.expect("a listing goes on").path());
            }
        }
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log_file())
    }

    /// Process ids of the workers, one per session.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        children_of(self.pid(), "session")
    }

    /// A client for this server. It runs in the host's own network; see `Client::in_namespace`.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self)
    }

    /// Kills `hauld` with SIGKILL, its workers not.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end and waits.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM);
        let mut status = None;
        let ended = wait_until(limit, || {
            status = self.child.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        assert!(ended, "hauld did not end within {limit:?} of SIGTERM; its log:\n{}", self.log());
        status.expect("just seen")
    }

    /// Starts it again with the same keys, state and ports, after `kill` or `terminate`.
    pub fn restart(&mut self) {
        self.kill();
        self.child = launch(self.directory.path(), &self.options);
        self.wait_for_start();
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.directory.path().join("hauld.log")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn wait_for_start(&mut self) {
        let mut ended = None;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.ssh));
        let connect = move || TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok();
        let up = wait_until(START_LIMIT, || {
            ended = self.child.try_wait().expect("our own child can be waited for");
            let connected = || match &self.options.place {
                Some((namespace, _)) => wan::enter(namespace, connect).unwrap_or(false),
                None => connect(),
            };
            ended.is_some() || connected()
        });
        if let Some(status) = ended {
            panic!("hauld ended at once with {status}; its log:\n{}", self.log());
        }
        assert!(up, "hauld does not accept connections on port {}; its log:\n{}", self.ports.ssh, self.log());
    }

    /// Learns the host key over the server's own loopback, where no emulated path is in between.
    fn write_known_hosts(&self) {
        let port = self.ports.ssh.to_string();
        let mut scan = match &self.options.place {
            Some((namespace, _)) => wan::command_in(namespace, "ssh-keyscan"),
            None => Command::new("ssh-keyscan"),
        };
        let output = output_of(scan.args(["-T", "5", "-t", "ed25519", "-p", &port, "127.0.0.1"]));
        let scanned = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut text = String::new();
        for line in scanned.lines().filter(|line| !line.starts_with('#')) {
            let Some((_, key)) = line.split_once(' ') else { continue };
            for host in BTreeSet::from(["127.0.0.1".to_owned(), "::1".to_owned(), self.address().to_string()])
            {
                let _ = writeln!(text, "[{host}]:{port} {key}");
            }
        }
        assert!(
            !text.is_empty(),
            "ssh-keyscan got no host key: {}\nhauld's log:\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        fs::write(self.known_hosts(), text).expect("our own directory is writable");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let workers = self.workers();
        self.kill();
        for worker in workers {
            let _ = kill(Pid::from_raw(worker as i32), Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("log of hauld:\n{}", self.log());
        }
    }
}

pub(super) fn read_log(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn launch(directory: &Path, options: &ServerOptions) -> Child {
    let hauld = program("hauld");
    let mut command = match &options.place {
        Some((namespace, _)) => wan::command_in(namespace, &hauld.to_string_lossy()),
        None => Command::new(hauld),
    };
    let log = || {
        File::options()
            .append(true)
            .create(true)
            .open(directory.join("hauld.log"))
            .expect("the log is writable")
    };
    command.arg("serve").arg("--config").arg(directory.join("hauld.toml"));
    command.stdin(Stdio::null()).stdout(log()).stderr(log());
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"))
}

fn configuration(directory: &Path, options: &ServerOptions, account: Option<&str>, ports: Ports) -> String {
    let listen = if options.place.is_some() { "0.0.0.0" } else { "127.0.0.1" };
    let ssh = match (&options.place, has_ipv6_loopback()) {
        (None, true) => format!("\"{listen}:{0}\", \"[::1]:{0}\"", ports.ssh),
        _ => format!("\"{listen}:{}\"", ports.ssh),
    };
    let path = |name: &str| directory.join(name).display().to_string();
    let permissions: Vec<String> = options.permissions.iter().map(|word| format!("{word:?}")).collect();
    let mut text = format!(
        "state_dir = {:?}\n{}\n[ssh]\nlisten = [{ssh}]\n{}\n\n[udp]\nports = \"{}-{}\"\n{}\n\n",
        path("state"),
        options.top_lines,
        options.ssh_lines,
        ports.udp.0,
        ports.udp.1,
        options.udp_lines
    );
    let https = if options.https { format!("\"{listen}:{}\"", ports.https) } else { String::new() };
    let _ = write!(text, "[https]\nlisten = [{https}]\n{}\n\n", options.https_lines);
    for name in std::iter::once(USER).chain(options.more_users.iter().map(String::as_str)) {
        let _ = write!(
            text,
            "[[user]]\nname = {name:?}\ndocroot = {:?}\nauthorized_keys = {:?}\npermissions = [{}]\n",
            path("docroot"),
            path("authorized_keys"),
            permissions.join(", ")
        );
        if let Some(rate) = &options.max_rate {
            let _ = writeln!(text, "max_rate = {rate:?}");
        }
        if let Some(account) = account {
            let _ = writeln!(text, "account = {account:?}");
        }
        let _ = writeln!(text, "{}", options.user_lines);
    }
    let _ = writeln!(text, "{}", options.tables);
    text
}

fn account_name(account: &Account) -> Option<String> {
    match account {
        Account::Fitting => nix::unistd::geteuid().is_root().then(|| "nobody".to_owned()),
        Account::None => None,
        Account::Named(name) => Some(name.clone()),
    }
}

/// True where `::1` can be used.
#[must_use]
pub fn has_ipv6_loopback() -> bool {
    fs::read_to_string("/proc/net/if_inet6")
        .is_ok_and(|table| table.lines().any(|line| line.ends_with(" lo")))
}

fn give_away(path: &Path, account: &str) {
    let user = User::from_name(account).ok().flatten().unwrap_or_else(|| panic!("no account {account}"));
    chown(path, Some(user.uid), Some(user.gid))
        .unwrap_or_else(|errno| panic!("give {} to {account}: {errno}", path.display()));
}

/// Makes an Ed25519 key without passphrase, and `.pub` beside it.
///
/// # Panics
/// When `ssh-keygen` cannot.
pub fn make_key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    let output =
        output_of(command.args(["-q", "-t", "ed25519", "-N", "", "-C", "haul-test", "-f"]).arg(path));
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
}
