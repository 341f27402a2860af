//! Runs one command to its end and tells what it took: time, CPU and memory of both sides.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::machine::CoreTime;
use super::report::Figures;
use super::usage::{PeakMemory, family, family_cpu};
use crate::harness::wait_until;

/// How often memory is looked at; one look costs some 0.1 ms.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Until the last process of a session has gone from a server.
const SETTLE: Duration = Duration::from_secs(20);
/// Bytes of what a failed command said that are told.
const TOLD_BYTES: usize = 200;

/// A command to be measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// The client; its output is kept.
    pub(super) command: Command,
    /// The daemon it talks to.
    pub(super) server: Option<u32>,
    /// File bytes that it moves.
    pub(super) bytes: u64,
    /// It is killed when it takes longer.
    pub(super) limit: Duration,
}

/// What it took and said.
#[derive(Debug)]
pub(super) struct Ran {
    /// The figures: time, rate, CPU and memory.
    pub(super) figures: Figures,
    /// What it wrote to stdout.
    pub(super) stdout: String,
}

impl Measured {
    /// With the usual limit.
    #[must_use]
    pub(super) fn new(command: Command, server: Option<u32>, bytes: u64) -> Self {
        Self { command, server, bytes, limit: Duration::from_secs(300) }
    }

    /// Runs it.
    ///
    /// # Errors
    /// Why it failed, in one line.
    pub(super) fn run(mut self) -> Result<Ran, String> {
        let daemon_size = self.server.map_or(0, |pid| family(pid).len());
        let output = || tempfile::tempfile().map_err(|error| format!("make a temporary file: {error}"));
        let (mut stdout, mut stderr) = (output()?, output()?);
        let (out, err) = (stdout.try_clone(), stderr.try_clone());
        let cannot = |error: io::Error| format!("keep its output: {error}");
        self.command.stdin(Stdio::null()).stdout(out.map_err(cannot)?).stderr(err.map_err(cannot)?);

        let machine = CoreTime::now();
        let (client_cpu, server_cpu) = (children_cpu(), self.server.map_or(0.0, family_cpu));
        let begun = Instant::now();
        let child = self.command.spawn().map_err(|error| format!("start: {error}"))?;
        let watched = watch(child, self.server, begun, self.limit)?;
        // The session ends at the server a moment after the client has.
        let machine = machine.until_now();
        let settled = self.server.map_or(Ok(()), |pid| settle(pid, daemon_size));

        let seconds = watched.elapsed.as_secs_f64();
        let client_cpu = (children_cpu() - client_cpu).max(0.0);
        let server_cpu = self.server.map_or(0.0, family_cpu) - server_cpu;
        let mut figures = Figures::from([
            ("seconds", seconds),
            ("rate_gbit", self.bytes as f64 * 8.0 / seconds / 1e9),
            ("client_cpu_s", client_cpu),
            ("client_peak_bytes", watched.client.largest() as f64),
            ("machine_busy_s", machine.busy),
            ("machine_stolen_s", machine.stolen),
            ("other_cores", (machine.busy - client_cpu - server_cpu) / seconds),
        ]);
        if self.server.is_some() {
            figures.insert("server_cpu_s", server_cpu);
            figures.insert("server_peak_bytes", watched.server.largest() as f64);
        }
        per_gigabyte(&mut figures, self.bytes);
        let (stdout, stderr) = (text(&mut stdout), text(&mut stderr));
        if watched.late {
            return Err(format!("took longer than {} s", self.limit.as_secs()));
        }
        if !watched.status.success() {
            return Err(format!("{}: {}", watched.status, last_words(&stderr, &stdout)));
        }
        settled.map(|()| Ran { figures, stdout })
    }
}

/// Waits until a server has no more processes than it had before.
///
/// # Errors
/// When sessions stay.
pub(super) fn settle(daemon: u32, before: usize) -> Result<(), String> {
    if wait_until(SETTLE, || family(daemon).len() <= before) {
        return Ok(());
    }
    Err(format!("its session is still there {} s after its end", SETTLE.as_secs()))
}

