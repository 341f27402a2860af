//! Delay-bounded rate: fills the path and keeps the standing queue short, whatever the random loss.
//!
//! A window law in the family of FAST TCP and Copa (NSDI 2018): the window follows `base / measured` delay towards a
//! small queue of `q* = weight x 3 ms / sqrt(rate / 100 Mbit/s)`, so that flows share a bottleneck by the square of
//! their weights, independently of their round-trip times, and the queue grows only with the root of their number.
//!
//! - **Start**: the window doubles every RTT until a queue shows, the delivery rate stops growing, or loss jumps.
//! - **Drain**: what Start has queued is let out.
//! - **Track**: the window law, at each report. Loss does not slow it as such: when loss exceeds what is known to be
//!   random, the window is cut for two RTTs as a test. If loss falls with the rate it was congestion, and the cut stays;
//!   if not it was random, the window returns, and the loss is remembered as random.
//!
//! Not here yet: recognising competing TCP flows, and paths whose jitter exceeds their RTT.

use std::collections::VecDeque;
use std::time::Duration;

use super::{PathSample, RateConfig};
use crate::constants::FIRST_FLIGHT_PACKETS;
use crate::min_filter::MinFilter;
use crate::units::Rate;

/// Queue target of one fair flow at [`REFERENCE_RATE`], seconds (simulated: 2.5 to 3 ms did best).
const QUEUE_TARGET: f64 = 0.003;
/// 100 Mbit/s, in bytes per second.
const REFERENCE_RATE: f64 = 12.5e6;
/// Least and largest queue target, seconds.
const QUEUE_BOUNDS: (f64, f64) = (0.0002, 0.1);
/// Share of the measured jitter that the queue target allows for.
const JITTER_SHARE: f64 = 1.2;
/// Bytes of a typical datagram, for windows counted in packets.
const PACKET: f64 = 1450.0;
/// The pacing rate exceeds window / RTT by this, so that the window binds and not the pacing.
const PACING_GAIN: f64 = 1.02;
/// More random loss than this is never believed.
const RANDOM_LOSS_MAX: f64 = 0.25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Drain,
    Track,
}

/// A window cut under way to find out what loss depends on.
#[derive(Debug, Clone, Copy)]
struct LossTest {
    count_from: f64,
    give_up: f64,
    window_before: f64,
    loss_before: f64,
    cut: f64,
    arrived: f64,
    lost: f64,
}

/// Loss over a window of time and packets.
#[derive(Debug, Clone, Copy, Default)]
struct LossWindow {
    since: f64,
    arrived: f64,
    lost: f64,
}

/// Delay-bounded controller. All times are seconds, all amounts bytes.
#[derive(Debug)]
pub struct Fair {
    weight: f64,
    target: f64,
    minimum: f64,
    phase: Phase,
    window: f64,
    now: f64,
    last_report: f64,
    /// Usual time between reports: it delays the news of an arrival as distance does.
    report_gap: f64,
    base: MinFilter,
    base_rtt: MinFilter,
    queue: MinFilter,
    queue_peak: MinFilter,
    jitter_low: MinFilter,
    jitter_high: MinFilter,
    jitter: f64,
    q: f64,
    arrivals: VecDeque<(f64, f64, f64)>,
    delivery: f64,
    best_delivery: MinFilter,
    velocity: f64,
    velocity_from: f64,
    random_loss: f64,
    loss: LossWindow,
    test: Option<LossTest>,
    verdicts: u32,
    recover_until: f64,
    queue_scale: f64,
    window_high: f64,
    growth: Option<(f64, f64, f64)>,
    start_best: f64,
    start_checked: f64,
    plateaus: u32,
    start_loss: f64,
    drain_until: f64,
    drain_window: f64,
    last_empty: f64,
    last_drain: f64,
}

