//! The machine that is measured on: what it is, and whether it is quiet enough.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::BenchError;

/// How long other load is watched before a measurement.
const WATCH: Duration = Duration::from_secs(1);
/// How often, at most.
const WATCHES: usize = 3;
/// More of other load than this many cores makes figures worthless on a small machine.
pub(super) const OTHER_LOAD_CORES: f64 = 0.2;
/// `/proc` counts CPU time in these (`USER_HZ`, the same on all Linux machines of today).
pub(super) const TICKS_PER_SECOND: f64 = 100.0;

/// Programs whose version belongs to a result, and how they are asked for it.
const PROGRAMS: [(&str, &str); 9] = [
    ("haul", "--version"),
    ("hauld", "--version"),
    ("ssh", "-V"),
    ("rsync", "--version"),
    ("qcp", "--version"),
    ("curl", "--version"),
    ("nginx", "-v"),
    ("openssl", "version"),
    ("tar", "--version"),
];

/// What all cores have not done up to a moment. Idle time is counted exactly; the time of programs in
/// `/proc/stat` is sampled, and misses short bursts.
#[derive(Debug, Clone, Copy)]
pub(super) struct CoreTime {
    at: Instant,
    idle: f64,
    stolen: f64,
}

/// What all cores did in a time, in seconds of one core.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Spent working: for programs, the kernel and interrupts.
    pub(super) busy: f64,
    /// Taken by the host for other machines.
    pub(super) stolen: f64,
    /// How long it was.
    pub(super) seconds: f64,
}

impl CoreTime {
    /// Up to now.
    #[must_use]
    pub(super) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let columns = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks: Vec<f64> = columns.map(|column| column.parse().unwrap_or(0.0)).collect();
        // user nice system idle iowait irq softirq steal
        let seconds = |column: usize| ticks.get(column).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
        Self { at: Instant::now(), idle: seconds(3) + seconds(4), stolen: seconds(7) }
    }

    /// From this moment until now.
    #[must_use]
    pub(super) fn until_now(self) -> Work {
        let now = Self::now();
        let stolen = now.stolen - self.stolen;
        let seconds = (now.at - self.at).as_secs_f64();
        let all = seconds * cores() as f64;
        Work { busy: (all - (now.idle - self.idle) - stolen).max(0.0), stolen, seconds }
    }
}

/// Watches the machine; this process does nothing meanwhile. What has just ended may need a moment to go.
///
/// # Errors
/// When others use it.
pub(super) fn check_quiet() -> Result<(), BenchError> {
    let mut cores = 0.0;
    for _ in 0..WATCHES {
        let before = CoreTime::now();
        std::thread::sleep(WATCH);
        cores = before.until_now().busy / WATCH.as_secs_f64();
        if cores <= OTHER_LOAD_CORES {
            return Ok(());
        }
    }
    Err(BenchError::Busy { cores })
}

/// Looks whether the programs are there without which nothing but the ceiling can be measured.
///
/// # Errors
/// Which is missing, and where it comes from.
pub(super) fn check_programs() -> Result<(), BenchError> {
    let own = std::env::current_exe().map_err(BenchError::io("find this program"))?;
    for name in ["haul", "hauld"] {
        if !own.with_file_name(name).is_file() {
            let why = "not built; run: cargo build --release --bins".to_owned();
            return Err(BenchError::Environment { what: name.to_owned(), why });
        }
    }
    for name in ["ssh-keygen", "ssh-keyscan"] {
        if find_program(name).is_none() {
            let why = "not on PATH; install the OpenSSH client".to_owned();
            return Err(BenchError::Environment { what: name.to_owned(), why });
        }
    }
    Ok(())
}

/// Number of cores.
#[must_use]
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// What a reader of the figures must know of the machine and the programs.
#[must_use]
pub(super) fn describe() -> Value {
    let memory_kib = first_number("/proc/meminfo", "MemTotal");
    let programs: Map<String, Value> = PROGRAMS
        .iter()
        .map(|(name, option)| ((*name).to_owned(), version(name, option).map_or(Value::Null, Value::from)))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "unix_time": now.as_secs(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "cpu": cpu_model(),
        "cores": cores(),
        "memory_bytes": memory_kib * 1024,
        "rmem_max_bytes": setting("/proc/sys/net/core/rmem_max"),
        "commit": commit(),
        "programs": programs,
    })
}

/// The description in one line.
#[must_use]
pub(super) fn summary(machine: &Value) -> String {
    format!(
        "{} x {}, {:.0} GiB, Linux {}, commit {}",
        machine["cores"],
        machine["cpu"].as_str().unwrap_or("?"),
        machine["memory_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 30),
        machine["kernel"].as_str().unwrap_or("?"),
        machine["commit"].as_str().unwrap_or("?"),
    )
}

/// A program on PATH, where administrators' programs live, or built beside this one.
#[must_use]
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = name.starts_with("haul").then_some(beside);
    let places =
        own.into_iter().chain(std::env::split_paths(&path)).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|candidate| candidate.is_file())
}

fn version(name: &str, option: &str) -> Option<String> {
    let output = Command::new(find_program(name)?).arg(option).stdin(Stdio::null()).output().ok()?;
    // ssh and nginx tell it on stderr.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()))?;
    Some(line.trim().to_owned())
}

/// The commit that was built here, with a word when files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if !changes.is_empty() => format!("{head} with changes"),
        _ => head,
    }
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The number in the first line that starts with `key`.
pub(super) fn first_number(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn setting(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