/// How a command is written in a report.
#[must_use]
pub(super) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

struct Watched {
    status: ExitStatus,
    elapsed: Duration,
    late: bool,
    client: PeakMemory,
    server: PeakMemory,
}

/// Waits for the end; a second thread looks at memory and at the clock meanwhile.
fn watch(mut child: Child, server: Option<u32>, begun: Instant, limit: Duration) -> Result<Watched, String> {
    let pid = child.id();
    // True while the process id is the child's own: a signal then reaches nobody else.
    let alive = Mutex::new(true);
    let (late, client, server, elapsed) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut client, mut daemon) = (PeakMemory::default(), PeakMemory::default());
            let mut late = false;
            while *alive.lock().expect("nobody panics under this lock") {
                client.look(pid, true);
                if let Some(server) = server {
                    daemon.look(server, false);
                }
                if begun.elapsed() > limit && !late {
                    late = true;
                    end_family(pid, true);
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
            (late, client, daemon)
        });
        let _ = waitid(Id::Pid(Pid::from_raw(pid as i32)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let elapsed = begun.elapsed();
        *alive.lock().expect("nobody panics under this lock") = false;
        watcher.thread().unpark();
        let (late, client, daemon) = watcher.join().expect("the watcher does not panic");
        (late, client, daemon, elapsed)
    });
    let status = child.wait().map_err(|error| format!("wait: {error}"))?;
    Ok(Watched { status, elapsed, late, client, server })
}

/// Kills all descendants of a process, and the process itself if `itself`.
pub(super) fn end_family(pid: u32, itself: bool) {
    for member in family(pid).into_iter().skip(usize::from(!itself)).rev() {
        let _ = kill(Pid::from_raw(member as i32), Signal::SIGKILL);
    }
}

fn per_gigabyte(figures: &mut Figures, bytes: u64) {
    let gigabytes = bytes as f64 / 1e9;
    for (seconds, rate) in [("client_cpu_s", "client_cpu_s_per_gb"), ("server_cpu_s", "server_cpu_s_per_gb")]
    {
        if let Some(seconds) = figures.get(seconds).copied() {
            figures.insert(rate, seconds / gigabytes);
        }
    }
}

/// Seconds of CPU time of all children that have ended and were waited for.
pub(super) fn children_cpu() -> f64 {
    cpu_of(UsageWho::RUSAGE_CHILDREN)
}

/// Seconds of CPU time of this process, without children.
pub(super) fn own_threads_cpu() -> f64 {
    cpu_of(UsageWho::RUSAGE_SELF)
}

fn cpu_of(who: UsageWho) -> f64 {
    let Ok(usage) = getrusage(who) else { return 0.0 };
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6).sum()
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines a failed command wrote, as one short line that a table bears.
pub(super) fn last_words(stderr: &str, stdout: &str) -> String {
    let said = if stderr.trim().is_empty() { stdout } else { stderr };
    let line = said.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("; ");
    let line: String = line.chars().filter(|c| !c.is_control() && *c != '|').collect();
    let skip = line.chars().count().saturating_sub(TOLD_BYTES);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Measured {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Measured::new(command, None, 1_000_000_000)
    }

    #[test]
    fn failures_are_told_in_the_commands_words() {
        let error = shell("echo fine; echo no such thing >&2; exit 3").run().unwrap_err();
        assert!(error.contains("3") && error.ends_with("no such thing"), "{error}");
        let slow = Measured { limit: Duration::from_millis(30), ..shell("sleep 60 & wait") };
        assert_eq!(slow.run().unwrap_err(), "took longer than 0 s");
    }

    #[test]
    fn time_cpu_and_output_are_taken() {
        let ran = shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo out").run().unwrap();
        assert_eq!(ran.stdout, "out\n");
        let cpu = ran.figures["client_cpu_s"];
        assert!(cpu > 0.0 && cpu <= ran.figures["seconds"] * 1.2, "{:?}", ran.figures);
        assert!(ran.figures["client_peak_bytes"] > 100_000.0, "{:?}", ran.figures);
    }
}
