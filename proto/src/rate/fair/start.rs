//! The first round trips: from packet trains to the rate of the path, without a queue where trains tell it.

use super::{Fair, Phase};

/// Start: what the window waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// News of the first packets.
    First,
    /// News of what was sent at half the rate that may be had, which is `hope`.
    Half { until: f64, hope: f64 },
    /// A queue: the window doubles every round trip.
    Climb,
}

/// Share of the trains' rate that is tried for a round trip before all of it is.
const FIRST_SHARE: f64 = 0.5;
/// A target up to this share of the trains' rate is sent at once.
const SAFE_SHARE: f64 = 0.95;
/// Round trips for which the first share is held: one until its news begins, and some to see it.
const HELD_TRIPS: f64 = 1.25;
/// Loss of the first packets that means a short queue, and what the queue target is then scaled by.
const SHORT_QUEUE: (f64, f64) = (0.3, 0.35);
/// Loss at the first share that means that the trains are wrong.
const WRONG_LOSS: f64 = 0.2;
/// Growth in the first round trip after the start.
const VELOCITY_AFTER: f64 = 0.1;

impl Fair {
    pub(super) fn start(&mut self, start: Start, idle: bool) {
        let (now, rtt) = (self.path.now, self.path.rtt());
        let lossy = !matches!(start, Start::First) && self.start_is_lossy();
        if self.path.queueing > self.overrun() || lossy || self.has_plateau(idle) {
            if lossy && self.path.queueing <= self.overrun() {
                self.shrink_queue_target();
            }
            return self.begin_drain(self.path.best(), None, true);
        }
        match start {
            Start::First => match self.trains.rate() {
                Some(rate) => {
                    let wanted = self.target.min(SAFE_SHARE * rate);
                    let known = wanted < SAFE_SHARE * rate;
                    let first = if known { wanted } else { FIRST_SHARE * rate };
                    let window = first * self.path.loop_base();
                    if window <= self.window {
                        self.phase = Phase::Start(Start::Climb);
                        return;
                    }
                    self.window = window;
                    self.phase = Phase::Start(Start::Half {
                        until: now + HELD_TRIPS * rtt,
                        hope: if known { first } else { rate },
                    });
                    self.start_checked = now + rtt;
                    // A short queue may have dropped most of the first packets.
                    if self.loss.recent() > SHORT_QUEUE.0 {
                        self.queue_scale = SHORT_QUEUE.1;
                    }
                    self.loss.forget(now + rtt);
                }
                None => self.climb(idle, f64::INFINITY),
            },
            Start::Half { until, .. } if now > until && self.loss.recent() > WRONG_LOSS => {
                self.begin_drain(self.path.best(), None, true);
            }
            Start::Half { until, hope } if now > until => {
                let hope = self.trains.rate().map_or(hope, |rate| rate.min(1.1 * hope)).min(self.target);
                self.window = self.window.max(hope * self.path.loop_base());
                self.begin_track();
                self.settled_from = now + 2.0 * rtt;
                self.velocity = VELOCITY_AFTER;
                self.velocity_from = now + rtt;
                self.loss.believe_in(self.loss.recent());
                self.loss.forget(now);
            }
            Start::Half { .. } => {}
            Start::Climb => {
                let promise = self.promise().unwrap_or(f64::INFINITY);
                self.climb(idle, promise * self.path.loop_base());
            }
        }
    }

    /// Doubles the window in a round trip, up to `most`.
    fn climb(&mut self, idle: bool, most: f64) {
        if idle {
            return;
        }
        let grown = self.window * (self.path.dt / self.path.rtt()).min(1.0).exp2();
        if grown < most {
            self.window = grown;
        } else {
            self.begin_track();
            self.velocity = VELOCITY_AFTER;
        }
    }

    fn start_is_lossy(&mut self) -> bool {
        let Some((share, packets)) = self.loss.closed else {
            return false;
        };
        let sigma = (self.start_loss.max(0.01) / packets).sqrt();
        let lossy = share > 3.0f64.mul_add(sigma, self.start_loss + 0.12) && share > 0.15;
        self.start_loss = (self.start_loss + share) / 2.0;
        lossy
    }

    /// Whether the delivery rate has not followed the window for three round trips.
    fn has_plateau(&mut self, idle: bool) -> bool {
        if self.path.now - self.start_checked > self.path.rtt() {
            let stands = self.start_best > 0.0 && self.path.best() < 1.25 * self.start_best && !idle;
            self.plateaus = if stands { self.plateaus + 1 } else { 0 };
            (self.start_best, self.start_checked) = (self.path.best(), self.path.now);
        }
        self.plateaus >= 3
    }
}
