//! The target rate, whatever the path says, with one safety: a path that loses more than half of it for ten seconds is
//! sent an eighth, doubling back every two seconds while the loss stays below.

use std::time::Duration;

use super::PathSample;
use super::path::Path;
use crate::units::Rate;

const UNBEARABLE_LOSS: f64 = 0.5;
const UNBEARABLE_TIME: Duration = Duration::from_secs(10);
const RECOVERY_TIME: Duration = Duration::from_secs(2);

/// Constant target rate.
#[derive(Debug)]
pub struct Fixed {
    target: Rate,
    rate: Rate,
    longest_rtt: Duration,
    now: Duration,
    window_start: Duration,
    arrived: u64,
    lost: u64,
    unbearable_since: Option<Duration>,
    path: Box<Path>,
}

impl Fixed {
    /// Sends at `target`.
    #[must_use]
    pub fn new(target: Rate) -> Self {
        Self {
            target,
            rate: target,
            longest_rtt: Duration::ZERO,
            now: Duration::ZERO,
            window_start: Duration::ZERO,
            arrived: 0,
            lost: 0,
            unbearable_since: None,
            path: Box::new(Path::new(0.0)),
        }
    }

    /// What the reports tell about the path. It has no part in the rate.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sends at `target` over a path whose round-trip time is known.
    pub(super) fn going_on(target: Rate, rtt: Duration) -> Self {
        Self { longest_rtt: rtt, ..Self::new(target) }
    }

    pub(super) fn set_target(&mut self, target: Rate) {
        // A path that loses most is not relieved of its eighth by another target.
        self.rate = if self.rate >= self.target { target } else { self.rate.min(target) };
        self.target = target;
    }

    /// Time of the last report, longest round-trip time, rate.
    pub(super) const fn known(&self) -> (Duration, Duration, Rate) {
        (self.now, self.longest_rtt, self.rate)
    }

    pub(super) fn on_report(&mut self, sample: &PathSample) {
        self.path.on_report(sample, 0.0, true);
        self.now = sample.now;
        if let Some(rtt) = sample.rtt {
            self.longest_rtt = self.longest_rtt.max(rtt);
        }
        self.arrived += sample.arrived_packets;
        self.lost += sample.lost_packets;
        if sample.now.saturating_sub(self.window_start) < RECOVERY_TIME {
            return;
        }
        let total = self.arrived + self.lost;
        let loss = if total == 0 { 0.0 } else { self.lost as f64 / total as f64 };
        (self.window_start, self.arrived, self.lost) = (sample.now, 0, 0);
        if loss <= UNBEARABLE_LOSS {
            self.unbearable_since = None;
            self.rate = self.rate.scaled(2.0).min(self.target);
            return;
        }
        let since = *self.unbearable_since.get_or_insert(sample.now);
        if sample.now.saturating_sub(since) >= UNBEARABLE_TIME {
            self.rate = self.target.scaled(0.125);
        }
    }

    pub(super) fn is_at_target(&self) -> bool {
        self.rate >= self.target
    }

    pub(super) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Never binds unless reports stop coming: twice what the longest round trip needs.
    pub(super) fn window(&self) -> u64 {
        let span = self.longest_rtt * 2 + Duration::from_millis(200);
        self.rate.bytes_in(span).max(256 * 1024)
    }
}
