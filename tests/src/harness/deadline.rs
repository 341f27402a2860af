//! No test may hang: a run that waits for ever tells nobody which test it was.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Far beyond the slowest scenario (20 s), so that a loaded machine does not reach it.
const LIMIT: Duration = Duration::from_secs(300);

/// While it lives, a test runs; if it lives too long the whole run ends, naming the test.
#[derive(Debug)]
pub(super) struct Deadline {
    /// Dropped with this, which the watching thread sees.
    _alive: Sender<()>,
}

impl Deadline {
    /// For the test of the calling thread.
    pub(super) fn start() -> Self {
        let (alive, ended) = mpsc::channel::<()>();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        thread::spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} did not end within {} s", LIMIT.as_secs());
                std::process::abort();
            }
        });
        Self { _alive: alive }
    }
}
