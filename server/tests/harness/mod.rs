//! A server of our own in this process, with keys, and clients for it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use haul_server::config::Config;
use haul_server::https::Https;
use haul_server::listener::{self, Options};
use haul_server::{error::ServerError, host_key};
use russh::client;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, load_secret_key};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here takes: a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const USER: &str = "alice";

/// Runs a command and expects success.
pub(crate) fn must(program: &str, arguments: &[&str]) {
    let status = std::process::Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// A key pair in a folder, made by OpenSSH; returns the private file.
pub(crate) fn make_key(folder: &Path, kind: &str, name: &str) -> PathBuf {
    let path = folder.join(name);
    must("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", name, "-f", path.to_str().unwrap()]);
    path
}

/// The RSA key pair of all tests, files `rsa` and `rsa.pub`: making one takes a second.
fn rsa_key() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        make_key(folder.path(), "rsa", "rsa");
        folder
    });
    folder.path()
}

/// An executable script whose output goes where a worker's does: to the socket that is its standard input. Another process writes it: while this one had it open for writing, a fork of another test
/// could keep it so, and starting it would fail.
pub(crate) fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("worker");
    let command = format!("printf '%s' \"$1\" > {0} && chmod 755 {0}", path.display());
    must("/bin/sh", &["-c", &command, "sh", &format!("#!/bin/sh\nexec >&0\n{text}\n")]);
    path
}

/// Lines of a `[[user]]` that fit whoever runs the tests.
pub(crate) fn user_lines(name: &str, docroot: &Path, keys: &Path) -> String {
    let account = if nix::unistd::Uid::effective().is_root() { "account = \"nobody\"\n" } else { "" };
    format!(
        "[[user]]\nname = \"{name}\"\ndocroot = \"{}\"\nauthorized_keys = \"{}\"\npermissions = [\"read\"]\n{account}",
        docroot.display(),
        keys.display()
    )
}

pub(crate) struct Server {
    pub(crate) folder: TempDir,
    pub(crate) addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(
            tempfile::tempdir().unwrap(),
            Options::default().login_deadline,
            &["127.0.0.1:0"],
            None,
        )
        .await
    }

    /// A server whose workers are a shell script.
    pub(crate) async fn with_worker(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), text);
        Self::start_with(folder, Options::default().login_deadline, &["127.0.0.1:0"], Some(program)).await
    }

    pub(crate) async fn start_with(
        folder: TempDir,
        login_deadline: Duration,
        addresses: &[&str],
        worker: Option<PathBuf>,
    ) -> Self {
        let keys = folder.path().join("keys");
        let mut listed = String::new();
        for kind in ["ed25519", "ecdsa"] {
            make_key(folder.path(), kind, kind);
        }
        for file in ["rsa", "rsa.pub"] {
            std::fs::copy(rsa_key().join(file), folder.path().join(file)).unwrap();
        }
        for file in ["ed25519.pub", "ecdsa.pub", "rsa.pub"] {
            listed.push_str(&std::fs::read_to_string(folder.path().join(file)).unwrap());
        }
        make_key(folder.path(), "ed25519", "stranger");
        std::fs::write(&keys, listed).unwrap();
        let config = Config::parse(&user_lines(USER, folder.path(), &keys), "test".to_owned()).unwrap();
        let key = host_key::load_or_create(&folder.path().join("state")).unwrap();
        let listeners: Vec<_> =
            addresses.iter().map(|address| listener::bind(address.parse().unwrap()).unwrap()).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let worker_program = worker.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_hauld")));
        let options = Options { login_deadline, worker_program };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(listener::run(listeners, Https::default(), config, key, options, stopped));
        Self { folder, addresses, stop, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn secret(&self, name: &str) -> Arc<PrivateKey> {
        Arc::new(load_secret_key(self.key(name), None).unwrap())
    }

    /// Stops and expects the server to end.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        timeout(PATIENCE, self.task).await.expect("the server ends").unwrap().unwrap();
    }

    /// OpenSSH's client, with nothing of this machine's settings.
    pub(crate) async fn ssh(&self, key: &str, arguments: &[&str]) -> Output {
        let address = self.address();
        let mut command = Command::new("ssh");
        command
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "IdentityAgent=none",
            ])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .arg("-i")
            .arg(self.key(key))
            .args(["-p", &address.port().to_string(), "-l", USER, &address.ip().to_string()])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        timeout(PATIENCE, command.output()).await.expect("ssh ends").unwrap()
    }

    /// Our SSH library's client, before any login.
    pub(crate) async fn connect(&self) -> client::Handle<Trusting> {
        self.connect_with(client::Config::default()).await
    }

    async fn connect_with(&self, config: client::Config) -> client::Handle<Trusting> {
        let connecting = client::connect(Arc::new(config), self.address(), Trusting);
        timeout(PATIENCE, connecting).await.unwrap().unwrap()
    }

    /// The same, logged in.
    pub(crate) async fn login(&self) -> client::Handle<Trusting> {
        self.login_with(client::Config::default()).await
    }

    pub(crate) async fn login_with(&self, config: client::Config) -> client::Handle<Trusting> {
        let mut handle = self.connect_with(config).await;
        let key = PrivateKeyWithHashAlg::new(self.secret("ed25519"), None);
        assert!(handle.authenticate_publickey(USER, key).await.unwrap().success());
        handle
    }
}

/// Takes any host key.
pub(crate) struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}