impl Fair {
    /// A controller that knows nothing of the path.
    #[must_use]
    pub fn new(now: Duration, weight: f64, config: RateConfig) -> Self {
        let seconds = Duration::from_secs_f64;
        let now = now.as_secs_f64();
        Self {
            weight,
            target: config.target.map_or(f64::INFINITY, Rate::bytes_per_second),
            minimum: config.minimum.map_or(0.0, Rate::bytes_per_second),
            phase: Phase::Start,
            window: FIRST_FLIGHT_PACKETS as f64 * PACKET,
            now,
            last_report: now,
            report_gap: 0.0,
            base: MinFilter::new(seconds(30.0)),
            base_rtt: MinFilter::new(seconds(30.0)),
            queue: MinFilter::new(seconds(0.01)),
            queue_peak: MinFilter::new(seconds(10.0)),
            jitter_low: MinFilter::new(seconds(0.05)),
            jitter_high: MinFilter::new(seconds(0.05)),
            jitter: 0.0,
            q: 0.0,
            arrivals: VecDeque::new(),
            delivery: 0.0,
            best_delivery: MinFilter::new(seconds(1.0)),
            velocity: 0.02,
            velocity_from: 0.0,
            random_loss: 0.0,
            loss: LossWindow { since: now, ..LossWindow::default() },
            test: None,
            verdicts: 0,
            recover_until: 0.0,
            queue_scale: 1.0,
            window_high: f64::INFINITY,
            growth: None,
            start_best: 0.0,
            start_checked: now,
            plateaus: 0,
            start_loss: 0.0,
            drain_until: 0.0,
            drain_window: 0.0,
            last_empty: now,
            last_drain: now,
        }
    }

    pub(super) fn on_report(&mut self, sample: &PathSample) {
        let dt = self.measure(sample);
        let closed = self.count_loss(sample);
        match self.phase {
            Phase::Start => self.start(dt, closed, sample.idle),
            Phase::Drain => self.drain(closed),
            Phase::Track => self.track(dt, closed, sample),
        }
        self.clip();
        tracing::trace!(
            phase = self.phase(),
            window = self.window,
            queue_ms = self.q * 1e3,
            target_ms = self.queue_target() * 1e3,
            base_rtt_ms = self.base_rtt() * 1e3,
            report_gap_ms = self.report_gap * 1e3,
            jitter_ms = self.jitter * 1e3,
            delivery_mbit = self.delivery * 8e-6,
            best_mbit = self.best() * 8e-6,
            random_loss = self.random_loss,
            testing = self.test.is_some(),
            queue_scale = self.queue_scale,
            lost = sample.lost_packets,
            arrived = sample.arrived_packets,
            idle = sample.idle,
        );
    }

    pub(super) fn on_silence(&mut self) {
        self.window = (self.window / 2.0).max(4.0 * PACKET);
    }

    pub(super) fn rate(&self) -> Rate {
        if self.base_rtt.minimum().is_none() {
            // The first train leaves back to back: its dispersion tells the bottleneck.
            return Rate::from_bytes_per_second(self.target.min(125e6));
        }
        let gain = if self.phase == Phase::Start { 1.0 } else { PACING_GAIN };
        let rate = gain * self.allowed() / self.rtt();
        Rate::from_bytes_per_second(rate.max(self.minimum).min(self.target))
    }

    pub(super) fn is_at_target(&self) -> bool {
        self.rate() >= Rate::from_bytes_per_second(self.target)
    }

    pub(super) fn window(&self) -> u64 {
        let least = self.minimum * self.rtt() * 1.25;
        self.allowed().max(least).max(4.0 * PACKET) as u64
    }

