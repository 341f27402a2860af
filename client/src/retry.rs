//! Whether a transfer that broke off is tried again, and when; and what the attempts amount to together.
//!
//! Only what may pass by itself is tried again: the network, a server that starts anew. Not here: the attempts.

use std::time::{Duration, Instant};

use haul_proto::control::{ResumeCheck, Trouble};
use haul_proto::stats::{Limits, Snapshot};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::cli::Manner;
use crate::config::TransferRequest;
use crate::error::ClientError;
use crate::progress::Summary;

/// Without progress for so long it is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// Before the second attempt, doubled with each further one that brings nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Pauses get no longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The attempts at one transfer.
#[derive(Debug)]
pub(crate) struct Retry {
    /// None: there is only one attempt.
    patience: Option<Duration>,
    started: Instant,
    /// When data last moved.
    progress: Instant,
    pause: Duration,
    attempts: u32,
    /// The server has agreed once: what fails from now on worked before.
    begun: bool,
    /// Bytes that were there when the best attempt ended.
    best: u64,
    /// What is stored is removed at the source: an attempt that ended would find it missing.
    removes: bool,
    before: Before,
}

/// What earlier attempts have done.
#[derive(Debug, Default)]
struct Before {
    files: u64,
    bytes: u64,
    packets: u64,
    lost_packets: u64,
    retransmitted_bytes: u64,
    limits: Limits,
}

impl Retry {
    pub(crate) fn new(request: &TransferRequest) -> Self {
        let resume = &request.plan.resume;
        // Where nothing is continued, a further attempt would start over; that is done for those who ask for it.
        let wanted =
            resume.retry && (request.resume != ResumeCheck::None || request.plan.manner == Manner::Ascp);
        let patience = wanted.then(|| resume.retry_timeout.unwrap_or(PATIENCE));
        Self { removes: request.wanted.after.is_some(), ..Self::with_patience(patience) }
    }

    fn with_patience(patience: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            patience,
            started: now,
            progress: now,
            pause: FIRST_PAUSE,
            attempts: 1,
            begun: false,
            best: 0,
            removes: false,
            before: Before::default(),
        }
    }

    /// An attempt has ended: `reached` is how far it came, if the server had agreed to it. Returns how long to wait for
    /// the next one.
    pub(crate) fn after(
        &mut self,
        result: &Result<Summary, ClientError>,
        reached: Option<Snapshot>,
    ) -> Option<Duration> {
        self.begun |= reached.is_some();
        // What an attempt brings that had been brought before is no progress: it might go on so without end.
        if let Some(reached) =
            reached.filter(|reached| reached.bytes_done > reached.bytes_held.max(self.best))
        {
            self.best = reached.bytes_done;
            self.progress = Instant::now();
            self.pause = FIRST_PAUSE;
        }
        let may_pass = match result {
            // The end of the attempt before may not have reached the server yet.
            Ok(summary) => {
                let busy = || summary.failures.iter().any(|failure| failure.trouble == Trouble::Busy);
                self.attempts > 1 && !self.removes && busy()
            }
            // A path that has never carried anything will not by waiting.
            Err(error) => self.begun && may_pass(error) && (self.best > 0 || !is_silent(error)),
        };
        let patience = self.patience?;
        if !may_pass || self.progress.elapsed() + self.pause > patience {
            return None;
        }
        self.before.add(&reached.unwrap_or_default());
        self.attempts += 1;
        let pause = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(pause.mul_f64(jitter()))
    }

    /// What all attempts have done together, with the last one's summary.
    pub(crate) fn total(&self, last: Summary) -> Summary {
        if self.attempts == 1 {
            return last;
        }
        let before = &self.before;
        // What the last attempt found there was brought by those before it, as far as they brought anything.
        let files = before.files.min(last.skipped);
        let resumed = last.resumed_bytes.min(before.bytes);
        let bytes = if files == last.skipped {
            last.skipped_bytes
        } else {
            last.skipped_bytes.min(before.bytes - resumed)
        };
        Summary {
            files: last.files + files,
            bytes: last.bytes + bytes,
            skipped: last.skipped - files,
            skipped_bytes: last.skipped_bytes - bytes,
            resumed_bytes: last.resumed_bytes - resumed,
            seconds: self.started.elapsed().as_secs_f64(),
            packets: last.packets + before.packets,
            lost_packets: last.lost_packets + before.lost_packets,
            retransmitted_bytes: last.retransmitted_bytes + before.retransmitted_bytes,
            limits: last.limits.plus(&before.limits),
            attempts: self.attempts,
            ..last
        }
    }
}

