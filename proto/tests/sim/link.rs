//! One direction of a simulated path: bottleneck rate with a drop-tail queue, delay, loss, burst loss, reordering,
//! duplication, corruption. All of it repeats for the same seed.

use std::time::Duration;

/// Small seeded generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.share() < share
    }
}

#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub bits_per_second: f64,
    pub delay: Duration,
    /// Bytes that may wait at the bottleneck.
    pub queue_bytes: u64,
    pub loss: f64,
    /// Mean packets of a loss burst, and the chance that one begins.
    pub burst: Option<(f64, f64)>,
    pub reorder: f64,
    pub duplicate: f64,
    pub corrupt: f64,
    /// Larger datagrams vanish.
    pub mtu: usize,
    /// Nothing passes in these spans of time.
    pub blackout: Option<(Duration, Duration)>,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            bits_per_second: 100e6,
            delay: Duration::from_millis(20),
            queue_bytes: 500_000,
            loss: 0.0,
            burst: None,
            reorder: 0.0,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 1472,
            blackout: None,
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub struct LinkStats {
    pub offered: u64,
    pub offered_bytes: u64,
    pub queue_drops: u64,
    pub lost: u64,
    pub longest_queue: Duration,
    pub queue_sum: Duration,
}

pub struct Link {
    pub config: LinkConfig,
    dice: Dice,
    busy_until: Duration,
    burst_left: u64,
    pub stats: LinkStats,
}

impl Link {
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            dice: Dice(seed),
            busy_until: Duration::ZERO,
            burst_left: 0,
            stats: LinkStats::default(),
        }
    }

    /// Sends a datagram; when its copies arrive, altered or not.
    pub fn send(&mut self, now: Duration, datagram: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        // 28 bytes of IPv4 and UDP headers take their time as well.
        let bits = (datagram.len() + 28) as f64 * 8.0;
        self.stats.offered += 1;
        self.stats.offered_bytes += datagram.len() as u64 + 28;
        if datagram.len() > self.config.mtu
            || self.config.blackout.is_some_and(|(from, to)| (from..to).contains(&now))
        {
            self.stats.lost += 1;
            return Vec::new();
        }
        let wait = self.busy_until.saturating_sub(now);
        if wait.as_secs_f64() * self.config.bits_per_second / 8.0 > self.config.queue_bytes as f64 {
            self.stats.queue_drops += 1;
            return Vec::new();
        }
        self.stats.longest_queue = self.stats.longest_queue.max(wait);
        self.stats.queue_sum += wait;
        self.busy_until =
            now.max(self.busy_until) + Duration::from_secs_f64(bits / self.config.bits_per_second);
        if self.is_lost() {
            self.stats.lost += 1;
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(datagram)];
        if self.dice.chance(self.config.duplicate) {
            arrivals.push(self.arrival(datagram));
        }
        arrivals
    }

    fn is_lost(&mut self) -> bool {
        if let Some((mean, chance)) = self.config.burst {
            if self.burst_left == 0 && self.dice.chance(chance) {
                self.burst_left = 1 + self.dice.below((mean * 2.0) as u64);
            }
            if self.burst_left > 0 {
                self.burst_left -= 1;
                return true;
            }
        }
        self.dice.chance(self.config.loss)
    }

    fn arrival(&mut self, datagram: &[u8]) -> (Duration, Vec<u8>) {
        let mut at = self.busy_until + self.config.delay;
        if self.dice.chance(self.config.reorder) {
            at += Duration::from_micros(500 + self.dice.below(10_000));
        }
        let mut datagram = datagram.to_vec();
        if self.dice.chance(self.config.corrupt) {
            match self.dice.below(3) {
                0 => datagram.truncate(self.dice.below(datagram.len() as u64) as usize),
                1 => datagram.extend_from_slice(&[0; 16]),
                _ => {
                    let at = self.dice.below(datagram.len() as u64) as usize;
                    datagram[at] ^= 1 << self.dice.below(8);
                }
            }
        }
        (at, datagram)
    }
}
