//! Rival flows: a TCP sender with selective acknowledgements, and CUBIC (RFC 9438) or BBR version 1
//! (draft-cardwell-iccrg-bbr-congestion-control-00) above it. Every packet is acknowledged; what is lost is simply gone,
//! as far as rates are concerned.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Event, Net, Packet};

/// Bytes of a full segment on the wire.
const SEGMENT: u32 = 1500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Acked,
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    sent: Duration,
    /// Segments delivered when it was sent, and when the latest of these was.
    delivered: u64,
    delivered_at: Duration,
    fate: Fate,
}

pub(crate) enum Law {
    Cubic(Cubic),
    Bbr(Bbr),
}

pub(crate) struct Tcp {
    pub(super) flow: usize,
    law: Law,
    base: u64,
    segments: VecDeque<Segment>,
    flight: u64,
    highest: u64,
    recovery: u64,
    round_end: u64,
    srtt: f64,
    rtt_min: f64,
    delivered: u64,
    delivered_at: Duration,
    last_ack: Duration,
    next_send: Duration,
    woken_for: Duration,
}

/// What an acknowledgement tells a law.
struct Ack {
    now: f64,
    rtt: f64,
    rtt_min: f64,
    /// Segments a second.
    rate: f64,
    round: bool,
    flight: f64,
}

impl Tcp {
    pub(super) fn new(law: Law) -> Box<Self> {
        Box::new(Self {
            flow: 0,
            law,
            base: 0,
            segments: VecDeque::new(),
            flight: 0,
            highest: 0,
            recovery: 0,
            round_end: 0,
            srtt: 0.0,
            rtt_min: f64::INFINITY,
            delivered: 0,
            delivered_at: Duration::ZERO,
            last_ack: Duration::ZERO,
            next_send: Duration::ZERO,
            woken_for: Duration::MAX,
        })
    }

    pub(super) fn on_wake(&mut self, net: &mut Net) {
        if self.woken_for <= net.now {
            self.woken_for = Duration::MAX;
        }
        if self.delivered_at.is_zero() {
            (self.delivered_at, self.last_ack) = (net.now, net.now);
        }
        let timeout = Duration::from_secs_f64((2.0 * self.srtt).max(0.3));
        if self.flight > 0 && net.now >= self.last_ack + timeout {
            self.last_ack = net.now;
            for segment in self.segments.iter_mut().filter(|segment| segment.fate == Fate::Unknown) {
                segment.fate = Fate::Lost;
            }
            self.flight = 0;
            self.recovery = self.base + self.segments.len() as u64;
            match &mut self.law {
                Law::Cubic(cubic) => cubic.on_timeout(),
                Law::Bbr(_) => {}
            }
        }
        self.pump(net);
    }

    fn window(&self) -> f64 {
        match &self.law {
            Law::Cubic(cubic) => cubic.window,
            Law::Bbr(bbr) => bbr.window(),
        }
    }

    fn pump(&mut self, net: &mut Net) {
        while (self.flight as f64) < self.window().floor().max(1.0) {
            if let Law::Bbr(bbr) = &self.law {
                if net.now < self.next_send {
                    let at = self.next_send;
                    self.wake(net, at);
                    return;
                }
                let gap = Duration::from_secs_f64(1.0 / bbr.pacing());
                self.next_send = self.next_send.max(net.now.saturating_sub(Duration::from_millis(1))) + gap;
            }
            let number = self.base + self.segments.len() as u64;
            self.segments.push_back(Segment {
                sent: net.now,
                delivered: self.delivered,
                delivered_at: self.delivered_at,
                fate: Fate::Unknown,
            });
            self.flight += 1;
            net.send(Packet { flow: self.flow, number, size: SEGMENT });
        }
        self.wake(net, net.now + Duration::from_millis(100));
    }

    fn wake(&mut self, net: &mut Net, at: Duration) {
        if at < self.woken_for {
            self.woken_for = at;
            net.at(at, Event::Wake(self.flow));
        }
    }

