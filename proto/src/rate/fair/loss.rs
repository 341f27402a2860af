//! What loss means: a share that is lost whatever the rate is random and is borne; a rise is tested by a cut of the rate.
//!
//! Loss is counted in windows of a round trip and at least a hundred packets. When a window loses more than what is known
//! to be random, beyond its usual scatter, the window is cut for two round trips: if loss falls with the rate, it was
//! congestion and the cut stays; if not, it was random, the window returns, and the share is remembered.

use super::super::PathSample;

/// More random loss than this is never believed.
const RANDOM_MAX: f64 = 0.25;
/// Packets that a window must hold, and those that a slow flow's window may have after four round trips.
const WINDOW_PACKETS: (f64, f64) = (100.0, 30.0);
/// Loss beyond what is expected, in standard deviations and as a share, that calls for a test.
const SUSPICIOUS: (f64, f64) = (2.5, 0.01);
/// Least and largest cut for a test.
const CUT: (f64, f64) = (0.05, 0.3);
/// Share by which random loss may seem to rise without a test.
const DRIFT: f64 = 0.01;
/// A rise of random loss that is not believed at once, and the cut for a second test.
const LEAP: f64 = 0.02;
/// See [`LEAP`].
const SECOND_CUT: f64 = 0.2;
/// How much wider than that of independent losses the scatter may be.
const SCATTER_MAX: f64 = 60.0;

/// Loss over a window of time and packets.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    since: f64,
    arrived: f64,
    lost: f64,
}

impl Count {
    fn packets(&self) -> f64 {
        self.arrived + self.lost
    }

    fn share(&self) -> f64 {
        self.lost / self.packets().max(1.0)
    }
}

/// A cut under way to find out what loss depends on.
#[derive(Debug, Clone, Copy)]
struct Test {
    give_up: f64,
    window_before: f64,
    loss_before: f64,
    cut: f64,
    /// What the scatter would be if the loss is random.
    scatter: f64,
    count: Count,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Nothing new.
    None,
    /// Cut the window by this share, to see what happens.
    Try(f64),
    /// The loss was random: the window goes back to this.
    Random(f64),
    /// The rate was too high: it overflowed at this window.
    Congestion(f64),
}

/// Counts loss and says what it means.
#[derive(Debug)]
pub(super) struct Loss {
    /// Share that is lost whatever the rate.
    pub(super) random: f64,
    /// The same when it was last seen at a rate that was certainly not too high.
    proven: f64,
    window: Count,
    test: Option<Test>,
    rest_until: f64,
    /// Variance of the windows' shares in units of that of independent losses: bursts make it large.
    scatter: f64,
    /// Mean share of the latest windows.
    mean: f64,
    /// Share and packets of the last complete window.
    pub(super) closed: Option<(f64, f64)>,
}

impl Loss {
    pub(super) fn new(now: f64) -> Self {
        let window = Count { since: now, ..Count::default() };
        Self {
            random: 0.0,
            proven: 0.0,
            window,
            test: None,
            rest_until: 0.0,
            scatter: 1.0,
            mean: 0.0,
            closed: None,
        }
    }

    /// Takes a report; `rtt` is the time from sending to the news of arrival.
    pub(super) fn on_report(&mut self, now: f64, sample: &PathSample, rtt: f64) {
        let (arrived, lost) = (sample.arrived_packets as f64, sample.lost_packets as f64);
        self.closed = None;
        if let Some(test) = self.test.as_mut().filter(|test| now >= test.count.since) {
            test.count.arrived += arrived;
            test.count.lost += lost;
        }
        if now < self.window.since {
            return;
        }
        self.window.arrived += arrived;
        self.window.lost += lost;
        let span = rtt.max(3.0 * sample.interval.as_secs_f64());
        let (age, packets) = (now - self.window.since, self.window.packets());
        let (most, least) = WINDOW_PACKETS;
        if (age >= span && packets >= most) || (age >= 4.0 * span && packets >= least) {
            self.closed = Some((self.window.share(), packets));
            self.window = Count { since: now, ..Count::default() };
        }
    }

    /// Starts a new window at `from`; what was sent before does not count.
    pub(super) fn forget(&mut self, from: f64) {
        self.window = Count { since: from, ..Count::default() };
        self.test = None;
    }

    /// Loss was seen while the rate was certainly not too high.
    pub(super) fn believe(&mut self) {
        if let Some((share, _)) = self.closed {
            self.believe_in(share);
        }
    }

    /// As above, of a share seen elsewhere.
    pub(super) fn believe_in(&mut self, share: f64) {
        self.random = share.min(RANDOM_MAX);
        self.proven = self.random;
    }

    /// What has been counted since [`forget`](Self::forget) was lost at a rate that was not too high: if it is less than what
    /// was taken for random, that was wrong.
    pub(super) fn doubt(&mut self) {
        let share = self.window.share() + self.deviation(self.random, self.window.packets());
        if self.window.packets() >= WINDOW_PACKETS.1 && share < self.random {
            self.believe_in(share);
        }
    }

