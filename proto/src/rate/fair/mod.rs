//! Delay-bounded rate: fills the path and keeps the standing queue short, whatever the random loss.
//!
//! A window law in the family of FAST TCP and Copa (NSDI 2018): the window follows `base / measured` delay towards a
//! small queue of `q* = weight x 3 ms / sqrt(rate / 100 Mbit/s)`, so that flows share a bottleneck by the square of
//! their weights, independently of their round-trip times, and the queue grows only with the root of their number.
//!
//! - **Start**: the dispersion of the first packets tells the narrowest link's rate. Half of it is sent for a round trip;
//!   if that builds no queue, all of it. Where trains tell nothing, the window doubles every round trip instead.
//! - **Drain**: the queue is let out for two round trips, after Start or when it has grown far beyond its target, and
//!   what has been delivered becomes the new window. A queue that stays is somebody else's.
//! - **Track**: the window law, at each report. Loss does not slow it as such, see [`loss`].
//! - **Rival**: beside flows that keep the queue full, see [`rival`].

mod drain;
mod loss;
mod rival;
mod start;
mod track;
mod trains;

use std::time::Duration;

use super::path::Path;
use super::{PathSample, RateConfig};
use crate::constants::FIRST_FLIGHT_PACKETS;
use crate::units::Rate;
use drain::Drain;
use loss::Loss;
use rival::Rival;
use start::Start;
use trains::Trains;

/// Queue target of one fair flow at [`REFERENCE_RATE`], seconds (simulated: 2.5 to 3 ms did best).
const QUEUE_TARGET: f64 = 0.003;
/// 100 Mbit/s, in bytes per second.
const REFERENCE_RATE: f64 = 12.5e6;
/// Least and largest queue target, seconds.
const QUEUE_BOUNDS: (f64, f64) = (0.0002, 0.1);
/// Least queue target where delays are those of processors, which wake late by as much, seconds.
const SHORT_QUEUE: f64 = 0.002;
/// Change of the queueing delay that is no jitter, in units of the queue that one flow makes here and at most in seconds,
/// and how much is allowed for what is beyond it.
const JITTER_ALLOWANCE: (f64, f64, f64) = (0.4, 0.001, 2.0);
/// A queue below this share of its target is none, with what jitter alone may add to it.
const NO_QUEUE: (f64, f64) = (0.3, 1.5);
/// Bytes of a typical datagram, for windows counted in packets.
const PACKET: f64 = 1450.0;
/// Least window.
const LEAST_WINDOW: f64 = 4.0 * PACKET;
/// The pacing rate exceeds window / RTT by this, so that the window binds and not the pacing.
const PACING_GAIN: f64 = 1.02;
/// With more loss than this the minimum rate is not held.
const UNBEARABLE_LOSS: f64 = 0.5;
/// Growth of the window in a round trip while there is no queue: at first, at most, and near where it overflowed.
const VELOCITY: (f64, f64, f64) = (0.02, 0.25, 0.01);

#[derive(Debug, Clone, Copy)]
enum Phase {
    Start(Start),
    Drain(Drain),
    Track,
    Rival(Rival),
}

/// Delay-bounded controller. All times are seconds, all amounts bytes.
#[derive(Debug)]
pub struct Fair {
    weight: f64,
    target: f64,
    minimum: f64,
    phase: Phase,
    window: f64,
    path: Path,
    trains: Trains,
    loss: Loss,
    velocity: f64,
    velocity_from: f64,
    verdicts: u32,
    queue_scale: f64,
    /// Window at which the queue overflowed.
    window_high: f64,
    growth: Option<(f64, f64, f64)>,
    start_best: f64,
    start_checked: f64,
    plateaus: u32,
    start_loss: f64,
    /// Until when the window is held low to see the base delay.
    refresh: Option<(f64, f64)>,
    last_empty: f64,
    /// When there was last a queue worth the name.
    last_queue: f64,
    next_drain: f64,
    /// When there was last less to send than allowed: the delivery rate then says little of the path.
    last_idle: f64,
    /// Window before the receiver fell silent.
    before_silence: Option<f64>,
    /// From when on the delivery rate is that of the present window.
    settled_from: f64,
    /// Since when, from which window and which queue on the window has been giving way.
    yielding: Option<(f64, f64, f64)>,
}

impl Fair {
    /// A controller that knows nothing of the path.
    #[must_use]
    pub fn new(now: Duration, weight: f64, config: RateConfig) -> Self {
        let now = now.as_secs_f64();
        Self {
            weight,
            target: config.target.map_or(f64::INFINITY, Rate::bytes_per_second),
            minimum: config.minimum.map_or(0.0, Rate::bytes_per_second),
            phase: Phase::Start(Start::First),
            window: FIRST_FLIGHT_PACKETS as f64 * PACKET,
            path: Path::new(now),
            trains: Trains::default(),
            loss: Loss::new(now),
            velocity: VELOCITY.0,
            velocity_from: 0.0,
            verdicts: 0,
            queue_scale: 1.0,
            window_high: f64::INFINITY,
            growth: None,
            start_best: 0.0,
            start_checked: now,
            plateaus: 0,
            start_loss: 0.0,
            refresh: None,
            last_empty: now,
            last_queue: now,
            next_drain: 0.0,
            last_idle: 0.0,
            before_silence: None,
            settled_from: 0.0,
            yielding: None,
        }
    }