    pub(super) fn on_ack(&mut self, net: &mut Net, number: u64, goes_on: bool) {
        let now = net.now;
        self.last_ack = now;
        let Some(segment) =
            number.checked_sub(self.base).and_then(|index| self.segments.get_mut(index as usize))
        else {
            return;
        };
        let was = std::mem::replace(&mut segment.fate, Fate::Acked);
        let segment = *segment;
        if was == Fate::Unknown {
            self.flight -= 1;
        }
        self.delivered += 1;
        self.delivered_at = now;
        self.highest = self.highest.max(number);
        let rtt = (now - segment.sent).as_secs_f64();
        self.srtt = if self.srtt == 0.0 { rtt } else { self.srtt + (rtt - self.srtt) / 8.0 };
        self.rtt_min = self.rtt_min.min(rtt);
        let round = number >= self.round_end;
        if round {
            self.round_end = self.base + self.segments.len() as u64;
        }
        let lost = self.declare_lost();
        let ack = Ack {
            now: now.as_secs_f64(),
            rtt,
            rtt_min: self.rtt_min,
            rate: (self.delivered - segment.delivered) as f64
                / (now - segment.delivered_at).as_secs_f64().max(1e-6),
            round,
            flight: self.flight as f64,
        };
        let in_recovery = number < self.recovery;
        match &mut self.law {
            Law::Cubic(cubic) => {
                if lost && !in_recovery {
                    cubic.on_loss();
                    self.recovery = self.base + self.segments.len() as u64;
                } else if !in_recovery {
                    cubic.on_ack(&ack, self.srtt);
                }
            }
            Law::Bbr(bbr) => bbr.on_ack(&ack),
        }
        while self.segments.front().is_some_and(|segment| segment.fate != Fate::Unknown) {
            self.segments.pop_front();
            self.base += 1;
        }
        if goes_on {
            self.pump(net);
        }
    }

    /// Three later segments have arrived: lost.
    fn declare_lost(&mut self) -> bool {
        let end = (self.highest.saturating_sub(2)).saturating_sub(self.base) as usize;
        let mut lost = false;
        // Older ones have been judged before; only a few can be news.
        let end = end.min(self.segments.len());
        for segment in self.segments.range_mut(..end) {
            if segment.fate == Fate::Unknown {
                segment.fate = Fate::Lost;
                self.flight -= 1;
                lost = true;
            }
        }
        lost
    }
}

/// CUBIC with HyStart's delay test, windows in segments.
pub(crate) struct Cubic {
    window: f64,
    threshold: f64,
    most: f64,
    epoch: Option<f64>,
    k: f64,
    origin: f64,
    friendly: f64,
    round_min: f64,
}

impl Default for Cubic {
    fn default() -> Self {
        Self {
            window: 10.0,
            threshold: f64::INFINITY,
            most: 0.0,
            epoch: None,
            k: 0.0,
            origin: 0.0,
            friendly: 0.0,
            round_min: f64::INFINITY,
        }
    }
}

const CUBIC_C: f64 = 0.4;
const CUBIC_BETA: f64 = 0.7;

impl Cubic {
    fn on_loss(&mut self) {
        self.most =
            if self.window < self.most { self.window * (1.0 + CUBIC_BETA) / 2.0 } else { self.window };
        self.window = (self.window * CUBIC_BETA).max(2.0);
        self.threshold = self.window;
        self.friendly = self.window;
        self.epoch = None;
    }

    fn on_timeout(&mut self) {
        self.threshold = (self.window * CUBIC_BETA).max(2.0);
        self.most = self.window;
        self.window = 1.0;
        self.epoch = None;
    }

    fn on_ack(&mut self, ack: &Ack, srtt: f64) {
        if self.window < self.threshold {
            self.round_min = if ack.round { ack.rtt } else { self.round_min.min(ack.rtt) };
            let late = (ack.rtt_min / 8.0).clamp(0.004, 0.016);
            if self.window >= 16.0 && self.round_min.is_finite() && self.round_min > ack.rtt_min + late {
                self.threshold = self.window;
            }
            self.window += 1.0;
            return;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.friendly = self.window;
            self.origin = self.most.max(self.window);
            self.k = ((self.origin - self.window) / CUBIC_C).cbrt();
            ack.now
        });
        let target = CUBIC_C * (ack.now - epoch + srtt - self.k).powi(3) + self.origin;
        self.friendly += 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA) / self.window;
        let target = target.clamp(self.window, 1.5 * self.window).max(self.friendly);
        self.window += (target - self.window) / self.window;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt,
}

