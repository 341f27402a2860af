//! One run of `haul --json`, each line with the moment it came.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bench::command::{end_family, last_words};
use crate::harness::Way;

/// What an interrupted client gets to clear up.
const GRACE: Duration = Duration::from_secs(5);

/// A line of `--json`.
#[derive(Debug)]
pub(super) struct Said {
    /// When it was read.
    pub(super) at: Instant,
    /// The object.
    pub(super) value: Value,
}

impl Said {
    /// Which event it is.
    pub(super) fn event(&self) -> &str {
        self.value["event"].as_str().unwrap_or_default()
    }

    /// A number of it.
    pub(super) fn number(&self, name: &str) -> Option<f64> {
        self.value[name].as_f64()
    }
}

/// What a client said and how long it took.
#[derive(Debug)]
pub(super) struct Session {
    /// When it was started.
    pub(super) begun: Instant,
    /// When it had ended.
    pub(super) ended: Instant,
    said: Vec<Said>,
    /// All else it wrote.
    log: Vec<(Instant, String)>,
    complaint: Option<String>,
}

impl Session {
    /// Runs a client and hands each line to `hear` as it comes. After `limit` it is interrupted.
    ///
    /// # Errors
    /// When it cannot be run. That it fails is no error here; see `done`.
    pub(super) fn watch(
        mut command: Command,
        limit: Duration,
        mut hear: impl FnMut(&Said),
    ) -> Result<Self, String> {
        let begun = Instant::now();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("start: {error}"))?;
        let (sender, lines) = mpsc::channel();
        let readers = [
            child.stdout.take().map(|pipe| read(pipe, sender.clone())),
            child.stderr.take().map(|pipe| read(pipe, sender)),
        ];
        let (mut said, mut log) = (Vec::new(), Vec::new());
        let (mut left, mut late) = (limit, false);
        loop {
            match lines.recv_timeout(left.saturating_sub(begun.elapsed())) {
                Ok((at, line)) => match serde_json::from_str(&line) {
                    Ok(value) => {
                        let one = Said { at, value };
                        hear(&one);
                        said.push(one);
                    }
                    Err(_) => log.push((at, line)),
                },
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) if late => end_family(child.id(), true),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGINT);
                    (left, late) = (limit + GRACE, true);
                }
            }
        }
        let status = child.wait().map_err(|error| format!("wait: {error}"))?;
        let ended = Instant::now();
        readers.into_iter().flatten().for_each(|reader| drop(reader.join()));
        let told = || log.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
        let complaint = match (late, status.success()) {
            (true, _) => Some(format!("took longer than {} s", limit.as_secs())),
            (false, false) => Some(format!("{status}: {}", last_words(&told(), ""))),
            (false, true) => None,
        };
        Ok(Self { begun, ended, said, log, complaint })
    }

    /// All lines of one event.
    pub(super) fn events<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Said> {
        self.said.iter().filter(move |said| said.event() == name)
    }

    /// The last line of a client that succeeded.
    ///
    /// # Errors
    /// Why it did not.
    pub(super) fn done(&self) -> Result<&Said, String> {
        self.complaint.clone().map_or(Ok(()), Err)?;
        let done = self.said.last().filter(|said| said.event() == "done").ok_or("it did not say done")?;
        if done.value["ok"] == true { Ok(done) } else { Err(format!("it says: {}", done.value["error"])) }
    }

    /// When the log (`-v`) told of this.
    pub(super) fn logged(&self, words: &str) -> Option<Instant> {
        self.log.iter().find(|(_, line)| line.contains(words)).map(|(at, _)| *at)
    }

    /// When the server had agreed.
    pub(super) fn agreed(&self) -> Option<Instant> {
        self.events("start").next().map(|said| said.at)
    }

    /// When the first data packet left. The sender's rows tell how long that is ago; those of a server take half a
    /// round trip to get here.
    pub(super) fn first_data(&self, way: Way, rtt: Duration) -> Option<Instant> {
        let on_the_way = if way == Way::Down { rtt / 2 } else { Duration::ZERO };
        let begins = self.events("stats").filter_map(|row| {
            let age = Duration::try_from_secs_f64(row.number("seconds")?).ok()?;
            row.at.checked_sub(age + on_the_way)
        });
        begins.min()
    }
}

/// Hands on each line with the moment it came.
fn read(pipe: impl Read + Send + 'static, lines: Sender<(Instant, String)>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = lines.send((Instant::now(), line));
        }
    })
}
