//! Many `haul` processes at once, and when each of them did what. It reads their `--json` lines as they come.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Clients that have not been admitted yet, at a time. A server lets only so many connections of one source
/// be without a login (64), and takes others for a flood.
const STARTING: usize = 48;

/// What one client did.
#[derive(Debug, Clone)]
pub(super) struct Life {
    /// When the process was started.
    pub(super) spawned: Instant,
    /// When the server had agreed and data began to move.
    pub(super) started: Option<Instant>,
    /// How many bytes were done by when.
    pub(super) progress: Vec<(Instant, u64)>,
    /// When it ended, and why it failed if it did.
    pub(super) ended: Option<(Instant, Result<(), String>)>,
}

/// Running clients; killed on drop.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    child: Arc<Mutex<Child>>,
    life: Arc<(Mutex<Life>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Fleet {
    /// Starts all, a new one as soon as an earlier one has been admitted.
    ///
    /// # Errors
    /// When a process cannot be started or nothing moves until `limit`.
    pub(super) fn start(commands: Vec<Command>, limit: Duration) -> Result<Self, String> {
        let deadline = Instant::now() + limit;
        let mut fleet = Self::default();
        for (n, command) in commands.into_iter().enumerate() {
            if let Some(earlier) = n.checked_sub(STARTING) {
                fleet.clients[earlier].wait_started(deadline)?;
            }
            fleet.clients.push(Client::start(command).map_err(|error| format!("start client {n}: {error}"))?);
        }
        Ok(fleet)
    }

    /// Waits until data moves everywhere.
    ///
    /// # Errors
    /// When that does not happen until `limit` has passed.
    pub(super) fn wait_started(&self, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        self.clients.iter().try_for_each(|client| client.wait_started(deadline))
    }

    /// How the first one ended, if any has.
    pub(super) fn first_ended(&self) -> Option<Result<(), String>> {
        let ends = self.clients.iter().filter_map(|client| client.life().ended.clone());
        ends.min_by_key(|(at, _)| *at).map(|(_, outcome)| outcome)
    }

    /// Waits for the end of all.
    ///
    /// # Errors
    /// When one has not ended after `limit`; all are killed then.
    pub(super) fn finish(mut self, limit: Duration) -> Result<Vec<Life>, String> {
        let deadline = Instant::now() + limit;
        for client in &self.clients {
            client.wait(deadline, |life| life.ended.is_some())?;
        }
        for reader in self.clients.iter_mut().filter_map(|client| client.reader.take()) {
            reader.join().map_err(|_| "a reader panicked".to_owned())?;
        }
        Ok(self.clients.iter().map(|client| client.life().clone()).collect())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for client in &self.clients {
            let _ = client.child.lock().expect("nobody panics under this lock").kill();
        }
        for reader in self.clients.iter_mut().filter_map(|client| client.reader.take()) {
            let _ = reader.join();
        }
    }
}

impl Client {
    fn start(mut command: Command) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = Instant::now();
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let life = Life { spawned, started: None, progress: Vec::new(), ended: None };
        let (child, life) = (Arc::new(Mutex::new(child)), Arc::new((Mutex::new(life), Condvar::new())));
        let (its_child, its_life) = (Arc::clone(&child), Arc::clone(&life));
        let reader = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            let note = |change: &dyn Fn(&mut Life)| {
                change(&mut its_life.0.lock().expect("nobody panics under this lock"));
                its_life.1.notify_all();
            };
            for line in
                stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).map_while(Result::ok)
            {
                let now = Instant::now();
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                match event["event"].as_str() {
                    Some("start") => note(&|life| life.started = Some(now)),
                    Some("progress" | "done") => {
                        note(&|life| life.progress.push((now, event["bytes"].as_u64().unwrap_or(0))));
                    }
                    _ => {}
                }
            }
            let mut said = String::new();
            let _ = stderr.map(|mut stderr| stderr.read_to_string(&mut said));
            let status = its_child.lock().expect("nobody panics under this lock").wait();
            let outcome = match status {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("{status}: {}", said.trim().replace('\n', "; "))),
                Err(error) => Err(error.to_string()),
            };
            let now = Instant::now();
            note(&|life| life.ended = Some((now, outcome.clone())));
        })?;
        Ok(Self { child, life, reader: Some(reader) })
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.0.lock().expect("nobody panics under this lock")
    }

    fn wait_started(&self, deadline: Instant) -> Result<(), String> {
        self.wait(deadline, |life| life.started.is_some() || life.ended.is_some())
    }

    fn wait(&self, deadline: Instant, done: impl Fn(&Life) -> bool) -> Result<(), String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.life.1.wait_timeout_while(self.life(), left, |life| !done(life));
        let (life, _timeout) = waited.expect("nobody panics under this lock");
        if done(&life) { Ok(()) } else { Err("a session does not move or end".to_owned()) }
    }
}

