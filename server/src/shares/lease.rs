//! What a worker and `hauld` tell each other about the share of its session: datagrams of JSON on a socket pair of their
//! own. Each says all there is to say, so that a lost one is made good by the next. Here are the messages, and the worker's
//! end; the other end is the [`broker`](super::broker).

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use haul_proto::control::{Direction, RatePolicy};
use haul_proto::units::Rate;
use nix::sys::socket::{MsgFlags, send};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest message, bytes. A cut one is no JSON any more.
pub(super) const MAX_MESSAGE_BYTES: usize = 1024;

/// A worker waits so long for its first share. `hauld` answers within a millisecond unless the machine is overloaded.
const FIRST_SHARE: Duration = Duration::from_secs(5);

/// What a worker tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Which way the data goes.
    pub(crate) direction: Direction,
    /// How it is weighed beside others.
    pub(crate) policy: RatePolicy,
    /// The most it wants; none wants all.
    pub(crate) target: Option<Rate>,
    /// How fast it is on the wire; none before the data moves.
    pub(crate) rate: Option<Rate>,
    /// Round-trip time of its path, milliseconds.
    pub(crate) rtt_ms: Option<u32>,
}

/// What `hauld` answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Share {
    /// The most the session may use now; none is not limited.
    pub(crate) rate: Option<Rate>,
    /// The tightest of the caps it is under, and the sentence for the user.
    pub(crate) cap: Option<Rate>,
    pub(crate) reason: Option<String>,
}

/// Why a message cannot be used.
#[derive(Debug, Error)]
pub(crate) enum LeaseError {
    /// The socket failed.
    #[error("the socket between hauld and its worker failed")]
    Socket(#[source] io::Error),
    /// No JSON, or not this one.
    #[error("a message between hauld and its worker is malformed")]
    Malformed(#[source] serde_json::Error),
}

pub(super) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, LeaseError> {
    serde_json::from_slice(bytes).map_err(LeaseError::Malformed)
}

pub(super) fn encode<M: Serialize>(message: &M) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Lease {
    socket: UnixDatagram,
}

impl Lease {
    pub(crate) const fn new(socket: UnixDatagram) -> Self {
        Self { socket }
    }

    /// Reports, and never waits: a report that finds no room is followed by another soon.
    pub(crate) fn report(&self, report: &Report) {
        let _ = send(self.socket.as_raw_fd(), &encode(report), MsgFlags::MSG_DONTWAIT);
    }

    /// Reports for the first time and waits for the answer.
    ///
    /// # Errors
    /// If none comes in time.
    pub(crate) fn first_share(&self, report: &Report) -> Result<Share, LeaseError> {
        self.socket.set_read_timeout(Some(FIRST_SHARE)).map_err(LeaseError::Socket)?;
        self.report(report);
        let share = self.next_share();
        self.socket.set_read_timeout(None).map_err(LeaseError::Socket)?;
        share
    }

    /// Waits for the next share; for ever if `hauld` is gone.
    ///
    /// # Errors
    /// If the socket fails, or the message is malformed.
    pub(crate) fn next_share(&self) -> Result<Share, LeaseError> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let count = self.socket.recv(&mut buffer).map_err(LeaseError::Socket)?;
        decode(buffer.get(..count).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            direction: Direction::Upload,
            policy: RatePolicy::High,
            target: None,
            rate: None,
            rtt_ms: None,
        }
    }

    #[test]
    fn a_report_and_its_answer_pass_and_a_worker_without_hauld_goes_on() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let lease = Lease::new(theirs);
        let share = Share { rate: Some(Rate::from_bps(7)), cap: None, reason: Some("so".to_owned()) };
        ours.send(&encode(&share)).unwrap();
        assert_eq!(lease.first_share(&report()).unwrap(), share);
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let count = ours.recv(&mut buffer).unwrap();
        assert_eq!(decode::<Report>(&buffer[..count]).unwrap(), report());
        // Nobody takes the reports: none of them blocks.
        (0..10_000).for_each(|_| lease.report(&report()));
        drop(ours);
        (0..10).for_each(|_| lease.report(&report()));
    }

    #[test]
    fn what_is_no_message_is_a_typed_error() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let lease = Lease::new(theirs);
        for bytes in [&b""[..], b"\xff\x00", b"{\"rate\":-1}", &[b'7'; 5000]] {
            ours.send(bytes).unwrap();
            assert!(matches!(lease.next_share(), Err(LeaseError::Malformed(_))), "{bytes:?}");
        }
        assert!(decode::<Report>(b"{\"direction\":\"upload\",\"policy\":\"greedy\"}").is_err());
    }
}
