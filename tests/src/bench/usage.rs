//! What processes use: CPU time and memory of a process and all its descendants, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use super::machine::{TICKS_PER_SECOND, first_number};

/// Columns of `/proc/PID/stat` behind the name: own time in user and kernel mode, and that of children that
/// have ended and were waited for.
const CPU_COLUMNS: [usize; 4] = [11, 12, 13, 14];

/// A process and all its living descendants.
#[must_use]
pub(super) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut looked_at = 0;
    while let Some(next) = family.get(looked_at).copied() {
        family.extend(children(next));
        looked_at += 1;
    }
    family
}

/// Seconds of CPU time that a process and all its descendants, living and dead, have used so far.
#[must_use]
pub(super) fn family_cpu(pid: u32) -> f64 {
    family(pid).into_iter().map(cpu).sum()
}

/// The largest memory that a process had resident so far.
#[must_use]
pub(super) fn peak_bytes(pid: u32) -> u64 {
    first_number(&format!("/proc/{pid}/status"), "VmHWM:") * 1024
}

/// Memory of a process, pages that others use too counted by share.
#[must_use]
pub(super) fn proportional_bytes(pid: u32) -> u64 {
    first_number(&format!("/proc/{pid}/smaps_rollup"), "Pss:") * 1024
}

/// Largest memory of each process of a family, as long as it is looked at often enough.
#[derive(Debug, Default)]
pub(super) struct PeakMemory(BTreeMap<u32, u64>);

impl PeakMemory {
    /// Looks at all descendants of `pid`, and at itself if `itself`.
    pub(super) fn look(&mut self, pid: u32, itself: bool) {
        for member in family(pid).into_iter().skip(usize::from(!itself)) {
            let peak = self.0.entry(member).or_default();
            *peak = peak_bytes(member).max(*peak);
        }
    }

    /// Of each process.
    pub(super) fn all(&self) -> impl Iterator<Item = u64> {
        self.0.values().copied()
    }

    /// Of the process that had most.
    #[must_use]
    pub(super) fn largest(&self) -> u64 {
        self.0.values().copied().max().unwrap_or(0)
    }
}

fn children(pid: u32) -> Vec<u32> {
    // Each thread lists the children it has started.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn cpu(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the fields begin behind the last closing one.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = CPU_COLUMNS.iter().filter_map(|column| fields.get(*column)?.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::harness::wait_until;

    #[test]
    fn the_work_of_ended_grandchildren_counts() {
        let script = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; read end";
        let mut child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let mut memory = PeakMemory::default();
        let worked = wait_until(Duration::from_secs(20), || {
            memory.look(child.id(), true);
            family_cpu(child.id()) >= 0.02
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(worked);
        assert!(memory.largest() > 100_000, "{memory:?}");
    }
}
