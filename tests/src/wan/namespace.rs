//! Network namespaces: made, entered and removed through `ip netns`, so that people can look into them.

use std::fs::{self, File};
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::WanError;

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "haul-";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pair of names nobody else uses: `haul-<pid>-<n>-a` and `-b`.
pub(super) fn unique_names() -> (String, String) {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let stem = format!("{PREFIX}{}-{n}", std::process::id());
    (format!("{stem}-a"), format!("{stem}-b"))
}

/// Removes the namespaces of emulators whose process is dead.
pub(super) fn remove_stale() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(pid) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// A namespace of our own; removed on drop.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with `lo` up.
    pub(super) fn create(name: &str) -> Result<Self, WanError> {
        if path(name).exists() {
            return Err(WanError::NamespaceExists(name.to_owned()));
        }
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` inside with one command a line.
    pub(super) fn ip_batch(&self, commands: &str) -> Result<(), WanError> {
        let what = || format!("ip -n {} -batch", self.name);
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| WanError::Io { what: what(), source })?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(commands.as_bytes()).map_err(|source| WanError::Io { what: what(), source })?;
        }
        let output = child.wait_with_output().map_err(|source| WanError::Io { what: what(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(WanError::Command { what: what(), message })
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets and devices opened there
    /// stay usable from everywhere.
    pub(super) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, WanError> {
        enter(&self.name, work)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs `work` on a thread of the named namespace and waits for it.
pub(super) fn enter<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> Result<T, WanError> {
    let inside = || -> io::Result<()> {
        let file = File::open(path(name))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
    };
    let result = std::thread::scope(|scope| scope.spawn(|| inside().map(|()| work())).join());
    match result {
        Ok(outcome) => outcome.map_err(|source| WanError::Io { what: format!("enter {name}"), source }),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn ip(arguments: &[&str]) -> Result<(), WanError> {
    let what = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| WanError::Io { what: what(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(WanError::Command {
        what: what(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