    /// A controller that follows another one, over a path of which only this is known.
    pub(super) fn going_on(
        now: Duration,
        weight: f64,
        config: RateConfig,
        rtt: Duration,
        rate: Rate,
    ) -> Self {
        let mut controller = Self::new(now, weight, config);
        if !rtt.is_zero() {
            controller.path.set_rtt(now, rtt);
            controller.resume(rate.bytes_per_second() * rtt.as_secs_f64());
        }
        controller
    }

    /// Takes other settings and keeps what has been learnt.
    pub(super) fn set_config(&mut self, weight: f64, config: RateConfig) {
        let held = self.is_at_target();
        self.weight = weight;
        self.minimum = config.minimum.map_or(0.0, Rate::bytes_per_second);
        self.target = config.target.map_or(f64::INFINITY, Rate::bytes_per_second);
        if held && !self.is_at_target() {
            // It was not the path that held: the way up is known to be free at first.
            self.velocity = VELOCITY.1;
            self.velocity_from = self.path.now;
        }
    }

    pub(super) fn on_report(&mut self, sample: &PathSample) {
        if sample.arrived_packets > 0 {
            self.end_silence();
        }
        let steady = matches!(self.phase, Phase::Track) && self.refresh.is_none();
        self.path.on_report(sample, self.loss.random, steady);
        let rtt = self.path.rtt();
        self.trains.on_report(sample, self.path.dt, self.path.base_rtt().clamp(0.02, 0.1));
        self.loss.on_report(self.path.now, sample, rtt);
        if self.path.queueing < (0.1 * self.queue_target().max(0.0005)).max(0.05 * self.path.peak()) {
            self.last_empty = self.path.now;
        }
        if sample.idle {
            self.last_idle = self.path.now;
        }
        match self.phase {
            Phase::Start(start) => self.start(start, sample.idle),
            Phase::Drain(drain) => self.drain(drain),
            Phase::Track => self.track(sample),
            Phase::Rival(rival) => self.rival(rival, sample),
        }
        self.clip();
        self.trace(sample);
    }

    fn trace(&self, sample: &PathSample) {
        tracing::trace!(
            phase = self.phase(),
            window = self.window,
            rtt_ms = self.path.rtt() * 1e3,
            queue_ms = self.path.queueing * 1e3,
            target_ms = self.queue_target() * 1e3,
            base_rtt_ms = self.path.base_rtt() * 1e3,
            jitter_ms = self.path.jitter() * 1e3,
            delivery_mbit = self.path.delivery * 8e-6,
            best_mbit = self.path.best() * 8e-6,
            trains_mbit = self.trains.rate().map_or(0.0, |rate| rate * 8e-6),
            random_loss = self.loss.random,
            testing = self.loss.is_testing(),
            queue_scale = self.queue_scale,
            lost = sample.lost_packets,
            arrived = sample.arrived_packets,
            idle = sample.idle,
        );
    }

    pub(super) fn on_silence(&mut self) {
        if self.path.is_known() {
            self.before_silence.get_or_insert(self.window);
        }
        self.window = (self.window / 2.0).max(LEAST_WINDOW);
    }

    /// Reports come again: half of what went before is tried first.
    fn end_silence(&mut self) {
        let Some(window) = self.before_silence.take() else {
            return;
        };
        if self.window > 0.4 * window {
            self.window = window;
            return;
        }
        self.path.forget_delivery();
        self.resume(window);
    }

    /// Goes on where `window` has been enough: with half of it, and if that makes no queue, with all.
    fn resume(&mut self, window: f64) {
        let rtt = self.path.loop_base();
        self.loss.forget(self.path.now + rtt + self.path.dt);
        self.window = (0.5 * window).max(LEAST_WINDOW);
        self.phase = Phase::Start(Start::Half { until: self.path.now + 1.5 * rtt, hope: window / rtt });
        self.reset_growth();
    }

    pub(super) fn rate(&self) -> Rate {
        if !self.path.is_known() {
            // The first train leaves back to back: its dispersion tells the bottleneck.
            return Rate::from_bytes_per_second(self.target.min(125e6));
        }
        let gain = if matches!(self.phase, Phase::Start(_)) { 1.0 } else { PACING_GAIN };
        let rate = gain * self.allowed() / self.path.rtt();
        Rate::from_bytes_per_second(rate.max(self.least_rate()).min(self.target))
    }