    pub(super) const fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Start => "start",
            Phase::Drain => "drain",
            Phase::Track => "track",
        }
    }

    fn allowed(&self) -> f64 {
        if self.now < self.drain_until { self.window.min(self.drain_window) } else { self.window }
    }

    fn base_rtt(&self) -> f64 {
        self.base_rtt.minimum().unwrap_or(0.1)
    }

    /// From sending to the news of arrival, without queue. On short paths the reports take most of it.
    fn loop_base(&self) -> f64 {
        self.base_rtt() + self.report_gap
    }

    /// From sending to the news of arrival.
    fn rtt(&self) -> f64 {
        (self.loop_base() + self.q.max(0.0)).max(1e-5)
    }

    fn best(&self) -> f64 {
        -self.best_delivery.minimum().unwrap_or(0.0)
    }

    fn queue_target(&self) -> f64 {
        let rate = (self.window / self.rtt()).max(1000.0);
        let target = self.queue_scale * self.weight * QUEUE_TARGET * (REFERENCE_RATE / rate).sqrt();
        target.clamp(QUEUE_BOUNDS.0, QUEUE_BOUNDS.1) + JITTER_SHARE * self.jitter
    }

    /// Updates delay, jitter and delivery rate; returns the time since the last report.
    fn measure(&mut self, sample: &PathSample) -> f64 {
        let at = sample.now;
        self.now = at.as_secs_f64();
        let dt = (self.now - self.last_report).clamp(0.0, 0.2);
        self.last_report = self.now;
        let gap = dt.min(0.1);
        self.report_gap = if self.report_gap == 0.0 {
            gap.min(0.005)
        } else {
            self.report_gap + 0.1 * (gap - self.report_gap)
        };
        if let Some(rtt) = sample.rtt {
            self.base_rtt.insert(at, rtt.as_secs_f64());
        }
        if sample.arrived_packets > 0 && sample.delay_min <= sample.delay_max {
            self.measure_delay(sample);
        }
        self.measure_delivery(sample);
        let empty = (0.1 * self.queue_target().max(0.0005)).max(0.05 * self.peak());
        if self.q < empty {
            self.last_empty = self.now;
        }
        dt
    }

    fn peak(&self) -> f64 {
        -self.queue_peak.minimum().unwrap_or(0.0)
    }

    fn measure_delay(&mut self, sample: &PathSample) {
        let (at, interval) = (sample.now, sample.interval.as_secs_f64());
        self.base.insert(at, sample.delay_min);
        let base = self.base.minimum().unwrap_or(sample.delay_min);
        let span = (self.base_rtt() / 2.0).max(2.0 * interval).max(0.008);
        self.queue.set_window(Duration::from_secs_f64(span));
        self.queue.insert(at, sample.delay_min - base);
        self.q = self.queue.minimum().unwrap_or(0.0);
        self.queue_peak.insert(at, -(sample.delay_max - base));
        let span = Duration::from_secs_f64(self.base_rtt().clamp(0.02, 0.05));
        self.jitter_low.set_window(span);
        self.jitter_high.set_window(span);
        self.jitter_low.insert(at, sample.delay_min);
        self.jitter_high.insert(at, -sample.delay_max);
        let spread = -self.jitter_high.minimum().unwrap_or(0.0) - self.jitter_low.minimum().unwrap_or(0.0);
        if self.phase == Phase::Track && self.now >= self.drain_until {
            self.jitter += (interval / 2.0).min(0.2) * (spread - self.jitter);
        } else if self.jitter == 0.0 {
            self.jitter = spread.min(0.003);
        } else {
            self.jitter = self.jitter.min(spread);
        }
    }

    fn measure_delivery(&mut self, sample: &PathSample) {
        let span = self.rtt().max(3.0 * sample.interval.as_secs_f64());
        self.arrivals.push_back((
            sample.receiver_clock.as_secs_f64(),
            sample.received_bytes as f64,
            self.now,
        ));
        while self.arrivals.len() > 2 && self.arrivals.front().is_some_and(|&(_, _, at)| at < self.now - span)
        {
            self.arrivals.pop_front();
        }
        if let (Some(first), Some(last)) = (self.arrivals.front(), self.arrivals.back()) {
            let elapsed = last.0 - first.0;
            if elapsed > 0.4 * span {
                self.delivery = (last.1 - first.1) / elapsed;
            }
        }
        let carried = self.delivery / (1.0 - self.random_loss).max(0.5);
        self.best_delivery.set_window(Duration::from_secs_f64(10.0 * self.rtt()));
        self.best_delivery.insert(sample.now, -carried);
    }

    /// Loss share and packets of a window that has just closed.
    fn count_loss(&mut self, sample: &PathSample) -> Option<(f64, f64)> {
        self.loss.arrived += sample.arrived_packets as f64;
        self.loss.lost += sample.lost_packets as f64;
        if let Some(test) = self.test.as_mut().filter(|test| self.now >= test.count_from) {
            test.arrived += sample.arrived_packets as f64;
            test.lost += sample.lost_packets as f64;
        }
        let span = self.rtt().max(3.0 * sample.interval.as_secs_f64());
        let (age, packets) = (self.now - self.loss.since, self.loss.arrived + self.loss.lost);
        if (age >= span && packets >= 100.0) || (age >= 4.0 * span && packets >= 30.0) {
            let share = self.loss.lost / packets;
            self.forget_loss(0.0);
            return Some((share, packets));
        }
        None
    }

    fn forget_loss(&mut self, pause: f64) {
        self.loss = LossWindow { since: self.now + pause, ..LossWindow::default() };
    }

    fn start(&mut self, dt: f64, closed: Option<(f64, f64)>, idle: bool) {
        let rtt = self.rtt();
        if self.now - self.start_checked > rtt {
            if self.start_best > 0.0 && self.best() < 1.25 * self.start_best && !idle {
                self.plateaus += 1;
            } else {
                self.plateaus = 0;
            }
            (self.start_best, self.start_checked) = (self.best(), self.now);
        }
        let mut lossy = false;
        if let Some((share, packets)) = closed {
            let sigma = (self.start_loss.max(0.01) / packets).sqrt();
            lossy = share > self.start_loss + 0.12 + 3.0 * sigma && share > 0.15;
            self.start_loss = (self.start_loss + share) / 2.0;
        }
        let queue_limit = (2.0 * self.queue_target()).max((self.base_rtt() / 8.0).clamp(0.002, 0.016));
        if self.q > queue_limit || lossy || self.plateaus >= 3 {
            if lossy && self.q <= queue_limit {
                self.shrink_queue_target();
            }
            let best = self.best();
            self.phase = Phase::Drain;
            self.window = (best * (self.loop_base() + self.queue_target())).max(8.0 * PACKET);
            self.drain_window = (0.8 * best * self.loop_base()).max(4.0 * PACKET);
            self.drain_until = self.now + 2.5 * rtt;
            self.forget_loss(rtt);
        } else if !idle {
            self.window *= 2f64.powf((dt / rtt).min(1.0));
        }
    }

    fn drain(&mut self, closed: Option<(f64, f64)>) {
        if let Some((share, _)) = closed {
            self.random_loss = share.min(RANDOM_LOSS_MAX);
        }
        let rtt = self.rtt();
        let emptied = self.q < 0.5 * self.queue_target() && self.now > self.drain_until - 1.2 * rtt;
        if self.now > self.drain_until || emptied {
            self.phase = Phase::Track;
            self.drain_until = 0.0;
            let full = (self.best() * (self.loop_base() + self.queue_target())).max(8.0 * PACKET);
            self.window = full.min(self.window);
            self.velocity = 0.02;
            self.velocity_from = self.now;
            self.last_drain = self.now;
            self.forget_loss(rtt);
        }
    }

    fn track(&mut self, dt: f64, closed: Option<(f64, f64)>, sample: &PathSample) {
        self.attribute_loss(closed);
        if self.now < self.drain_until {
            return;
        }
        self.queue_scale = (self.queue_scale * 0.02f64.mul_add(dt, 1.0)).min(1.0);
        let target = self.queue_target();
        let share = (dt / self.rtt()).min(1.0);
        if self.q < 0.3 * target {
            if self.test.is_none() && !sample.idle {
                self.grow(share);
            }
        } else {
            self.growth = None;
            if self.now >= self.velocity_from {
                self.velocity = 0.02;
                self.velocity_from = self.now;
            }
            let ratio = (self.loop_base() + target) / (self.loop_base() + self.q);
            if ratio < 1.0 || (self.test.is_none() && !sample.idle) {
                self.window *= (0.7 * (ratio - 1.0)).mul_add(share, 1.0);
            }
        }
        if self.window > 1.06 * self.window_high {
            self.window_high = f64::INFINITY;
        }
        self.refresh_base();
    }

    /// There is no queue: bandwidth is free.
    fn grow(&mut self, share: f64) {
        let near_high = self.window > 0.98 * self.window_high && self.window < 1.05 * self.window_high;
        if self.now > self.velocity_from + self.rtt() {
            self.velocity = (self.velocity * 2.0).min(if near_high { 0.01 } else { 0.25 });
            self.velocity_from = self.now;
        }
        if self.now < self.velocity_from {
            return;
        }
        self.window *= self.velocity.mul_add(share, 1.0);
        let Some((window, delivery, since)) = self.growth else {
            self.growth = Some((self.window, self.delivery, self.now));
            return;
        };
        if self.window > 1.1 * window && self.now - since > 2.0 * self.rtt() {
            // The window grew, the delivery rate did not, and loss rose: a queue too short to be seen overflows.
            let gained = self.delivery / delivery.max(1.0) - 1.0;
            let recent = self.loss.lost / (self.loss.arrived + self.loss.lost).max(1.0);
            let expected = self.random_loss + 0.02 + 2.0 * (self.random_loss.max(0.01) / 100.0).sqrt();
            if gained < 0.3 * (self.window / window - 1.0) && recent > expected {
                self.window_high = window;
                self.window = window * 1.01;
                self.shrink_queue_target();
                self.velocity = 0.005;
                self.velocity_from = self.now + self.rtt();
            }
            self.growth = None;
        }
    }

    fn attribute_loss(&mut self, closed: Option<(f64, f64)>) {
        if let Some(test) = self.test {
            self.judge(&test);
            return;
        }
        let Some((share, packets)) = closed else {
            return;
        };
        let sigma = (self.random_loss.max(0.5 * share).max(0.001) * (1.0 - share) / packets).sqrt();
        let excess = share - self.random_loss;
        if excess > (2.5 * sigma).max(0.01) && self.now >= self.drain_until && self.now > self.recover_until {
            let cut = excess.clamp(0.05, 0.3);
            self.test = Some(LossTest {
                count_from: self.now + self.rtt(),
                give_up: self.now + 12.0 * self.rtt(),
                window_before: self.window,
                loss_before: share,
                cut,
                arrived: 0.0,
                lost: 0.0,
            });
            self.window *= 1.0 - cut;
            self.velocity = 0.01;
            return;
        }
        let follow = if excess < 0.0 {
            0.3
        } else if excess < sigma {
            0.03
        } else {
            0.0
        };
        self.random_loss = (self.random_loss + follow * excess).min(RANDOM_LOSS_MAX);
    }

    /// Ends a loss test once enough packets sent at the lower rate have been accounted for.
    fn judge(&mut self, test: &LossTest) {
        let packets = test.arrived + test.lost;
        let age = self.now - test.count_from;
        if !((packets >= 100.0 && age > self.rtt()) || self.now > test.give_up) {
            return;
        }
        let after = if packets > 0.0 { test.lost / packets } else { 1.0 };
        self.test = None;
        self.forget_loss(0.0);
        let excess = test.loss_before - self.random_loss;
        if test.loss_before - after < 0.5 * excess && after < 0.3 {
            let mean = (after + test.loss_before) / 2.0;
            self.random_loss = (self.random_loss + 0.7 * (mean - self.random_loss)).min(RANDOM_LOSS_MAX);
            self.window = self.window.max(test.window_before);
            self.verdicts = 0;
            return;
        }
        self.verdicts += 1;
        self.window_high = test.window_before * (1.0 - 0.5 * test.cut);
        let target = self.queue_target();
        if self.q < 2.0 * target && (self.verdicts >= 2 || self.q < 0.3 * target) {
            self.shrink_queue_target();
        }
        self.velocity = 0.005;
        self.velocity_from = self.now + self.rtt();
        self.recover_until = self.now + self.rtt();
    }

    /// The queue overflows before it reaches its target: aim lower, but not below half of what was seen to fit.
    fn shrink_queue_target(&mut self) {
        let unscaled = (self.queue_target() / self.queue_scale.max(1e-9)).max(1e-9);
        let floor = 0.5 * self.peak() / unscaled;
        self.queue_scale = (self.queue_scale * 0.7).max(floor).min(self.queue_scale).max(0.1);
    }

    /// Lets the queue run empty once in ten seconds, so that the base delay stays true.
    fn refresh_base(&mut self) {
        if self.now - self.last_empty > 10.0 && self.now - self.last_drain > 10.0 {
            self.last_drain = self.now;
            self.drain_window = (0.8 * self.best() * self.loop_base()).max(4.0 * PACKET);
            self.drain_until = self.now + 1.5 * self.rtt();
            self.forget_loss(2.5 * self.rtt());
        }
    }

    fn clip(&mut self) {
        if self.phase != Phase::Start {
            self.window = self.window.min(2.5 * self.best() * self.rtt() + 16.0 * PACKET);
        }
        let most = if self.target.is_finite() { self.target * (self.rtt() + 0.01) * 1.1 } else { 4e9 };
        self.window = self.window.clamp(4.0 * PACKET, most.max(8.0 * PACKET));
    }
}
