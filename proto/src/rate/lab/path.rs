//! The bottleneck: a queue with a limit, a rate that may change, loss of several kinds, jitter, a policer, outages.

use std::collections::VecDeque;
use std::time::Duration;

use super::Packet;

/// Loss on the path, after the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Loss {
    /// Each packet by itself.
    Random(f64),
    /// In bursts (Gilbert and Elliott): mean share, mean length of a burst in packets.
    Bursts(f64, f64),
}

/// What the path becomes at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// Another rate, bit/s.
    Rate(f64),
    /// Nothing passes, either way.
    Outage(bool),
}

#[derive(Debug, Clone)]
pub(crate) struct PathConfig {
    /// Bit/s.
    pub(super) rate: f64,
    /// Bytes that may wait.
    pub(super) queue: u64,
    pub(super) loss: Loss,
    /// Each packet is held up to this long beyond the delay.
    pub(super) jitter: Duration,
    /// The jitter moves from level to level in a straight line and no packet overtakes, rather than from packet to packet.
    pub(super) wanders: bool,
    /// Packets beyond the rate are dropped rather than queued.
    pub(super) policed: bool,
    /// Bit/s of the way back.
    pub(super) back_rate: f64,
    /// Share of packets lost on the way back.
    pub(super) back_loss: f64,
    pub(super) changes: Vec<(Duration, Change)>,
}

impl PathConfig {
    /// `mbit` Mbit/s with a queue of `bdp` times the product of rate and `rtt`.
    pub(super) fn new(mbit: f64, rtt: Duration, bdp: f64) -> Self {
        let rate = mbit * 1e6;
        Self {
            rate,
            queue: ((rate / 8.0 * rtt.as_secs_f64() * bdp) as u64).max(10_000),
            loss: Loss::Random(0.0),
            jitter: Duration::ZERO,
            wanders: false,
            policed: false,
            back_rate: f64::INFINITY,
            back_loss: 0.0,
            changes: Vec::new(),
        }
    }

    pub(super) fn change(mut self, at: f64, change: Change) -> Self {
        self.changes.push((Duration::from_secs_f64(at), change));
        self
    }

    pub(super) fn jitter(self, jitter: Duration, wanders: bool) -> Self {
        Self { jitter, wanders, ..self }
    }

    /// Share of packets lost on the way.
    pub(super) fn loss_share(&self) -> f64 {
        match self.loss {
            Loss::Random(share) | Loss::Bursts(share, _) => share,
        }
    }

    pub(super) fn loss(self, share: f64) -> Self {
        Self { loss: Loss::Random(share), back_loss: share, ..self }
    }
}

/// What became of a packet that was offered.
pub(crate) enum Offer {
    Dropped,
    Queued,
    /// It is the first: it has left at that time.
    Serving(Duration),
}

pub(crate) struct Path {
    config: PathConfig,
    queue: VecDeque<Packet>,
    waiting: u64,
    dark: bool,
    in_burst: bool,
    tokens: (f64, Duration),
    back_free: Duration,
    latest: Vec<Duration>,
    /// Number of the step, levels at its ends.
    wander: (u128, f64, f64),
    random: u64,
}

/// Time from one level of wandering jitter to the next.
const WANDER_STEP: Duration = Duration::from_millis(20);

/// Bytes that a policer lets pass at once.
const POLICER_BURST: f64 = 64_000.0;

