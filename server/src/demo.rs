//! `hauld demo`: a first real transfer without any set-up. It starts this very program as a server on loopback with
//! throw-away keys and folders, runs the real client against it as a process of its own, compares digests, and cleans
//! up. Nothing here is a short cut: SSH, the worker, UDP and disks are those of every transfer.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use tempfile::TempDir;

use crate::error::ServerError;

/// Bytes of the large file.
const LARGE: usize = 256 << 20;
/// Files of the tree, and the bytes of the largest.
const SMALL_FILES: usize = 400;
const SMALL_BYTES: usize = 20_000;

/// Accounts that every system has for work without rights, tried in order.
const UNPRIVILEGED: [&str; 2] = ["nobody", "daemon"];

/// The server must accept within this time.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the hidden subcommand that runs the client.
pub(crate) const CLIENT: &str = "demo-client";

/// Runs the demonstration.
///
/// # Errors
/// [`ServerError::Demo`] naming the step that failed.
pub(crate) fn run() -> Result<(), ServerError> {
    let begun = Instant::now();
    let scene = Scene::build()?;
    say(&format!("a server on 127.0.0.1, TCP port {} (SSH), with throw-away keys and folders", scene.port));
    let server = scene.start_server()?;
    let outcome = scene.transfer_all();
    let log = server.stop();
    outcome.map_err(|error| match error {
        ServerError::Demo { step, reason } => {
            ServerError::Demo { step, reason: format!("{reason}\nthe server's log:\n{log}") }
        }
        other => other,
    })?;
    say(&format!(
        "all digests are equal; {:.1} s in all; nothing is left behind",
        begun.elapsed().as_secs_f64()
    ));
    say("next: `hauld serve` on a server, `haul FILE user@server:` from anywhere");
    Ok(())
}

fn say(line: &str) {
    // A closed terminal does not stop the demonstration.
    let _ = writeln!(io::stdout(), "{line}");
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError::Demo { step, reason: error.to_string() }
}

/// Folders, keys and settings.
struct Scene {
    folder: TempDir,
    port: u16,
    /// The account that the worker becomes; none unless started as root.
    account: Option<User>,
}

