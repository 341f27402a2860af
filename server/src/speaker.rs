//! The worker's voice to its client: whole lines, from several threads. Not here: what is said.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use haul_proto::control::{ServerMessage, encode_line};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Says messages; clones speak to the same client.
#[derive(Debug, Clone)]
pub(crate) struct Speaker(Arc<Mutex<File>>);

impl Speaker {
    pub(crate) fn new(output: File) -> Self {
        Self(Arc::new(Mutex::new(output)))
    }

    /// Waits until the client takes it. One that is gone hears nothing, and the end of its input tells us so elsewhere.
    pub(crate) fn say(&self, message: &ServerMessage) {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = output.write_all(&encode_line(message));
    }

    /// Says what is no line, whole.
    pub(crate) fn say_bytes(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)
    }

    /// Says a short message if there is room for it at once. `false` if a slow client leaves none.
    pub(crate) fn try_say(&self, message: &ServerMessage) -> bool {
        let mut output = match self.0.try_lock() {
            Ok(output) => output,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let mut waiting = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
        // Writable means room for a page in a pipe (pipe(7)), for more in a socket: enough for a line of rates.
        if poll(&mut waiting, PollTimeout::ZERO) != Ok(1) {
            return false;
        }
        let _ = output.write_all(&encode_line(message));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use haul_proto::control::RateGrant;

    use super::*;

    #[test]
    fn a_client_that_does_not_read_is_not_waited_for_and_gets_whole_lines_later() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let speaker = Speaker::new(File::from(OwnedFd::from(ours)));
        let message =
            ServerMessage::Rate(RateGrant { changes: vec!["so".repeat(50)], ..RateGrant::default() });
        let said = (0..100_000).take_while(|_| speaker.try_say(&message)).count();
        assert!((10..100_000).contains(&said), "{said}");
        drop(speaker);
        let lines: Vec<String> = BufReader::new(theirs).lines().map(Result::unwrap).collect();
        assert_eq!(lines.len(), said);
        let whole = |line: &String| serde_json::from_str::<ServerMessage>(line).unwrap() == message;
        assert!(lines.iter().all(whole));
    }
}
