//! A flow that lives by loss keeps the queue full, and a flow that yields to queues would starve beside it. Then the
//! window follows what a CUBIC flow would have here, and between bounds the share of the link.
//!
//! CUBIC (RFC 9438) lets a window `W` grow back within `T` seconds after a loss, with `W = C T^3 / (1 - beta)`, or, where
//! that is more, as Reno does by about half a packet a round trip. So the time between overflows alone tells which window a
//! CUBIC flow has here, however many there are, and of whatever size the queue is.

use super::drain::ALONE;
use super::{Fair, PACKET, PathSample, Phase};

/// C of RFC 9438, packets / s^3.
const CUBIC_C: f64 = 0.4;
/// 1 - beta of RFC 9438.
const CUBIC_DROP: f64 = 0.3;
/// Packets a round trip by which a CUBIC flow grows where it imitates Reno: 3 (1 - beta) / (1 + beta).
const RENO_STEP: f64 = 0.53;
/// Mean of a CUBIC window as a share of its largest.
const CUBIC_MEAN: f64 = 0.9;
/// The share never falls below this part of the largest: flows that do not mind loss would leave nothing.
const LEAST_SHARE: f64 = 0.48;
/// From this loss on even that is given up, all of it within so much more.
const YIELD_LOSS: (f64, f64) = (0.1, 0.2);
/// A queue that falls to this share of its mean has been let out by somebody.
const DROP: f64 = 0.88;
/// Largest relative change of the window in a round trip.
const STEP: f64 = 0.15;

/// What is known of the rivals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    /// Whether a second look has confirmed the first.
    proven: bool,
    /// When to look whether the rivals are still there.
    check_at: f64,
    /// Not before this.
    quiet_until: f64,
    /// Step of the queue's height at the last look.
    level: i32,
    /// Mean queue of the last second.
    usual: f64,
    /// Window, delivery rate and queue at the last look.
    before: (f64, f64, f64),
    overflowed: bool,
    /// Time between looks.
    patience: f64,
    last_overflow: f64,
    /// Usual time between overflows.
    between: f64,
    /// Since when the path looks empty of others.
    alone_since: f64,
}

/// First and longest time between looks, seconds.
const PATIENCE: (f64, f64) = (6.0, 60.0);

impl Rival {
    /// A queue stayed although this flow let its part out. A flow of our own kind with a longer way would have let its
    /// part out too after `wait`.
    pub(super) const fn suspected(now: f64, wait: f64) -> Self {
        Self {
            proven: false,
            check_at: now + wait,
            quiet_until: now + wait,
            level: i32::MIN,
            usual: 0.0,
            before: (0.0, 0.0, 0.0),
            overflowed: false,
            patience: PATIENCE.0 / 2.0,
            last_overflow: now,
            between: 0.0,
            alone_since: f64::INFINITY,
        }
    }

    /// They are still there.
    pub(super) fn confirmed(mut self, now: f64, rtt: f64, before: (f64, f64, f64)) -> Self {
        self.proven = true;
        // A level is forgotten when the patience has run out.
        self.level = if now > self.check_at { level(before.2) } else { self.level.max(level(before.2)) };
        if now > self.check_at {
            self.patience = (2.0 * self.patience).min(PATIENCE.1);
        }
        self.check_at = now + self.patience;
        self.quiet_until = now + (8.0 * rtt).min(1.0);
        self.before = before;
        self.usual = before.2;
        self.overflowed = false;
        self.alone_since = f64::INFINITY;
        self
    }

    /// Whether to look if they are still there: now and then, when the queue has climbed a step, which is the same for
    /// all, and when it falls, because another looks. So flows of our own kind that take each other for rivals look at the
    /// same time, and see that there is nobody else.
    pub(super) fn must_look(&mut self, now: f64, queue: f64, dt: f64) -> bool {
        self.usual += dt.min(1.0) * (queue - self.usual);
        let moved = level(queue) > self.level || queue < DROP * self.usual;
        now > self.check_at || (moved && now > self.quiet_until)
    }

    /// Whether what looks like a queue is part of the way: the window has doubled, delivery has followed it, and the queue
    /// has not.
    pub(super) fn is_imaginary(&self, window: f64, delivery: f64, queue: f64) -> bool {
        let (window_before, delivery_before, queue_before) = self.before;
        if self.overflowed || !self.proven || window < 2.0 * window_before || delivery_before <= 0.0 {
            return false;
        }
        let followed = (delivery / delivery_before - 1.0) / (window / window_before - 1.0);
        followed > 0.85 && queue - queue_before < 0.2 * (window - window_before) / delivery
    }

