//! The narrowest link's rate from packet trains: packets that left together arrive as far apart as that link spreads
//! them (packet-train dispersion: Dovrolis, Ramanathan and Moore, IEEE/ACM ToN 2004). Not here: what to do with it.
//!
//! A train says nothing about what others take of the link, and behind a token bucket it shows the wire's speed rather
//! than the bucket's. So the figure is held against the delivery rate whenever the path is full, and used by its ratio to
//! that from then on.

use super::super::PathSample;

/// Less than this says nothing, bytes and seconds.
const LEAST: (f64, f64) = (8_000.0, 20e-6);
/// Share by which one full path moves the ratio.
const FOLLOW: f64 = 0.05;

/// Trains of the latest round trip or so.
#[derive(Debug)]
pub(super) struct Trains {
    bytes: f64,
    time: f64,
    /// Train rate over delivery rate on a full path.
    ratio: f64,
    /// Whether the ratio has been measured.
    calibrated: bool,
    /// Whether the ratio comes from a disproof.
    disproved: bool,
}

impl Default for Trains {
    fn default() -> Self {
        Self { bytes: 0.0, time: 0.0, ratio: 1.0, calibrated: false, disproved: false }
    }
}

impl Trains {
    /// Takes a report that came `dt` after the one before; older trains fade over `span`.
    pub(super) fn on_report(&mut self, sample: &PathSample, dt: f64, span: f64) {
        if sample.train_bytes == 0 {
            return;
        }
        let kept = (-dt / span).exp();
        self.bytes = self.bytes.mul_add(kept, sample.train_bytes as f64);
        self.time = self.time.mul_add(kept, sample.train_time.as_secs_f64());
    }

    /// Bytes a second of the narrowest link, if enough trains have come.
    pub(super) fn rate(&self) -> Option<f64> {
        (self.bytes >= LEAST.0 && self.time >= LEAST.1).then(|| self.bytes / self.time)
    }

    /// Bytes a second that this flow may hope for, going by what it got when the path was full.
    pub(super) fn promise(&self) -> Option<f64> {
        self.rate().map(|rate| rate / self.ratio)
    }

    /// Whether the promise has been held against what a full path delivered.
    pub(super) const fn is_calibrated(&self) -> bool {
        self.calibrated
    }

    /// The path is full and delivers `delivery` bytes a second.
    pub(super) fn on_full(&mut self, delivery: f64) {
        self.follow(delivery, FOLLOW);
    }

    /// As above, and far less was delivered than had been promised. If there was no queue either, only loss, that is how
    /// this path is: a token bucket.
    pub(super) fn on_disproof(&mut self, delivery: f64, queued: bool) {
        if self.promise().is_some_and(|promise| promise > 1.3 * delivery) {
            self.follow(delivery, 1.0);
            self.disproved |= !queued;
        }
    }

    /// The path has no queue although more and more is sent: others may have left it. `share` of a round trip has passed.
    pub(super) fn on_room(&mut self, share: f64) {
        if !self.disproved {
            self.ratio += 0.5 * share * (1.0 - self.ratio);
        }
    }

    fn follow(&mut self, delivery: f64, share: f64) {
        if let Some(rate) = self.rate().filter(|_| delivery > 0.0) {
            self.ratio += share * ((rate / delivery).clamp(0.5, 100.0) - self.ratio);
            self.calibrated = true;
        }
    }
}
