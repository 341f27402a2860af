//! Processes and ports of this machine.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long polls wait between looks.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Ports below the ephemeral range, so that no outgoing connection takes one meanwhile.
const LOWEST_PORT: u16 = 20_000;
const HIGHEST_PORT: u16 = 32_000;
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// Polls until `done` says true; false when `limit` has passed.
#[must_use]
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The first of `count` neighbouring ports that are free for TCP and UDP on loopback.
pub(super) fn free_ports(count: u16) -> u16 {
    let span = HIGHEST_PORT - LOWEST_PORT;
    for _ in 0..span / count {
        // Other test processes start elsewhere; two servers of this process never get the same block.
        let start = (std::process::id() as u16).wrapping_mul(61) % span;
        let n = (u32::from(start) + u32::from(NEXT_PORT.fetch_add(count, Ordering::Relaxed)))
            % u32::from(span - count);
        let first = LOWEST_PORT + n as u16;
        let free = |port| {
            TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        };
        if (first..first + count).all(free) {
            return first;
        }
    }
    panic!("no {count} neighbouring free ports on loopback");
}

/// Process ids of all descendants of `parent` whose command line contains `word`.
#[must_use]
pub fn children_of(parent: u32, word: &str) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name in parentheses may hold anything; state and parent follow the last closing one.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, ppid) = (fields.next(), fields.next().and_then(|field| field.parse::<u32>().ok()));
        if let (Some(state), Some(ppid)) = (state, ppid)
            && state != "Z"
        {
            parents.push((pid, ppid));
        }
    }
    let mut family = vec![parent];
    let mut looked_at = 0;
    while let Some(&next) = family.get(looked_at) {
        family.extend(parents.iter().filter(|(_, ppid)| *ppid == next).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    family.into_iter().skip(1).filter(|pid| command_line(*pid).contains(word)).collect()
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Runs a tool to its end.
pub(super) fn output_of(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("run {command:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_by_a_word_of_their_command_line() {
        let mut child = Command::new("sh").args(["-c", "sh -c 'sleep 60; : session-x'; :"]).spawn().unwrap();
        let mut found = Vec::new();
        let seen = wait_until(Duration::from_secs(5), || {
            found = children_of(child.id(), "session-x");
            found.len() == 1 && !children_of(found[0], "sleep").is_empty()
        });
        let all = children_of(std::process::id(), "60");
        for pid in children_of(child.id(), "") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
        }
        child.wait().unwrap();
        assert!(seen, "{found:?}");
        assert_eq!(all.len(), 3, "{all:?}");
    }

    #[test]
    fn blocks_of_ports_do_not_overlap() {
        let (a, b) = (free_ports(16), free_ports(16));
        assert!(a.abs_diff(b) >= 16, "{a} {b}");
    }
}
