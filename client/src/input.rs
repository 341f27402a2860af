//! What the user says while the data moves: keys on a terminal, or with `--json` lines on standard input. A thread of its
//! own reads it, which ends with the input or the process. Not here: what is meant by it.
//!
//! On a terminal lines and echo are off meanwhile, and come back when [`Input`] is dropped; Ctrl-C keeps its meaning. A
//! process in the background leaves the terminal alone: reading from it would stop the process (termios(3), SIGTTIN).

use std::io::{IsTerminal as _, stdin};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use haul_proto::control::LineDecoder;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp};
use tokio::sync::mpsc;

use crate::config::Presentation;
use crate::rate_change::RateChange;

/// What waits to be acted on; beyond it the reader waits.
const WAITING: usize = 16;

/// How often the terminal is looked at again: a shell that continued the program may have changed it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Something the user said.
#[derive(Debug)]
pub(crate) enum Said {
    /// Other rate settings.
    Change(RateChange),
    /// Which keys there are.
    Help,
    /// Something without a meaning; why.
    Wrong(String),
}

/// The user's voice during a transfer.
#[derive(Debug)]
pub struct Input {
    said: mpsc::Receiver<Said>,
    terminal: Option<Arc<Terminal>>,
}

impl Input {
    /// Listens, if this run has somebody to listen to.
    #[must_use]
    pub fn open(presentation: &Presentation) -> Option<Self> {
        let keys = !presentation.json && !presentation.quiet;
        if keys && !(stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return None;
        }
        if !keys && !presentation.json {
            return None;
        }
        let terminal = stdin().is_terminal().then(|| Arc::new(Terminal::new(keys)));
        let (say, said) = mpsc::channel(WAITING);
        let of_thread = terminal.clone();
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || listen(keys, of_thread.as_deref(), &say))
            .inspect_err(|error| tracing::warn!(%error, "nobody listens to the input"))
            .ok()?;
        Some(Self { said, terminal })
    }

    /// What somebody else hears and passes on.
    pub(crate) const fn of(said: mpsc::Receiver<Said>) -> Self {
        Self { said, terminal: None }
    }

    /// The next thing said; `None` once the input has ended. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        self.said.recv().await
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(terminal) = &self.terminal {
            terminal.give_back();
        }
    }
}

/// Reads until the input ends or nobody listens any more.
fn listen(keys: bool, terminal: Option<&Terminal>, say: &mpsc::Sender<Said>) {
    // A read in the background then fails instead of stopping the process.
    if SigSet::from_iter([Signal::SIGTTIN, Signal::SIGTTOU]).thread_block().is_err() {
        return;
    }
    let mut decoder = LineDecoder::default();
    let mut buffer = [0; 4096];
    while !say.is_closed() {
        if terminal.is_some_and(|terminal| !terminal.take()) {
            thread::sleep(LOOK_AGAIN);
            continue;
        }
        let input = stdin();
        let mut waiting = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let pause = PollTimeout::try_from(LOOK_AGAIN).unwrap_or(PollTimeout::ZERO);
        if poll(&mut waiting, pause) == Ok(0) {
            continue;
        }
        let count = match read(input.as_fd(), &mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            // The process has just gone to the background.
            Err(Errno::EIO) if terminal.is_some() => {
                thread::sleep(LOOK_AGAIN);
                continue;
            }
            Err(_) => return,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        let heard = if keys { heard_keys(bytes) } else { heard_lines(&mut decoder, bytes) };
        if heard.into_iter().any(|said| say.blocking_send(said).is_err()) {
            return;
        }
    }
}

fn heard_keys(bytes: &[u8]) -> Vec<Said> {
    // Arrows and the like come as several bytes, which are no keys of ours.
    if bytes.first() == Some(&0x1b) {
        return Vec::new();
    }
    let said = |&key: &u8| match key {
        b'?' => Some(Said::Help),
        key => RateChange::of_key(key).map(Said::Change),
    };
    bytes.iter().filter_map(said).collect()
}

fn heard_lines(decoder: &mut LineDecoder, bytes: &[u8]) -> Vec<Said> {
    decoder.handle_bytes(bytes);
    let mut heard = Vec::new();
    loop {
        match decoder.poll_line() {
            Ok(None) => return heard,
            Ok(Some(line)) if line.trim_ascii().is_empty() => {}
            Ok(Some(line)) => {
                heard.push(RateChange::of_line(line.trim_ascii()).map_or_else(Said::Wrong, Said::Change));
            }
            Err(_) => heard.push(Said::Wrong("a line on standard input is too long".to_owned())),
        }
    }
}

/// The terminal that standard input is.
#[derive(Debug)]
struct Terminal {
    /// Lines and echo are to be off.
    keys: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Untouched,
    /// Ours; as it was before.
    Taken(Box<Termios>),
    GivenBack,
}

impl Terminal {
    const fn new(keys: bool) -> Self {
        Self { keys, state: Mutex::new(State::Untouched) }
    }

    /// Makes single keys come; `false` while the terminal is not ours to read.
    fn take(&self) -> bool {
        let mut state = self.state();
        if tcgetpgrp(stdin().as_fd()) != Ok(getpgrp()) {
            return false;
        }
        if !self.keys {
            return true;
        }
        let Ok(mut settings) = tcgetattr(stdin().as_fd()) else { return true };
        match &*state {
            State::GivenBack => return false,
            State::Taken(_) => {}
            State::Untouched => *state = State::Taken(Box::new(settings.clone())),
        }
        if !settings.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO) {
            return true;
        }
        settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        for (index, value) in [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0)] {
            if let Some(character) = settings.control_chars.get_mut(index as usize) {
                *character = value;
            }
        }
        let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, &settings);
        true
    }

    /// Leaves the terminal as it was, for good.
    fn give_back(&self) {
        let mut state = self.state();
        if let State::Taken(settings) = &*state
            && tcgetpgrp(stdin().as_fd()) == Ok(getpgrp())
        {
            let _ = tcsetattr(stdin().as_fd(), SetArg::TCSANOW, settings);
        }
        *state = State::GivenBack;
    }

    /// A panic elsewhere leaves a state that is still a state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_a_meaning_and_arrows_are_passed_over() {
        assert_eq!(heard_keys(b"q \n").len(), 0);
        assert_eq!(heard_keys(b"\x1b[A").len(), 0);
        assert!(matches!(heard_keys(b"+-?h")[..], [_, Said::Change(_), Said::Help, Said::Change(_)]));
    }

    #[test]
    fn lines_come_however_the_input_is_cut_and_bad_ones_do_not_end_it() {
        let text = b"{\"set_rate\":\"1m\"}\n\nnoise\n{\"set_policy\":\"low\"}\n";
        for step in [1, 5, text.len()] {
            let mut decoder = LineDecoder::default();
            let heard: Vec<Said> =
                text.chunks(step).flat_map(|bytes| heard_lines(&mut decoder, bytes)).collect();
            assert!(matches!(heard[..], [Said::Change(_), Said::Wrong(_), Said::Change(_)]), "{heard:?}");
        }
    }
}