impl Path {
    pub(super) fn new(config: PathConfig, seed: u64, flows: usize) -> Self {
        Self {
            config,
            queue: VecDeque::new(),
            waiting: 0,
            dark: false,
            in_burst: false,
            tokens: (POLICER_BURST, Duration::ZERO),
            back_free: Duration::ZERO,
            latest: vec![Duration::ZERO; flows],
            wander: (0, 0.0, 0.0),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub(super) fn steps(&self) -> Vec<Duration> {
        self.config.changes.iter().map(|&(at, _)| at).collect()
    }

    pub(super) fn step(&mut self, number: usize) {
        match self.config.changes[number].1 {
            Change::Rate(rate) => self.config.rate = rate,
            Change::Outage(dark) => self.dark = dark,
        }
    }

    /// Uniform in 0..1 (xorshift64*).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn serve(&self, size: u32) -> Duration {
        // Behind a policer there is a wire as fast as any.
        let rate = if self.config.policed { 20.0 * self.config.rate } else { self.config.rate };
        Duration::from_secs_f64(f64::from(size) * 8.0 / rate)
    }

    pub(super) fn offer(&mut self, now: Duration, packet: Packet) -> Offer {
        let size = u64::from(packet.size);
        if self.config.policed {
            let (tokens, since) = self.tokens;
            let gained = now.saturating_sub(since).as_secs_f64() * self.config.rate / 8.0;
            let tokens = (tokens + gained).min(POLICER_BURST);
            let passes = tokens >= size as f64;
            self.tokens = (tokens - if passes { size as f64 } else { 0.0 }, now);
            if !passes {
                return Offer::Dropped;
            }
        }
        if self.waiting + size > self.config.queue && !self.queue.is_empty() {
            return Offer::Dropped;
        }
        self.waiting += size;
        self.queue.push_back(packet);
        if self.queue.len() == 1 { Offer::Serving(now + self.serve(packet.size)) } else { Offer::Queued }
    }

    /// The first packet has left: itself, unless it is lost, and when the next one will have left.
    pub(super) fn depart(&mut self, now: Duration) -> (Option<Packet>, Option<Duration>) {
        let packet = self.queue.pop_front();
        self.waiting -= packet.map_or(0, |packet| u64::from(packet.size));
        let next = self.queue.front().map(|next| now + self.serve(next.size));
        let lost = self.is_lost();
        (packet.filter(|_| !lost), next)
    }

    fn is_lost(&mut self) -> bool {
        let chance = self.chance();
        self.dark
            || match self.config.loss {
                Loss::Random(share) => chance < share,
                Loss::Bursts(share, length) => {
                    let leave = 1.0 / length;
                    let enter = leave * share / (1.0 - share);
                    self.in_burst = if self.in_burst { chance >= leave } else { chance < enter };
                    self.in_burst
                }
            }
    }

    /// When a packet arrives that would without jitter.
    pub(super) fn arrival(&mut self, at: Duration, flow: usize) -> Duration {
        let share = if self.config.wanders { self.wander(at) } else { self.chance() };
        let late = self.config.jitter.mul_f64(share);
        if !self.config.wanders {
            // From packet to packet: they overtake each other.
            return at + late;
        }
        let latest = &mut self.latest[flow];
        *latest = (at + late).max(*latest);
        *latest
    }

    fn wander(&mut self, at: Duration) -> f64 {
        let step = at.as_nanos() / WANDER_STEP.as_nanos();
        while self.wander.0 < step {
            let level = self.chance();
            let next = if self.wander.0 + 1000 < step { step } else { self.wander.0 + 1 };
            self.wander = (next, self.wander.2, level);
        }
        let (_, from, to) = self.wander;
        let passed = (at.as_nanos() % WANDER_STEP.as_nanos()) as f64 / WANDER_STEP.as_nanos() as f64;
        (to - from).mul_add(passed, from)
    }

    /// When something that goes back has left the bottleneck of the way back, if it is not lost.
    pub(super) fn back(&mut self, now: Duration, size: u32) -> Option<Duration> {
        let lost = self.chance() < self.config.back_loss || self.dark;
        let serve = f64::from(size) * 8.0 / self.config.back_rate;
        self.back_free = self.back_free.max(now) + Duration::from_secs_f64(serve);
        (!lost).then_some(self.back_free)
    }

    pub(super) fn queue_delay(&self) -> Duration {
        Duration::from_secs_f64(self.waiting as f64 * 8.0 / self.config.rate)
    }
}
