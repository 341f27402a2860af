//! Runs `haul` and keeps what it said.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::process::wait_until;
use super::server::{Server, read_log};
use super::{program, scratch};
use crate::wan;

/// How long a client may take unless a test says otherwise.
const USUAL_LIMIT: Duration = Duration::from_secs(60);
/// What could lead a client away from the test.
const FOREIGN_ENVIRONMENT: &[&str] = &[
    "SSH_AUTH_SOCK",
    "ASPERA_SCP_PASS",
    "ASPERA_SCP_TOKEN",
    "ASPERA_SCP_COOKIE",
    "ASPERA_SCP_KEY",
    "HAUL_KEY",
    "HAUL_PASSPHRASE",
    "HAUL_PASSWORD",
    "HAUL_SSH_COMMAND",
    "http_proxy",
    "https_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
];

/// A `haul` command being put together.
#[derive(Debug, Clone)]
pub struct Client {
    name: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    namespace: Option<String>,
    working_directory: Option<PathBuf>,
    listens: bool,
    limit: Duration,
    server_log: PathBuf,
}

impl Client {
    /// `haul`, without arguments and with no home.
    #[must_use]
    pub fn alone() -> Self {
        let client = Self {
            name: "haul",
            arguments: Vec::new(),
            environment: Vec::new(),
            namespace: None,
            working_directory: None,
            listens: false,
            limit: USUAL_LIMIT,
            server_log: PathBuf::new(),
        };
        client.env("HOME", "/nonexistent")
    }

    /// `haul -P PORT -i KEY --known-hosts FILE`, for this server.
    #[must_use]
    pub fn new(server: &Server) -> Self {
        Self { server_log: server.log_file(), ..Self::alone() }
            .arg("-P")
            .arg(server.port().to_string())
            .arg("-i")
            .arg(server.key())
            .arg("--known-hosts")
            .arg(server.known_hosts())
            .env("HOME", server.home())
    }

    /// Calls the program by this name, which decides about its manners; not in a namespace.
    #[must_use]
    pub fn called(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs in a network namespace, such as `wan.a()`.
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// Runs in a directory.
    #[must_use]
    pub fn in_directory(mut self, path: &Path) -> Self {
        self.working_directory = Some(path.to_owned());
        self
    }

    /// Gives it a standard input that [`Running::say`] writes to; otherwise it has none.
    #[must_use]
    pub fn listening(mut self) -> Self {
        self.listens = true;
        self
    }

    /// Fails the test when it takes longer.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When the time limit passes; the message holds all logs.
    #[must_use]
    pub fn run(&self) -> Outcome {
        self.spawn().wait()
    }

    /// The command as it will be run, for callers that start it themselves.
    #[must_use]
    pub fn command(&self) -> Command {
        let haul = program("haul");
        let mut command = match &self.namespace {
            Some(namespace) => wan::command_in(namespace, &haul.to_string_lossy()),
            None => Command::new(haul),
        };
        if self.namespace.is_none() {
            command.arg0(self.name);
        }
        command.args(&self.arguments);
        for name in FOREIGN_ENVIRONMENT {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(path) = &self.working_directory {
            command.current_dir(path);
        }
        command
    }

    /// Starts and returns at once.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self) -> Running {
        let directory = scratch();
        let file = |name| File::create(directory.path().join(name)).expect("our own directory is writable");
        let mut command = self.command();
        command.stdin(if self.listens { Stdio::piped() } else { Stdio::null() });
        command.stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Running {
            child,
            directory,
            started: Instant::now(),
            limit: self.limit,
            line: format!("{command:?}"),
            server_log: self.server_log.clone(),
        }
    }
}

/// A `haul` that runs; killed on drop.
#[derive(Debug)]
pub struct Running {
    child: Child,
    directory: TempDir,
    started: Instant,
    limit: Duration,
    line: String,
    server_log: PathBuf,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read_log(&self.directory.path().join("stdout"))
    }