    pub(super) const fn is_testing(&self) -> bool {
        self.test.is_some()
    }

    /// Share lost in the window that is being counted.
    pub(super) fn recent(&self) -> f64 {
        self.window.share()
    }

    /// Share beyond which a window of `packets` loses more than scatter explains.
    pub(super) fn tolerated(&self, packets: f64) -> f64 {
        self.random + (SUSPICIOUS.0 * self.deviation(self.random, packets)).max(SUSPICIOUS.1)
    }

    fn learn_scatter(&mut self, share: f64, seen: f64) {
        self.scatter = (self.scatter + share * (seen - self.scatter)).clamp(1.0, SCATTER_MAX);
    }

    fn deviation(&self, share: f64, packets: f64) -> f64 {
        (self.scatter * share.max(0.001) * (1.0 - share) / packets.max(1.0)).sqrt()
    }

    /// Judges the last window, or the test under way, at the present `window`. A rise by less
    /// than `innocent` is random for other reasons.
    pub(super) fn judge(&mut self, now: f64, window: f64, rtt: f64, innocent: f64) -> Verdict {
        if let Some(test) = self.test {
            return self.judge_test(now, &test, rtt);
        }
        let Some((share, packets)) = self.closed else {
            return Verdict::None;
        };
        let excess = share - self.random;
        let suspicious =
            excess > (SUSPICIOUS.0 * self.deviation(self.random.max(0.5 * share), packets)).max(SUSPICIOUS.1);
        // Around the mean of the latest windows: a lasting rise is no scatter.
        let mean = ((self.mean + share) / 2.0).max(0.001);
        let seen = ((share - self.mean).powi(2) / (mean * (1.0 - mean) / packets)).min(SCATTER_MAX);
        self.mean += 0.2 * (share - self.mean);
        if !suspicious {
            self.learn_scatter(0.05, seen);
        }
        if innocent > 0.0 && excess < innocent {
            self.believe_in(self.random + 0.3 * excess);
            return Verdict::None;
        }
        if suspicious && now > self.rest_until {
            // The cut must show above the scatter of a hundred packets.
            let cut =
                excess.max(3.0 * self.deviation((share + self.random) / 2.0, packets)).clamp(CUT.0, CUT.1);
            self.test = Some(Test {
                give_up: now + 12.0 * rtt,
                window_before: window,
                loss_before: share,
                cut,
                scatter: seen,
                count: Count { since: now + rtt, ..Count::default() },
            });
            return Verdict::Try(cut);
        }
        let follow = if excess < 0.0 {
            0.3 / self.scatter.sqrt()
        } else if suspicious {
            0.0
        } else {
            0.1 / self.scatter.sqrt()
        };
        self.random = (self.random + follow * excess)
            .min(RANDOM_MAX)
            .min(self.proven + (0.25 * self.proven).max(DRIFT));
        self.proven = self.proven.min(self.random.max(0.8 * self.proven));
        Verdict::None
    }

    /// Ends a test once enough packets sent at the lower rate have been accounted for.
    fn judge_test(&mut self, now: f64, test: &Test, rtt: f64) -> Verdict {
        let age = now - test.count.since;
        let enough = if test.cut == SECOND_CUT { 2.0 } else { 1.0 } * WINDOW_PACKETS.0;
        if !((test.count.packets() >= enough && age > rtt) || now > test.give_up) {
            return Verdict::None;
        }
        let after = if test.count.packets() > 0.0 { test.count.share() } else { 1.0 };
        self.forget(now);
        // Had the path been full, it would deliver as much as before the cut.
        let if_full = (1.0 - (1.0 - test.loss_before) / (1.0 - test.cut)).max(self.random);
        if after > (test.loss_before + if_full) / 2.0 && after < 0.3 {
            if after > self.proven + LEAP && test.cut < SECOND_CUT {
                // So much more than was ever random wants a second, deeper look.
                let count = Count { since: now + rtt, ..Count::default() };
                let give_up = now + 12.0 * rtt;
                self.test = Some(Test {
                    cut: SECOND_CUT,
                    loss_before: (after + test.loss_before) / 2.0,
                    give_up,
                    count,
                    ..*test
                });
                return Verdict::Try(1.0 - (1.0 - SECOND_CUT) / (1.0 - test.cut));
            }
            let mean = (after + test.loss_before) / 2.0;
            self.random = (self.random + 0.7 * (mean - self.random)).min(RANDOM_MAX);
            self.proven = self.random;
            self.learn_scatter(0.3, test.scatter);
            return Verdict::Random(test.window_before);
        }
        self.rest_until = now + rtt;
        Verdict::Congestion(test.window_before * (1.0 - 0.5 * test.cut))
    }
}
