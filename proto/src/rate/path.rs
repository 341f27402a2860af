//! What the reports say about the path: delay without queue, queueing delay, jitter, delivery rate. Not here: decisions.
//!
//! Times are seconds, amounts bytes of UDP payload.

use std::collections::VecDeque;
use std::time::Duration;

use super::PathSample;
use crate::constants::SHORT_PATH;
use crate::min_filter::MinFilter;
use crate::units::Rate;

/// The least delay of this time is taken as that of an empty queue; clocks drift by up to 1 ms in 10 s meanwhile.
const BASE_WINDOW: Duration = Duration::from_secs(30);
/// The jitter follows over these times, upwards and downwards.
const JITTER_TIME: (f64, f64) = (1.0, 2.0);
/// Jitter is what changes the delay within this time: a queue of our own moves by a millisecond meanwhile.
const JITTER_STEP: f64 = 0.02;
/// The queue's highest stand is remembered this long.
const PEAK_WINDOW: Duration = Duration::from_secs(10);
/// Peaks below this say little: they may be jitter, or batches of our own.
const ROOM_KNOWN: f64 = 0.002;
/// Share of its peak below which a queue surely drops nothing.
const ROOM_SHARE: f64 = 0.5;
/// The queue is the least delay of this while, or of a report if that is longer, seconds ...
const LEAST_WHILE: f64 = 0.008;
/// ... averaged over this share of the round-trip time.
const SMOOTHING: f64 = 0.25;
/// The usual queue is that of so many seconds, or round trips if that is longer.
const USUAL_TIME: (f64, f64) = (2.0, 8.0);
/// Longer queueing delays, and round trips, are taken as this, seconds: a clock that jumps, or a peer that lies.
const LONGEST: f64 = 10.0;
/// Arrivals that are remembered to measure the delivery rate.
const MOST_ARRIVALS: usize = 4096;
/// The highest delivery rate is remembered for ten round trips, and this long, seconds: a process that waits for a
/// processor delivers nothing meanwhile.
const LEAST_BEST: f64 = 0.1;

/// The path as the reports show it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) now: f64,
    /// Since the report before.
    pub(super) dt: f64,
    last_report: f64,
    /// Usual time between reports: it delays the news of an arrival as distance does.
    gap: f64,
    base: MinFilter,
    base_rtt: MinFilter,
    queue: MinFilter,
    peak: MinFilter,
    crest: MinFilter,
    jitter: f64,
    /// Queueing delay of some time ago, and when.
    earlier: (f64, f64),
    /// Receiver's clock, bytes, our clock.
    arrivals: VecDeque<(f64, f64, f64)>,
    /// Bytes a second that arrived in the last round trip.
    pub(super) delivery: f64,
    best: MinFilter,
    /// Standing queue, seconds.
    pub(super) queueing: f64,
    /// The same over a longer time.
    pub(super) usual_queue: f64,
}

impl Path {
    pub(super) fn new(now: f64) -> Self {
        let second = Duration::from_secs(1);
        Self {
            now,
            dt: 0.0,
            last_report: now,
            gap: 0.0,
            base: MinFilter::new(BASE_WINDOW),
            base_rtt: MinFilter::new(BASE_WINDOW),
            queue: MinFilter::new(second),
            peak: MinFilter::new(PEAK_WINDOW),
            crest: MinFilter::new(second),
            jitter: 0.0,
            earlier: (0.0, now),
            arrivals: VecDeque::new(),
            delivery: 0.0,
            best: MinFilter::new(second),
            queueing: 0.0,
            usual_queue: 0.0,
        }
    }

    /// Takes a report. `random_loss` is the share that is lost whatever the rate; `steady`: the queue is as wanted.
    pub(super) fn on_report(&mut self, sample: &PathSample, random_loss: f64, steady: bool) {
        self.now = sample.now.as_secs_f64();
        self.dt = (self.now - self.last_report).clamp(0.0, 0.2);
        self.last_report = self.now;
        let gap = self.dt.min(0.1);
        self.gap = if self.gap == 0.0 { gap.min(0.005) } else { 0.1f64.mul_add(gap - self.gap, self.gap) };
        if let Some(rtt) = sample.rtt {
            self.base_rtt.insert(sample.now, rtt.as_secs_f64());
        }
        if sample.arrived_packets > 0 && sample.delay_min <= sample.delay_max {
            self.measure_delay(sample, steady);
        }
        self.measure_delivery(sample, random_loss);
    }

    fn measure_delay(&mut self, sample: &PathSample, steady: bool) {
        let (at, interval) = (sample.now, sample.interval.as_secs_f64());
        self.base.insert(at, sample.delay_min);
        let base = self.base.minimum().unwrap_or(sample.delay_min);
        // The least delay of a short while, whatever the distance, so that flows of all distances see the same queue.
        self.queue.set_window(Duration::from_secs_f64(interval.max(LEAST_WHILE)));
        self.queue.insert(at, sample.delay_min - base);
        let queue = self.queue.minimum().unwrap_or(0.0).min(LONGEST);
        let share = (self.dt / (SMOOTHING * self.base_rtt())).min(1.0);
        self.queueing = (self.queueing + share * (queue - self.queueing)).max(0.0);
        let long = (USUAL_TIME.1 * self.base_rtt()).max(USUAL_TIME.0);
        self.usual_queue += (self.dt / long).min(1.0) * (queue - self.usual_queue);
        self.peak.insert(at, base - sample.delay_max);
        self.crest.set_window(Duration::from_secs_f64((1.5 * self.rtt()).max(3.0 * interval)));
        self.crest.insert(at, base - sample.delay_max);
        // While a queue grows or is let out its own change would look like jitter.
        let (before, since) = self.earlier;
        let passed = self.now - since;
        if passed >= JITTER_STEP {
            let change = (queue - before).abs();
            let (rise, fall) = JITTER_TIME;
            let time = if change > self.jitter { rise } else { fall };
            let share = if steady { (passed / time).min(0.2) } else { 0.0 };
            self.jitter += share * (change - self.jitter);
            self.earlier = (queue, self.now);
        }
    }

