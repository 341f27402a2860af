//! Skip accounting: a scenario names what it needs; what is missing is said aloud and counted.
//!
//! With `CI` or `HAUL_REQUIRE_ALL` set, a missing need is a failure. Else the skip is printed and appended
//! to the existing file named by `HAUL_SKIP_FILE`, where `tests/all` counts it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

/// True when everything is there. `needs` are programs, or the words `root`, `tun` and `ipv6`.
///
/// # Panics
/// When something is missing and `CI` or `HAUL_REQUIRE_ALL` is set.
#[must_use]
pub fn require(test: &str, needs: &[&str]) -> bool {
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !present(need)).collect();
    if missing.is_empty() {
        return true;
    }
    let why = format!("missing: {}", missing.join(", "));
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    assert!(!set("CI") && !set("HAUL_REQUIRE_ALL"), "{test}: {why}; run ./tests/all, which installs it");
    let line = format!("skipped: {test}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("HAUL_SKIP_FILE")
        && let Ok(mut file) = OpenOptions::new().append(true).open(path)
    {
        let _ = file.write_all(line.as_bytes());
    }
    false
}

/// What every scenario with a WAN needs.
pub const WAN: &[&str] = &["root", "tun", "ip"];

fn present(need: &str) -> bool {
    match need {
        "root" => nix::unistd::geteuid().is_root(),
        "tun" => OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok(),
        "ipv6" => crate::harness::has_ipv6_loopback(),
        tool => program_exists(tool),
    }
}

/// Looks in PATH and where administration tools live, as an ordinary user's PATH may lack those.
fn program_exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).collect::<Vec<_>>();
    directories.extend(["/usr/sbin", "/sbin"].map(Into::into));
    directories.iter().any(|directory| Path::new(directory).join(name).is_file())
}