    /// The minimum rate: not into silence, nor where most of it is lost.
    fn least_rate(&self) -> f64 {
        let in_vain = self.before_silence.is_some() || self.loss.recent() > UNBEARABLE_LOSS;
        if in_vain { 0.0 } else { self.minimum.min(self.target) }
    }

    pub(super) fn is_at_target(&self) -> bool {
        self.rate() >= Rate::from_bytes_per_second(self.target)
    }

    pub(super) fn window(&self) -> u64 {
        let least = self.least_rate() * self.path.rtt() * 1.25;
        self.allowed().max(least).max(LEAST_WINDOW) as u64
    }

    /// What the reports tell about the path.
    pub(super) const fn path(&self) -> &Path {
        &self.path
    }

    /// Share of a millisecond's traffic that may leave in one burst: less where queues are short.
    pub(super) const fn burst_share(&self) -> f64 {
        self.queue_scale
    }

    pub(super) const fn phase(&self) -> &'static str {
        match self.phase {
            Phase::Start(_) => "start",
            Phase::Drain(_) => "drain",
            Phase::Track => "track",
            Phase::Rival(_) => "rival",
        }
    }

    fn allowed(&self) -> f64 {
        match (self.phase, self.refresh) {
            (Phase::Drain(drain), _) => self.window.min(drain.window),
            (_, Some((_, window))) => self.window.min(window),
            _ => self.window,
        }
    }

    fn queue_target(&self) -> f64 {
        let rate = (self.window / self.path.rtt()).max(1000.0);
        let target = self.queue_scale * self.weight * QUEUE_TARGET * (REFERENCE_RATE / rate).sqrt();
        let least = if self.path.is_short() { SHORT_QUEUE } else { QUEUE_BOUNDS.0 };
        target.clamp(least, QUEUE_BOUNDS.1) + self.jitter_allowance()
    }

    /// What the trains promise, before random loss.
    fn promise(&self) -> Option<f64> {
        Some(self.trains.promise()? / (1.0 - self.loss.random))
    }

    /// Part of the queue target that makes up for jitter, which looks like a queue.
    fn jitter_allowance(&self) -> f64 {
        let (own, most, factor) = JITTER_ALLOWANCE;
        factor * (self.path.jitter() - (own * self.link_queue()).min(most)).max(0.0)
    }

    /// A queue below this is none: bandwidth is free.
    fn no_queue(&self) -> f64 {
        let (target, jitter) = (self.queue_target(), self.jitter_allowance());
        let (share, factor) = NO_QUEUE;
        share.mul_add(target - jitter, factor * jitter).min(target)
    }

    /// A queue beyond this is no matter of the window law any more.
    fn overrun(&self) -> f64 {
        (3.0 * self.queue_target()).max((self.path.base_rtt() / 8.0).clamp(0.002, 0.016))
    }

    /// A queue that flows of our own kind would hardly make, sixteen of them on this link.
    fn foreign_queue(&self) -> f64 {
        (4.0 * self.link_queue()).max((self.path.base_rtt() / 8.0).clamp(0.002, 0.016))
            + self.jitter_allowance()
    }

    /// The queue that one fair flow alone would make.
    fn link_queue(&self) -> f64 {
        QUEUE_TARGET * (REFERENCE_RATE / self.link().max(1000.0)).sqrt()
    }

    /// Rate of the narrowest link, as far as known.
    fn link(&self) -> f64 {
        self.trains.rate().map_or_else(|| self.path.best(), |rate| rate / (1.0 - self.loss.random))
    }

    /// This flow's share of the narrowest link.
    fn share(&self) -> f64 {
        self.path.delivery / (1.0 - self.loss.random) / self.link().max(1.0)
    }

    /// Window that delivers at `rate` with the queue as it should be.
    fn full_window(&self, rate: f64) -> f64 {
        (rate * (self.path.loop_base() + self.queue_target())).max(2.0 * LEAST_WINDOW)
    }

    fn begin_track(&mut self) {
        self.phase = Phase::Track;
        self.reset_growth();
    }

    fn reset_growth(&mut self) {
        self.velocity = VELOCITY.0;
        self.velocity_from = self.path.now;
        self.growth = None;
    }

    fn clip(&mut self) {
        let most = match self.phase {
            Phase::Start(_) => f64::INFINITY,
            Phase::Track if self.path.now < self.settled_from => f64::INFINITY,
            Phase::Drain(_) | Phase::Track | Phase::Rival(_) => {
                let ahead = if self.velocity > 0.3 { 4.0 } else { 1.4 };
                (ahead * self.path.best()).mul_add(self.path.rtt(), 16.0 * PACKET)
            }
        };
        self.window = self.window.min(most);
        let most = if self.target.is_finite() { self.target * (self.path.rtt() + 0.01) * 1.1 } else { 4e9 };
        self.window = self.window.clamp(LEAST_WINDOW, most.max(2.0 * LEAST_WINDOW));
    }
}