impl Life {
    /// Bytes done at a moment, between two reports by straight line.
    #[must_use]
    pub(super) fn bytes_at(&self, moment: Instant) -> f64 {
        let begin = (self.started.unwrap_or(self.spawned), 0);
        let mut before = begin;
        for &(at, bytes) in &self.progress {
            if at >= moment {
                let whole = (at - before.0).as_secs_f64();
                let share = if whole > 0.0 {
                    moment.saturating_duration_since(before.0).as_secs_f64() / whole
                } else {
                    1.0
                };
                return before.1 as f64 + share * (bytes.saturating_sub(before.1)) as f64;
            }
            before = (at, bytes);
        }
        before.1 as f64
    }
}

/// Jain's index of fairness: 1 when all have the same, 1/n when one has all (Jain, Chiu, Hawe 1984).
#[must_use]
pub(super) fn fairness(rates: &[f64]) -> f64 {
    let (sum, squares) =
        rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
    if squares > 0.0 { sum * sum / (rates.len() as f64 * squares) } else { f64::NAN }
}

/// The rates of as many lives as possible over one time of this length in which all of them were active.
#[must_use]
pub(super) fn rates_together(lives: &[Life], length: Duration) -> Vec<f64> {
    let active = |life: &Life, from: Instant| {
        let ended = life.ended.as_ref().map(|(at, _)| *at);
        life.started.is_some_and(|at| at <= from) && ended.is_some_and(|at| at >= from + length)
    };
    let together = |from: Instant| lives.iter().filter(move |life| active(life, from));
    let moments = lives.iter().filter_map(|life| life.started);
    let Some(from) = moments.max_by_key(|from| together(*from).count()) else { return Vec::new() };
    let bytes = |life: &Life| life.bytes_at(from + length) - life.bytes_at(from);
    together(from).map(|life| bytes(life) / length.as_secs_f64()).collect()
}

/// The largest number of lives that were between start and end at one time.
#[must_use]
pub(super) fn most_at_once(lives: &[Life]) -> usize {
    let spans = lives.iter().filter_map(|life| Some((life.started?, life.ended.as_ref()?.0)));
    let mut changes: Vec<(Instant, i64)> = spans.flat_map(|(start, end)| [(start, 1), (end, -1)]).collect();
    changes.sort_unstable();
    let mut now = 0;
    changes
        .iter()
        .map(|(_, change)| {
            now += change;
            now
        })
        .max()
        .unwrap_or(0)
        .unsigned_abs() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shells(script: &str, count: usize) -> Vec<Command> {
        let shell = || {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        (0..count).map(|_| shell()).collect()
    }

    #[test]
    fn events_are_taken_as_they_come() {
        let script = r#"echo '{"event":"start"}'; echo '{"event":"progress","bytes":5}'; echo '{"event":"done","bytes":9}'"#;
        let lives = Fleet::start(shells(script, 60), LIMIT).unwrap().finish(LIMIT).unwrap();
        assert_eq!(lives.len(), 60);
        for life in &lives {
            assert_eq!(life.progress.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [5, 9]);
            assert!(matches!(life.ended, Some((_, Ok(())))));
            assert_eq!(life.bytes_at(Instant::now()), 9.0);
        }
        assert!(most_at_once(&lives) >= 1);
    }

    #[test]
    fn failures_and_standstills_are_told() {
        let lives = Fleet::start(shells("echo no >&2; exit 4", 1), LIMIT).unwrap().finish(LIMIT).unwrap();
        let Some((_, Err(why))) = &lives[0].ended else { panic!("{lives:?}") };
        assert!(why.ends_with(": no"), "{why}");
        let fleet = Fleet::start(shells("exec sleep 60", 1), LIMIT).unwrap();
        assert!(fleet.wait_started(Duration::from_millis(20)).is_err());
    }

    #[test]
    fn fairness_is_between_one_nth_and_one() {
        assert_eq!(fairness(&[3.0, 3.0]), 1.0);
        assert_eq!(fairness(&[5.0, 0.0, 0.0, 0.0]), 0.25);
    }
}