    /// What it has written to stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read_log(&self.directory.path().join("stderr"))
    }

    /// The JSON lines it has written to stdout so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        parse_events(&self.stdout())
    }

    /// True once it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be waited for").is_some()
    }

    /// Polls until `done` says true.
    ///
    /// # Panics
    /// When that does not happen before the time limit or the client's end.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let mut ended = false;
        let seen = wait_until(self.limit, || {
            ended = self.has_ended();
            done(self) || ended
        });
        assert!(seen && (!ended || done(self)), "{what}: did not happen\n{}", self.story());
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// When it has none, or does not take it.
    pub fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("it was made listening");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("its standard input is open");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid() as i32), signal);
    }

    /// Kills it with SIGKILL and waits.
    #[must_use]
    pub fn kill(mut self) -> Outcome {
        let _ = self.child.kill();
        let status = self.child.wait().expect("our own child can be waited for");
        self.outcome(status)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When the time limit passes; the message holds all logs.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        let mut status = None;
        let left = self.limit.saturating_sub(self.started.elapsed());
        let ended = wait_until(left, || {
            status = self.child.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
            panic!("haul took longer than {:?}\n{}", self.limit, self.story());
        }
        self.outcome(status.expect("just seen"))
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        let stdout = self.stdout();
        Outcome {
            status,
            events: parse_events(&stdout),
            stdout,
            stderr: self.stderr(),
            elapsed: self.started.elapsed(),
            story: self.story(),
        }
    }

    fn story(&self) -> String {
        format!(
            "command: {}\nstdout:\n{}\nstderr:\n{}\nlog of hauld:\n{}",
            self.line,
            self.stdout(),
            self.stderr(),
            read_log(&self.server_log)
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a `haul` that has ended left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// The lines of stdout that are JSON objects.
    pub events: Vec<Value>,
    /// Time from start to end.
    pub elapsed: Duration,
    story: String,
}

impl Outcome {
    /// The exit code; none after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Command, output and server log, for failure messages.
    #[must_use]
    pub fn story(&self) -> &str {
        &self.story
    }

    /// Events whose member `key` is the string `value`.
    pub fn events_with<'a>(&'a self, key: &'a str, value: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event.get(key).and_then(Value::as_str) == Some(value))
    }

    /// The last line of `--json`.
    ///
    /// # Panics
    /// When it is missing or not the announced object.
    #[must_use]
    #[track_caller]
    pub fn done(&self) -> &Value {
        let last = self.events.last().unwrap_or_else(|| panic!("no JSON on stdout\n{}", self.story));
        assert_eq!(last["event"], "done", "the last line\n{}", self.story);
        last
    }

    /// Fails unless it ended with this exit code and said on stderr in one line what is wrong, and in at
    /// most one more what to do, with all of `words`.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "called for its assertion; the return value is for chaining"
    )]
    pub fn assert_refused(&self, code: i32, words: &[&str]) -> &Self {
        self.assert_code(code);
        let lines: Vec<&str> = self.stderr.lines().collect();
        let clear = match lines.as_slice() {
            [what] => what.starts_with("haul: "),
            [what, remedy] => what.starts_with("haul: ") && remedy.starts_with("  "),
            _ => false,
        };
        assert!(clear, "stderr is not one line and a remedy\n{}", self.story);
        for word in words {
            assert!(self.stderr.contains(word), "stderr does not say {word:?}\n{}", self.story);
        }
        self
    }

    /// Fails with everything that was said unless it succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "called for its assertion; the return value is for chaining"
    )]
    pub fn assert_success(&self) -> &Self {
        assert!(self.status.success(), "haul failed: {}\n{}", self.status, self.story);
        self
    }

    /// Fails unless it ended with this exit code.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    #[allow(
        clippy::must_use_candidate,
        reason = "called for its assertion; the return value is for chaining"
    )]
    pub fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), Some(code), "exit code of haul: {}\n{}", self.status, self.story);
        self
    }
}

fn parse_events(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
