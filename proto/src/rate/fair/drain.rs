//! Letting the queue out: after the start, after an overrun, and to see whose queue it is.
//!
//! For two round trips a little less is under way than the path holds without a queue. A queue of this flow, and of others
//! of its kind that do the same, is gone then. One that stays is somebody else's.

use super::rival::{self, Rival};
use super::{Fair, LEAST_WINDOW, Phase};

/// Drain: until when, and how much may be under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    since: f64,
    until: f64,
    pub(super) window: f64,
    /// Window to go back to if the queue stays.
    before: f64,
    /// Known rivals.
    rival: Option<Rival>,
    /// Longest queueing delay since this was half over.
    highest: f64,
    /// After Start: what is lost at this rate is random.
    first: bool,
}

/// Least time of a look whether a queue is somebody else's, seconds.
const LOOK_TIME: f64 = 0.6;
/// With more than this share of the narrowest link a flow is alone.
pub(super) const ALONE: f64 = 0.85;
/// With more than this share a queue is mostly its own.
const MOSTLY: f64 = 0.7;

impl Fair {
    /// Lets the queue out and goes on with what `rate` needs.
    pub(super) fn begin_drain(&mut self, rate: f64, rival: Option<Rival>, first: bool) {
        let before = self.window;
        self.trains.on_disproof(self.path.delivery, true);
        self.window = self.full_window(rate).min(before);
        let window = (if first { 0.8 } else { 0.9 } * rate * self.path.loop_base()).max(LEAST_WINDOW);
        let mut span = 2.0 * self.path.rtt() + self.path.loop_base() / 4.0;
        if rival.is_some() {
            // Flows with a longer way must have time to do the same.
            span = span.max(LOOK_TIME);
        }
        let until = self.path.now + span;
        let before = before.min(1.1 * rate * self.path.rtt());
        self.phase =
            Phase::Drain(Drain { since: self.path.now, until, window, before, rival, highest: 0.0, first });
        self.refresh = None;
        // What was sent before must not count, nor what is found lost a little later.
        self.loss.forget(self.path.now + 1.25 * self.path.rtt());
    }

    pub(super) fn drain(&mut self, mut drain: Drain) {
        if drain.first {
            self.loss.believe();
        }
        let now = self.path.now;
        let delivery = self.path.delivery / (1.0 - self.loss.random);
        let own = drain.rival.is_none() && self.share() > MOSTLY;
        if own && self.path.queueing > self.foreign_queue() && self.full_window(delivery) < 0.9 * self.window
        {
            // The link is even slower than it seemed when this began.
            self.window = self.full_window(delivery);
            drain.window = (0.9 * delivery * self.path.loop_base()).max(LEAST_WINDOW);
        }
        if now > (drain.since + drain.until) / 2.0 {
            drain.highest = drain.highest.max(self.path.queueing);
        }
        self.phase = Phase::Drain(drain);
        let emptied = drain.rival.is_none()
            && self.path.queueing < 0.5 * self.queue_target()
            && now > drain.until - 1.2 * self.path.rtt();
        // What was under way at first must be through.
        if !emptied && now < drain.until.max(drain.since + 1.5 * self.path.rtt()) {
            return;
        }
        if self.path.queueing > self.foreign_queue() && self.share() > ALONE {
            // Nobody else can be there: it takes longer.
            return self.begin_drain(delivery, None, false);
        }
        self.loss.forget(now + self.path.rtt());
        self.next_drain = now + 3.0 * self.path.rtt();
        let vain = self.yielding.take().is_some_and(|(_, window, _)| drain.before < 0.7 * window);
        self.last_empty = now;
        // Once flows are known to be there, they must be seen to have gone.
        let foreign = match drain.rival {
            Some(_) => 0.6 * self.foreign_queue(),
            None if vain => (0.8 * self.queue_target()).min(0.7 * self.foreign_queue()),
            None => 0.7 * self.foreign_queue(),
        };
        // They may rest for a moment, as BBR does.
        let queue = if drain.rival.is_some() { drain.highest } else { self.path.queueing };
        if queue < foreign || self.weight < 1.0 {
            return self.begin_track();
        }
        let rtt = self.path.rtt();
        let rival = if let Some(rival) = drain.rival {
            self.window = drain.before;
            rival.confirmed(now, rtt, (drain.before, drain.before / rtt, self.path.queueing))
        } else {
            // What a rival would have to leave is kept meanwhile, and no more.
            let kept = rival::least_share(self.weight) * self.link() * rtt;
            self.window = drain.before.min(kept.max(self.window));
            Rival::suspected(now, (8.0 * rtt).max(1.0))
        };
        self.phase = Phase::Rival(rival);
    }
}