    /// The queue has overflowed.
    pub(super) fn on_overflow(&mut self, now: f64, rtt: f64) {
        let since = now - self.last_overflow;
        if since > 2.0 * rtt {
            self.between =
                if self.between == 0.0 { since } else { self.between + 0.3 * (since - self.between) };
            self.last_overflow = now;
            self.overflowed = true;
        }
    }

    /// The window that a CUBIC flow would have, bytes; nothing as long as nothing has overflowed.
    fn tcp_window(&self, now: f64, rtt: f64) -> f64 {
        if self.between == 0.0 {
            return 0.0;
        }
        let open = now - self.last_overflow;
        let time = self.between.max(open);
        let cubic = CUBIC_C * time.powi(3) / CUBIC_DROP;
        let reno = RENO_STEP * time / rtt / CUBIC_DROP;
        CUBIC_MEAN * cubic.max(reno) * PACKET
    }

    /// Factor by which the window changes in a round trip. `share` is ours of the link, `weight` that of the policy, `loss`
    /// what is lost beyond random loss.
    pub(super) fn step(&self, now: f64, rtt: f64, window: f64, share: f64, weight: f64, loss: f64) -> f64 {
        if !self.proven {
            return 0.0;
        }
        let square = weight * weight;
        let most = most_share(weight);
        let least = least_share(weight) * (1.0 - (loss - YIELD_LOSS.0) / YIELD_LOSS.1).clamp(0.0, 1.0);
        let by_tcp = self.tcp_window(now, rtt) * square / window;
        let (by_most, by_least) = (most / share.max(0.001), least / share.max(0.001));
        let goal = by_tcp.clamp(by_least, by_most.max(by_least));
        (0.5 * (goal - 1.0)).clamp(-STEP, STEP)
    }

    /// Whether the others have gone for `long` seconds.
    pub(super) fn is_alone(&mut self, now: f64, looks_alone: bool, long: f64) -> bool {
        self.alone_since = if looks_alone { self.alone_since.min(now) } else { f64::INFINITY };
        now - self.alone_since > long
    }
}

/// Share of the link that a flow of this weight may have beside one of TCP.
fn most_share(weight: f64) -> f64 {
    weight * weight / weight.mul_add(weight, 1.0)
}

/// Share that it keeps even if the others leave nothing.
pub(super) fn least_share(weight: f64) -> f64 {
    LEAST_SHARE * most_share(weight)
}

impl Fair {
    pub(super) fn rival(&mut self, mut rival: Rival, sample: &PathSample) {
        let (now, rtt) = (self.path.now, self.path.rtt());
        let delivery = self.path.delivery / (1.0 - self.loss.random);
        let full = self.path.queueing > 0.6 * self.path.peak();
        let overflows = sample.lost_packets > 0
            && sample.lost_packets as f64 > 2.0 * self.loss.random * sample.arrived_packets as f64 + 0.5;
        if overflows && full {
            rival.on_overflow(now, rtt);
        }
        let share = self.share();
        let loss = self.loss.recent() - self.loss.random;
        let step = rival.step(now, rtt, self.window, share, self.weight, loss);
        self.window *= step.mul_add((self.path.dt / rtt).min(1.0), 1.0);
        let looks_alone = self.path.queueing < self.queue_target() || share > ALONE;
        self.phase = Phase::Rival(rival);
        if rival.is_alone(now, looks_alone, (4.0 * rtt).max(0.5)) {
            self.window = self.full_window(delivery);
            self.begin_track();
        } else if rival.is_imaginary(self.window, delivery, self.path.queueing) {
            self.path.rebase();
            self.begin_track();
        } else {
            let must_look = rival.must_look(now, self.path.queueing, self.path.dt);
            self.phase = Phase::Rival(rival);
            if must_look {
                self.begin_drain(delivery, Some(rival), false);
            }
        }
    }
}

/// Step on which a queue of so many seconds stands.
fn level(queue: f64) -> i32 {
    (queue.max(1e-4) / 0.01).log(1.5).floor() as i32
}
