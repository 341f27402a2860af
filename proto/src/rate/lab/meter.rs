//! What was seen at the bottleneck and at the receivers.

use std::ops::Range;
use std::time::Duration;

use super::{LOOK, Packet};

/// Bytes are counted by these spans.
const BIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Meter {
    pub(super) zero: Duration,
    /// By flow and bin, bytes on the wire that arrived.
    arrived: Vec<Vec<u64>>,
    /// By look, seconds.
    queue: Vec<f64>,
    pub(super) sent: Vec<u64>,
    /// By bin, packets of all flows offered and dropped.
    offered: Vec<(u64, u64)>,
    pub(super) reported: u64,
}

impl Meter {
    pub(super) fn new(flows: usize) -> Self {
        Self {
            zero: Duration::ZERO,
            arrived: vec![Vec::new(); flows],
            queue: Vec::new(),
            sent: vec![0; flows],
            offered: Vec::new(),
            reported: 0,
        }
    }

    pub(super) fn on_sent(&mut self, now: Duration, packet: Packet) {
        self.sent[packet.flow] += u64::from(packet.size);
        let bin = self.bin(now);
        if self.offered.len() <= bin {
            self.offered.resize(bin + 1, (0, 0));
        }
        self.offered[bin].0 += 1;
    }

    pub(super) fn on_dropped(&mut self, now: Duration, _packet: Packet) {
        let bin = self.bin(now);
        self.offered[bin].1 += 1;
    }

    fn bin(&self, now: Duration) -> usize {
        (now.saturating_sub(self.zero).as_nanos() / BIN.as_nanos()) as usize
    }

    /// Share of the packets between two times that the bottleneck dropped.
    pub(super) fn dropped_share(&self, span: Range<f64>) -> f64 {
        let bins = (span.start / BIN.as_secs_f64()) as usize..(span.end / BIN.as_secs_f64()) as usize;
        let (sent, dropped) = bins
            .filter_map(|bin| self.offered.get(bin))
            .fold((0, 0), |sum, bin| (sum.0 + bin.0, sum.1 + bin.1));
        dropped as f64 / sent.max(1) as f64
    }

    /// Seconds after `from` until the queue is below `most` seconds in the mean of a second.
    pub(super) fn queue_settled(&self, from: f64, most: f64) -> f64 {
        let second = (1.0 / LOOK.as_secs_f64()) as usize;
        let first = (from / LOOK.as_secs_f64()) as usize + 50;
        let mean = |looks: &[f64]| looks.iter().sum::<f64>() / looks.len() as f64;
        let settled = self.queue[first..].windows(second).position(|looks| mean(looks) < most);
        settled.map_or(f64::INFINITY, |looks| (looks + 50) as f64 * LOOK.as_secs_f64())
    }

    pub(super) fn on_delivered(&mut self, now: Duration, packet: Packet) {
        let bin = self.bin(now);
        let bins = &mut self.arrived[packet.flow];
        if bins.len() <= bin {
            bins.resize(bin + 1, 0);
        }
        bins[bin] += u64::from(packet.size);
    }

    pub(super) fn on_look(&mut self, queue: Duration) {
        self.queue.push(queue.as_secs_f64());
    }

    /// Bit/s of a flow between two times, seconds.
    pub(super) fn rate(&self, flow: usize, span: Range<f64>) -> f64 {
        let bin = |at: f64| (at / BIN.as_secs_f64()).round() as usize;
        let bins = bin(span.start)..bin(span.end);
        let bytes: u64 = bins.clone().filter_map(|bin| self.arrived[flow].get(bin)).sum();
        bytes as f64 * 8.0 / (bins.len() as f64 * BIN.as_secs_f64())
    }

    /// Bit/s of all flows.
    pub(super) fn total(&self, span: Range<f64>) -> f64 {
        (0..self.arrived.len()).map(|flow| self.rate(flow, span.clone())).sum()
    }

    /// When a flow first had `rate` over `span` seconds: seconds since `from`.
    pub(super) fn reached(&self, flow: usize, from: f64, rate: f64, span: f64) -> f64 {
        let most = self.arrived[flow].len() as f64 * BIN.as_secs_f64();
        let mut at = from;
        while at + span <= most {
            if self.rate(flow, at..at + span) >= rate {
                return at + span - from;
            }
            at += BIN.as_secs_f64();
        }
        f64::INFINITY
    }

    /// Milliseconds in the queue between two times: mean and a quantile.
    pub(super) fn queue_ms(&self, span: Range<f64>, quantile: f64) -> (f64, f64) {
        let look = |at: f64| ((at / LOOK.as_secs_f64()) as usize).min(self.queue.len());
        let mut seen = self.queue[look(span.start)..look(span.end)].to_vec();
        seen.sort_by(f64::total_cmp);
        let mean = seen.iter().sum::<f64>() / seen.len().max(1) as f64;
        let at = ((seen.len().max(1) - 1) as f64 * quantile) as usize;
        (mean * 1e3, seen.get(at).copied().unwrap_or(0.0) * 1e3)
    }

    /// Jain's index of the flows' rates between two times.
    pub(super) fn jain(&self, span: Range<f64>) -> f64 {
        let rates: Vec<f64> = (0..self.arrived.len()).map(|flow| self.rate(flow, span.clone())).collect();
        let (sum, squares) =
            rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, rate.mul_add(*rate, squares)));
        sum * sum / (rates.len() as f64 * squares.max(1.0))
    }
}
