//! The window law, at each report: growth while there is no queue, else towards the queue target.

use super::loss::Verdict;
use super::{Fair, LEAST_WINDOW, PathSample, VELOCITY};

/// Growth in a second near where the window has overflowed again and again.
const SLOWEST: f64 = 0.03;
/// A path whose queue is no longer than this when it drops has none, seconds.
const NO_QUEUE: f64 = 0.0015;
/// A rise of loss that is taken as random without a test while less is sent than the trains promise.
const BELIEVED: f64 = 0.05;

impl Fair {
    pub(super) fn track(&mut self, sample: &PathSample) {
        self.attribute_loss();
        let now = self.path.now;
        if let Some((until, _)) = self.refresh {
            if now < until {
                return;
            }
            self.refresh = None;
            // At this rate nothing overflowed: more than this is not random.
            self.loss.doubt();
            self.loss.forget(now + self.path.rtt());
        }
        let target = self.queue_target();
        self.queue_scale = (self.queue_scale * 0.02f64.mul_add(self.path.dt, 1.0)).min(1.0);
        let share = (self.path.dt / self.path.rtt()).min(1.0);
        let overrun =
            self.foreign_queue().max((self.path.base_rtt() / 4.0).clamp(0.005, 0.04)).max(2.5 * target);
        let foreign = self.path.usual_queue > self.foreign_queue();
        let drains = foreign || self.path.queueing > overrun || self.yields_in_vain(target);
        if drains && now > self.next_drain && !self.path.is_short() {
            let delivery = self.path.delivery / (1.0 - self.loss.random);
            let was_idle = now - self.last_idle < 1.5 * self.path.rtt();
            return self.begin_drain(if was_idle { self.path.best() } else { delivery }, None, false);
        }
        if self.path.queueing < self.no_queue() {
            if !self.loss.is_testing() && !sample.idle {
                self.grow(share);
            }
        } else {
            self.last_queue = now;
            if now >= self.velocity_from {
                self.reset_growth();
            }
            self.trains.on_full(self.path.delivery);
            let ratio = (self.path.loop_base() + target) / (self.path.loop_base() + self.path.queueing);
            if ratio < 1.0 || (!self.loss.is_testing() && !sample.idle) {
                self.window *= (0.7 * (ratio - 1.0)).mul_add(share, 1.0);
            }
        }
        if self.window > 1.06 * self.window_high {
            self.window_high = f64::INFINITY;
        }
        self.refresh_base();
    }

    /// Whether the window has long been giving way and the queue is none the shorter for it.
    fn yields_in_vain(&mut self, target: f64) -> bool {
        let queue = self.path.queueing;
        if queue < target {
            self.yielding = None;
            return false;
        }
        let (since, window, before) = *self.yielding.get_or_insert((self.path.now, self.window, queue));
        let long = self.path.now - since > (10.0 * self.path.rtt()).max(0.5);
        long && self.window < 0.7 * window && queue > before
    }