impl Scene {
    fn build() -> Result<Self, ServerError> {
        let step = "making folders and keys";
        // In memory where possible: the demonstration shows the network, not a disk.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new()
            .prefix("haul-demo-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(base)
            .map_err(failed(step))?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .map_err(failed(step))?
            .port();
        let account = if Uid::effective().is_root() { Some(unprivileged()?) } else { None };
        let scene = Self { folder, port, account };
        scene.make_keys(step)?;
        scene.make_docroot().map_err(failed(step))?;
        scene.make_content().map_err(failed("making files to send"))?;
        fs::write(scene.at("hauld.toml"), scene.config()).map_err(failed(step))?;
        Ok(scene)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_keys(&self, step: &'static str) -> Result<(), ServerError> {
        let broken = |error: &dyn std::fmt::Display| ServerError::Demo { step, reason: error.to_string() };
        let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(|error| broken(&error))?;
        let private = key.to_openssh(LineEnding::LF).map_err(|error| broken(&error))?;
        let public = key.public_key().to_openssh().map_err(|error| broken(&error))?;
        write_private(&self.at("key"), private.as_bytes()).map_err(failed(step))?;
        write_private(&self.at("authorized_keys"), format!("{public}\n").as_bytes()).map_err(failed(step))
    }

    fn make_docroot(&self) -> io::Result<()> {
        fs::create_dir(self.at("docroot"))?;
        if let Some(account) = &self.account {
            chown(self.at("docroot"), Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
        }
        Ok(())
    }

    fn make_content(&self) -> io::Result<()> {
        let random = SystemRandom::new();
        let mut noise = vec![0; 1 << 20];
        random.fill(&mut noise).map_err(|_| io::Error::other("no random numbers"))?;
        let mut large = File::create(self.at("large.bin"))?;
        for block in 0..LARGE / noise.len() {
            // Every block differs, so that a misplaced one is noticed.
            if let Some(head) = noise.first_chunk_mut::<8>() {
                *head = block.to_be_bytes();
            }
            large.write_all(&noise)?;
        }
        for number in 0..SMALL_FILES {
            let folder = self.at("tree").join(format!("folder {}", number % 20));
            fs::create_dir_all(&folder)?;
            let length = number * SMALL_BYTES / SMALL_FILES;
            fs::write(
                folder.join(format!("file {number}")),
                noise.get(number..number + length).unwrap_or_default(),
            )?;
        }
        Ok(())
    }

    fn config(&self) -> String {
        let account = self
            .account
            .as_ref()
            .map_or_else(String::new, |account| format!("account = {:?}\n", account.name));
        format!(
            "state_dir = {:?}\n[ssh]\nlisten = [\"127.0.0.1:{}\"]\n[udp]\nports = \"0\"\n[https]\nlisten = []\n[[user]]\nname = \"demo\"\n\
             docroot = {:?}\nauthorized_keys = {:?}\npermissions = [\"read\", \"write\", \"list\"]\n{account}",
            self.at("state"),
            self.port,
            self.at("docroot"),
            self.at("authorized_keys"),
        )
    }

    fn start_server(&self) -> Result<Server, ServerError> {
        let step = "starting the server";
        let log = self.at("hauld.log");
        let child = Command::new("/proc/self/exe")
            .arg("serve")
            .arg("--config")
            .arg(self.at("hauld.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).map_err(failed(step))?)
            .spawn()
            .map_err(failed(step))?;
        let mut server = Server { child, log };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = server.child.try_wait().map_err(failed(step))?.is_some();
            if ended || Instant::now() > deadline {
                return Err(ServerError::Demo {
                    step,
                    reason: format!("it does not listen\n{}", server.stop()),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn transfer_all(&self) -> Result<(), ServerError> {
        let compare = failed("comparing digests");
        for (name, what) in [("large.bin", "256 MiB file"), ("tree", "tree of 400 files")] {
            let (sent, back) = (self.at(name), self.at("back"));
            fs::create_dir_all(&back).map_err(failed("making folders and keys"))?;
            let remote = format!("demo@127.0.0.1:/{name}");
            self.haul("uploading", what, &[sent.clone().into(), "demo@127.0.0.1:/".into()])?;
            self.haul("downloading", what, &[remote.into(), back.clone().into()])?;
            let (one, other) =
                (digest_of(&sent).map_err(&compare)?, digest_of(&back.join(name)).map_err(&compare)?);
            if one != other {
                let reason = format!("{what}: what came back is not what was sent");
                return Err(ServerError::Demo { step: "comparing digests", reason });
            }
        }
        Ok(())
    }

    /// Runs the client and prints what it reports.
    fn haul(&self, step: &'static str, what: &str, operands: &[OsString]) -> Result<(), ServerError> {
        let output = Command::new("/proc/self/exe")
            .arg(CLIENT)
            .args(["--json", "-F", "none", "-P", &self.port.to_string(), "-i"])
            .arg(self.at("key"))
            .arg("--known-hosts")
            .arg(self.at("known_hosts"))
            .args(operands)
            .stdin(Stdio::null())
            .env_remove("SSH_AUTH_SOCK")
            .output()
            .map_err(failed(step))?;
        let line = summary_line(&output)
            .ok_or_else(|| ServerError::Demo { step, reason: text_of(&output.stderr) })?;
        say(&format!("{step:<12}{what:<18}{line}"));
        Ok(())
    }
}

/// Reads the client's last JSON object: rate, carrier, round-trip time.
fn summary_line(output: &Output) -> Option<String> {
    let stdout = text_of(&output.stdout);
    let done: serde_json::Value = serde_json::from_str(stdout.lines().last()?).ok()?;
    if !output.status.success() || done.get("ok")?.as_bool() != Some(true) {
        return None;
    }
    let (bytes, seconds) = (done.get("bytes")?.as_f64()?, done.get("seconds")?.as_f64()?);
    let files = done.get("files")?.as_u64()?;
    let carrier = done.get("carrier")?.as_str()?;
    let rtt = done.get("rtt_ms").and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let rate = bytes * 8.0 / seconds.max(1e-6) / 1e6;
    Some(format!(
        "{files:>4} files {:>7.1} MB in {seconds:>5.2} s = {rate:>6.0} Mbit/s over {carrier}, rtt {rtt:.2} ms",
        bytes / 1e6
    ))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn unprivileged() -> Result<User, ServerError> {
    let found = UNPRIVILEGED.iter().find_map(|name| User::from_name(name).ok().flatten());
    found.filter(|user| !user.uid.is_root()).ok_or_else(|| ServerError::Demo {
        step: "finding an account without rights",
        reason: format!(
            "root needs one of {UNPRIVILEGED:?} for the worker; start the demonstration as a user"
        ),
    })
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

/// SHA-256 over names and content of a file or tree, in the order of names.
fn digest_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut context = digest::Context::new(&digest::SHA256);
    add_to_digest(path, &mut context)?;
    Ok(context.finish().as_ref().to_vec())
}

fn add_to_digest(path: &Path, context: &mut digest::Context) -> io::Result<()> {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        entries.sort();
        for entry in entries {
            context.update(entry.file_name().unwrap_or_default().as_encoded_bytes());
            add_to_digest(&entry, context)?;
        }
        return Ok(());
    }
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => context.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

/// The server process; it ends with this value.
struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Ends the server; its log.
    fn stop(self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