impl Before {
    fn add(&mut self, reached: &Snapshot) {
        self.files += reached.files_stored;
        self.bytes += reached.bytes_done.saturating_sub(reached.bytes_held);
        self.packets += reached.packets;
        self.lost_packets += reached.lost_packets;
        self.retransmitted_bytes += reached.retransmitted_bytes;
        self.limits = self.limits.plus(&reached.limits);
    }
}

/// Whether an error may be gone the next time, of a transfer that had begun.
const fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::UnknownHost { .. }
        | ClientError::Connect { .. }
        | ClientError::Handshake { .. }
        | ClientError::ConnectionLost { .. } => true,
        // Limits and ports may be those of the session that was lost, which the server has not missed yet.
        ClientError::Trouble { trouble, .. } => {
            matches!(trouble, Trouble::PeerLost | Trouble::UdpSilent | Trouble::UdpPort | Trouble::Limit)
        }
        _ => false,
    }
}

/// No datagram of the peer has ever arrived.
const fn is_silent(error: &ClientError) -> bool {
    matches!(error, ClientError::Trouble { trouble: Trouble::UdpSilent, .. })
}

/// Many clients that lose one server should not come back together.
fn jitter() -> f64 {
    let mut byte = [128];
    let _ = SystemRandom::new().fill(&mut byte);
    0.75 + f64::from(byte.first().copied().unwrap_or_default()) / 512.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use haul_proto::control::{Failure, PathText};

    fn lost() -> Result<Summary, ClientError> {
        Err(ClientError::trouble(Trouble::PeerLost, "gone"))
    }

    fn reached(bytes: u64) -> Option<Snapshot> {
        Some(Snapshot { bytes_done: bytes, files_stored: 2, packets: 10, ..Snapshot::default() })
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let patient = || Retry::with_patience(Some(PATIENCE));
        assert!(patient().after(&lost(), reached(1)).is_some());
        assert_eq!(patient().after(&lost(), None), None, "it had never worked");
        assert_eq!(Retry::with_patience(None).after(&lost(), reached(1)), None);
        assert_eq!(Retry::with_patience(Some(Duration::from_millis(500))).after(&lost(), reached(1)), None);
        for trouble in [
            Trouble::DiskFull,
            Trouble::NotFound,
            Trouble::PermissionDenied,
            Trouble::Protocol,
            Trouble::Interrupted,
            Trouble::Incompatible,
            Trouble::WrongKind,
        ] {
            let result = Err(ClientError::trouble(trouble, "no"));
            assert_eq!(patient().after(&result, reached(1)), None, "{trouble:?}");
        }
        assert_eq!(patient().after(&Err(ClientError::Interrupted), reached(1)), None);
        assert_eq!(patient().after(&Ok(Summary::default()), reached(1)), None);
    }

    #[test]
    fn pauses_grow_while_nothing_moves() {
        let mut retry = Retry::with_patience(Some(PATIENCE));
        let mut pauses: Vec<f64> = (0..8)
            .map(|n| retry.after(&lost(), (n == 0).then(|| reached(5)).flatten()).unwrap().as_secs_f64())
            .collect();
        for (pause, expected) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
            assert!((0.7..=1.3).contains(&(pause / expected)), "{pauses:?}");
        }
        pauses.clear();
        assert!(
            retry.after(&lost(), reached(5)).unwrap() > Duration::from_secs(20),
            "no further than before"
        );
        assert!(retry.after(&lost(), reached(6)).unwrap() < Duration::from_secs(2), "something moved");
    }

    #[test]
    fn a_file_that_the_lost_session_still_holds_is_waited_for() {
        let failure = Failure { path: PathText::default(), trouble: Trouble::Busy, message: String::new() };
        let busy = || Ok(Summary { failed: 1, failures: vec![failure.clone()], ..Summary::default() });
        let mut retry = Retry::with_patience(Some(PATIENCE));
        assert_eq!(retry.after(&busy(), reached(0)), None, "it is somebody else's");
        retry.after(&lost(), reached(5)).unwrap();
        assert!(retry.after(&busy(), reached(0)).is_some());
        retry.removes = true;
        assert_eq!(retry.after(&busy(), reached(0)), None, "what was stored is gone at the source");
    }

    #[test]
    fn totals_are_those_of_one_transfer() {
        let mut retry = Retry::with_patience(Some(PATIENCE));
        retry.after(&lost(), reached(1000)).unwrap();
        let last = Summary {
            files: 3,
            bytes: 900,
            skipped: 5,
            skipped_bytes: 2000,
            resumed_bytes: 400,
            packets: 7,
            ..Summary::default()
        };
        let total = retry.total(last);
        assert_eq!((total.files, total.skipped, total.packets, total.attempts), (5, 3, 17, 2));
        assert_eq!((total.bytes, total.skipped_bytes, total.resumed_bytes), (1500, 1400, 0));
    }
}