    /// There is no queue: bandwidth is free.
    fn grow(&mut self, share: f64) {
        let near_high = self.window > 0.98 * self.window_high && self.window < 1.05 * self.window_high;
        let (_, fast, slow) = VELOCITY;
        if self.path.now > self.velocity_from + self.path.rtt() {
            let promised = self.promise().map(|rate| rate * self.path.loop_base() / self.window);
            self.velocity = match promised {
                _ if near_high && self.verdicts > 1 => {
                    (2.0 * self.velocity).min(slow).min(SLOWEST * self.path.rtt())
                }
                _ if near_high => (2.0 * self.velocity).min(slow),
                Some(promised) if promised > 1.5 => 1.0,
                // Near what the trains promise a step must not make more queue than is wanted.
                Some(promised) => {
                    let gentle = (2.0 * self.link_queue() / self.path.base_rtt()).clamp(0.01, 0.06);
                    (2.0 * self.velocity).min((0.7 * (promised - 1.0)).clamp(gentle, fast))
                }
                None => (2.0 * self.velocity).min(fast),
            };
            self.velocity_from = self.path.now;
        }
        if self.path.now < self.velocity_from {
            return;
        }
        self.window *= self.velocity.mul_add(share, 1.0);
        if self.path.now - self.last_queue > 3.0 * self.path.rtt() {
            self.trains.on_room(share);
        }
        let Some((window, delivery, since)) = self.growth else {
            self.growth = Some((self.window, self.path.delivery, self.path.now));
            return;
        };
        if self.window > 1.1 * window && self.path.now - since > 2.0 * self.path.rtt() {
            // The window grew, the delivery rate did not, and loss rose: a queue too short to be seen overflows.
            let gained = self.path.delivery / delivery.max(1.0) - 1.0;
            if gained < 0.3 * (self.window / window - 1.0) && self.loss.recent() > self.loss.tolerated(100.0)
            {
                self.window_high = window;
                self.window = window * 1.01;
                self.shrink_queue_target();
                self.velocity = 0.005;
                self.velocity_from = self.path.now + self.path.rtt();
            }
            self.growth = None;
        }
    }

    fn attribute_loss(&mut self) {
        let (now, rtt) = (self.path.now, self.path.rtt());
        if now < self.settled_from {
            return;
        }
        let delivery = self.path.delivery / (1.0 - self.loss.random);
        let promised =
            self.trains.is_calibrated() && self.promise().is_some_and(|rate| self.window / rtt < 0.93 * rate);
        let innocent = if self.path.has_room() {
            1.0
        } else if promised {
            BELIEVED
        } else {
            0.0
        };
        let verdict = self.loss.judge(now, self.window, rtt, innocent);
        let most = self.promise().map_or(f64::INFINITY, |rate| 1.1 * rate);
        let verdict = match verdict {
            // More was sent than the trains say the path can take: there is nothing to test.
            Verdict::Try(_) if self.window / rtt > most && delivery < most => {
                self.loss.forget(now + rtt);
                Verdict::Congestion(self.window)
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::None => {}
            Verdict::Try(cut) => {
                self.window *= 1.0 - cut;
                self.velocity = 0.01;
            }
            Verdict::Random(window) => {
                self.window = self.window.max(window);
                self.verdicts = 0;
            }
            Verdict::Congestion(high) => {
                self.verdicts += 1;
                // It was not for the queue that the window gave way.
                self.yielding = None;
                self.window_high = high.min(1.02 * self.full_window(delivery));
                self.trains.on_disproof(self.path.delivery, self.path.crest() > NO_QUEUE);
                self.window = self.window.min(0.98 * self.full_window(delivery));
                let (queue, target) = (self.path.queueing, self.queue_target());
                if queue < 2.0 * target && (self.verdicts >= 2 || queue < 0.3 * target) {
                    self.shrink_queue_target();
                }
                self.velocity = 0.005;
                self.velocity_from = now + rtt;
            }
        }
    }

    /// The queue overflows before it reaches its target: aim lower, but not below half of what was seen to fit.
    pub(super) fn shrink_queue_target(&mut self) {
        let unscaled = (self.queue_target() / self.queue_scale.max(1e-9)).max(1e-9);
        let floor = 0.5 * self.path.peak() / unscaled;
        self.queue_scale = (self.queue_scale * 0.7).max(floor).min(self.queue_scale).max(0.1);
    }

    /// Lets the queue run empty once in ten seconds, so that the base delay stays true.
    fn refresh_base(&mut self) {
        if self.path.now - self.last_empty > 10.0 {
            self.last_empty = self.path.now;
            let window = (0.8 * self.path.best() * self.path.loop_base()).max(LEAST_WINDOW);
            self.refresh = Some((self.path.now + 2.0 * self.path.rtt(), window));
            self.loss.forget(self.path.now + 1.1 * self.path.rtt());
        }
    }
}
