//! An OpenSSH server of our own, with its own keys and port, for the programs that work over ssh.

use std::fs::{self, File, Permissions};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::BenchError;
use super::bed::Place;
use super::machine::find_program;
use crate::harness::{make_key, wait_until};

/// Name under which clients know the server.
pub(super) const HOST: &str = "bench-host";
/// The fastest cipher of OpenSSH where the processor has AES.
pub(super) const CIPHER: &str = "aes128-gcm@openssh.com";

/// A running `sshd`; killed on drop.
#[derive(Debug)]
pub(super) struct Ssh {
    sshd: Child,
    client_config: PathBuf,
}

impl Ssh {
    /// Starts it with its files in `directory`. It takes root's login with a key made for it.
    ///
    /// # Errors
    /// When it does not come up.
    pub(super) fn start(directory: &Path, place: Option<&Place>) -> Result<Self, BenchError> {
        let at = |name: &str| directory.join(name);
        let program = find_program("sshd").ok_or_else(|| missing("sshd"))?;
        fs::create_dir_all(directory).map_err(BenchError::io("make a folder for sshd"))?;
        fs::create_dir_all("/run/sshd").map_err(BenchError::io("make /run/sshd"))?;
        make_key(&at("host_key"));
        make_key(&at("key"));
        let public = |error| BenchError::io("open a key file")(error);
        fs::set_permissions(at("key.pub"), Permissions::from_mode(0o644)).map_err(public)?;
        let (address, port) = (Place::address_of(place), free_port()?);
        let write = |name: &str, text: String| {
            fs::write(at(name), text).map_err(BenchError::io(format!("write {name}")))
        };
        let host_key = fs::read_to_string(at("host_key.pub")).map_err(BenchError::io("read host_key.pub"))?;
        write("known_hosts", format!("[{address}]:{port} {host_key}"))?;
        write("sshd_config", server_config(directory, address, port))?;
        write("ssh_config", client_config(directory, address, port))?;
        let log = File::create(at("sshd.log")).map_err(BenchError::io("write sshd.log"))?;
        let mut command = Place::far_command(place, &program);
        command.args(["-D", "-e", "-f"]).arg(at("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null());
        let sshd = command.stderr(log).spawn().map_err(BenchError::io("start sshd"))?;
        let started = Self { sshd, client_config: at("ssh_config") };
        if wait_until(Duration::from_secs(10), || Place::answers(place, port)) {
            return Ok(started);
        }
        let why = fs::read_to_string(at("sshd.log")).unwrap_or_default();
        Err(BenchError::Environment { what: "start sshd".to_owned(), why })
    }

    /// Process id of the daemon.
    #[must_use]
    pub(super) fn pid(&self) -> u32 {
        self.sshd.id()
    }

    /// The `ssh_config` that leads clients here.
    #[must_use]
    pub(super) fn config(&self) -> &Path {
        &self.client_config
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

/// A port that nobody listens on.
///
/// # Errors
/// When there is none.
pub(super) fn free_port() -> Result<u16, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(listener.map_err(BenchError::io("find a free port"))?.port())
}

/// For a program that is not there.
#[must_use]
pub(super) fn missing(program: &str) -> BenchError {
    BenchError::Environment { what: program.to_owned(), why: "not on PATH".to_owned() }
}

fn server_config(directory: &Path, address: IpAddr, port: u16) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        "ListenAddress {address}:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\nSubsystem sftp internal-sftp\n\
         Ciphers {CIPHER}\nUseDNS no\nPrintMotd no\n",
        at("host_key"),
        at("key.pub"),
    )
}

fn client_config(directory: &Path, address: IpAddr, port: u16) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        "Host {HOST}\nHostName {address}\nPort {port}\nUser root\nIdentityFile {}\nIdentitiesOnly yes\n\
         UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nCiphers {CIPHER}\n\
         Compression no\nLogLevel ERROR\n",
        at("key"),
        at("known_hosts"),
    )
}