    fn measure_delivery(&mut self, sample: &PathSample, random_loss: f64) {
        let span = self.rtt().max(3.0 * sample.interval.as_secs_f64());
        let bytes = sample.received_bytes as f64;
        self.arrivals.push_back((sample.receiver_clock.as_secs_f64(), bytes, self.now));
        let old = self.now - span;
        while self.arrivals.len() > MOST_ARRIVALS
            || (self.arrivals.len() > 2 && self.arrivals.front().is_some_and(|&(_, _, at)| at < old))
        {
            self.arrivals.pop_front();
        }
        if let (Some(first), Some(last)) = (self.arrivals.front(), self.arrivals.back()) {
            let elapsed = last.0 - first.0;
            if elapsed > 0.4 * span {
                self.delivery = (last.1 - first.1) / elapsed;
            }
        }
        self.best.set_window(Duration::from_secs_f64((10.0 * self.rtt()).max(LEAST_BEST)));
        self.best.insert(sample.now, -self.delivery / (1.0 - random_loss));
    }

    /// Takes a round-trip time that is known from elsewhere.
    pub(super) fn set_rtt(&mut self, now: Duration, rtt: Duration) {
        self.base_rtt.insert(now, rtt.as_secs_f64());
    }

    /// Forgets the delivery rate: what is to come has nothing to do with what was.
    pub(super) fn forget_delivery(&mut self) {
        self.arrivals.clear();
        self.delivery = 0.0;
    }

    /// The way itself has become longer: what looked like a queue is none.
    pub(super) fn rebase(&mut self) {
        let delay = self.base.minimum().unwrap_or(0.0) + self.queueing;
        let rtt = self.base_rtt() + self.queueing;
        let now = Duration::from_secs_f64(self.now);
        (self.base, self.base_rtt) = (MinFilter::new(BASE_WINDOW), MinFilter::new(BASE_WINDOW));
        self.base.insert(now, delay);
        self.base_rtt.insert(now, rtt);
        self.queueing = 0.0;
        self.usual_queue = 0.0;
        self.peak = MinFilter::new(PEAK_WINDOW);
    }

    /// Whether delays are those of processors rather than of the network.
    pub(super) fn is_short(&self) -> bool {
        self.base_rtt() < SHORT_PATH.as_secs_f64()
    }

    /// Whether a round-trip time has been measured.
    pub(super) fn is_known(&self) -> bool {
        self.base_rtt.minimum().is_some()
    }

    /// Round-trip time without queue.
    pub(super) fn base_rtt(&self) -> f64 {
        self.base_rtt.minimum().unwrap_or(0.1)
    }

    /// From sending to the news of arrival, without queue. On short paths the reports take most of it.
    pub(super) fn loop_base(&self) -> f64 {
        self.base_rtt() + self.gap
    }

    /// From sending to the news of arrival.
    pub(super) fn rtt(&self) -> f64 {
        (self.loop_base() + self.queueing.max(0.0)).clamp(1e-5, LONGEST)
    }

    /// Highest delivery rate of the last ten round trips or tenth of a second, before random loss.
    pub(super) fn best(&self) -> f64 {
        -self.best.minimum().unwrap_or(0.0)
    }

    /// Longest queueing delay of the last ten seconds.
    pub(super) fn peak(&self) -> f64 {
        -self.peak.minimum().unwrap_or(0.0)
    }

    /// Whether the queue has lately stayed far below what it is known to hold: what is lost then, it has not dropped.
    pub(super) fn has_room(&self) -> bool {
        self.peak() > ROOM_KNOWN && self.crest() < ROOM_SHARE * self.peak()
    }

    /// Longest queueing delay of the last round trip.
    pub(super) fn crest(&self) -> f64 {
        -self.crest.minimum().unwrap_or(0.0)
    }

    /// Bytes a second that arrived in the last round trip.
    pub(super) fn delivery_rate(&self) -> Rate {
        Rate::from_bytes_per_second(self.delivery)
    }

    /// Standing queue.
    pub(super) fn queue_delay(&self) -> Duration {
        Duration::try_from_secs_f64(self.queueing).unwrap_or_default()
    }

    /// Round-trip time without queue, once one has been measured.
    pub(super) fn known_base_rtt(&self) -> Option<Duration> {
        self.base_rtt.minimum().and_then(|rtt| Duration::try_from_secs_f64(rtt).ok())
    }

    /// Usual change of the queueing delay within [`JITTER_STEP`].
    pub(super) const fn jitter(&self) -> f64 {
        self.jitter
    }
}