/// BBR version 1, windows in segments.
pub(crate) struct Bbr {
    stage: Stage,
    /// Delivery rate of the last rounds.
    rates: VecDeque<(u64, f64)>,
    rounds: u64,
    full_rate: f64,
    full_rounds: u32,
    rtt: f64,
    rtt_at: f64,
    phase: usize,
    phase_at: f64,
    probe_until: Option<f64>,
}

impl Default for Bbr {
    fn default() -> Self {
        Self {
            stage: Stage::Startup,
            rates: VecDeque::new(),
            rounds: 0,
            full_rate: 0.0,
            full_rounds: 0,
            rtt: f64::INFINITY,
            rtt_at: 0.0,
            phase: 2,
            phase_at: 0.0,
            probe_until: None,
        }
    }
}

const HIGH_GAIN: f64 = 2.885;

impl Bbr {
    fn bandwidth(&self) -> f64 {
        self.rates.iter().map(|&(_, rate)| rate).fold(0.0, f64::max)
    }

    fn product(&self) -> f64 {
        if self.rtt.is_finite() { self.bandwidth() * self.rtt } else { 10.0 }
    }

    fn window(&self) -> f64 {
        match self.stage {
            Stage::ProbeRtt => 4.0,
            Stage::Startup | Stage::Drain => (HIGH_GAIN * self.product()).max(10.0),
            Stage::ProbeBandwidth => (2.0 * self.product()).max(4.0),
        }
    }

    fn pacing(&self) -> f64 {
        let gain = match self.stage {
            Stage::Startup => HIGH_GAIN,
            Stage::Drain => 1.0 / HIGH_GAIN,
            Stage::ProbeRtt => 1.0,
            Stage::ProbeBandwidth => [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0][self.phase],
        };
        let rate = if self.rates.is_empty() { 10_000.0 } else { self.bandwidth() };
        (gain * rate).max(10.0)
    }

    fn on_ack(&mut self, ack: &Ack) {
        if ack.round {
            self.rounds += 1;
        }
        let oldest = self.rounds.saturating_sub(10);
        self.rates.retain(|&(round, rate)| round >= oldest && rate > ack.rate);
        self.rates.push_back((self.rounds, ack.rate));
        let stale = ack.now > self.rtt_at + 10.0;
        if ack.rtt <= self.rtt || stale {
            (self.rtt, self.rtt_at) = (ack.rtt, ack.now);
        }
        match self.stage {
            Stage::Startup if ack.round => {
                if self.bandwidth() > 1.25 * self.full_rate {
                    (self.full_rate, self.full_rounds) = (self.bandwidth(), 0);
                } else {
                    self.full_rounds += 1;
                    if self.full_rounds >= 3 {
                        self.stage = Stage::Drain;
                    }
                }
            }
            Stage::Drain if ack.flight <= self.product() => {
                self.stage = Stage::ProbeBandwidth;
                self.phase_at = ack.now;
            }
            Stage::ProbeBandwidth => {
                let elapsed = ack.now - self.phase_at > self.rtt;
                let next = match self.phase {
                    0 => {
                        elapsed && ack.flight >= 1.2 * self.product()
                            || ack.now - self.phase_at > 3.0 * self.rtt
                    }
                    1 => elapsed || ack.flight <= self.product(),
                    _ => elapsed,
                };
                if next {
                    self.phase = (self.phase + 1) % 8;
                    self.phase_at = ack.now;
                }
            }
            Stage::Startup | Stage::Drain | Stage::ProbeRtt => {}
        }
        if stale && self.stage != Stage::ProbeRtt {
            self.stage = Stage::ProbeRtt;
            self.probe_until = None;
        }
        if self.stage == Stage::ProbeRtt {
            if self.probe_until.is_none() && ack.flight <= 4.0 {
                self.probe_until = Some(ack.now + 0.2_f64.max(self.rtt));
                self.rtt = ack.rtt;
            }
            if self.probe_until.is_some_and(|until| ack.now > until) {
                self.rtt_at = ack.now;
                self.stage = if self.full_rounds >= 3 { Stage::ProbeBandwidth } else { Stage::Startup };
                self.phase_at = ack.now;
            }
        }
    }
}
