//! The model of one direction of a path: bottleneck, queue, propagation and accidents.
//!
//! It decides which packet leaves when, in nanoseconds of a clock that is handed in, and holds the
//! packets meanwhile. It reads no clock and does no I/O, so it can be tested in virtual time.
//!
//! Order of events: switches (UDP off, blackout, path MTU) -> drop-tail queue -> serialisation at the
//! bottleneck rate -> loss -> corruption, delay, jitter, reordering -> duplication -> delivery.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::counters::Counters;
use crate::rng::Rng;

/// The smallest default queue: a burst of one GSO batch must fit at any rate.
const QUEUE_FLOOR_BYTES: u64 = 64 * 1024;
/// How often the jitter model chooses a new level; between two levels the delay moves linearly.
const JITTER_STEP_NS: u64 = 20_000_000;
const UDP: u8 = 17;

/// Loss in bursts, on top of the independent loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Burst {
    /// Gilbert-Elliott by packets: `share` of all packets is lost, in runs of `mean_length` packets.
    Packets {
        /// Long-term share of lost packets, 0..1.
        share: f64,
        /// Mean number of packets in one run of losses, at least 1.
        mean_length: f64,
    },
    /// By time: everything is lost for `length`, with exponentially distributed gaps.
    Outage {
        /// How long one outage lasts.
        length: Duration,
        /// Mean time from one outage to the next.
        every: Duration,
    },
}

/// Settings of one direction.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Bottleneck rate in bits per second of IP packets; none is unlimited.
    pub rate: Option<u64>,
    /// Propagation delay.
    pub delay: Duration,
    /// More delay for packets from and to an IPv4 address.
    pub far: Option<(Ipv4Addr, Duration)>,
    /// Queue limit in bytes; none is one bandwidth-delay product (of the full RTT), at least 64 KiB.
    pub queue_bytes: Option<u64>,
    /// Independent loss probability behind the bottleneck.
    pub loss: f64,
    /// Burst loss.
    pub burst: Option<Burst>,
    /// Share of packets held back.
    pub reorder: f64,
    /// Shortest and longest time a reordered packet is held back.
    pub reorder_hold: (Duration, Duration),
    /// Share of packets delivered twice.
    pub duplicate: f64,
    /// Largest extra delay of the jitter, which wanders between zero and this without changing the order.
    pub jitter: Duration,
    /// Share of UDP packets whose payload is changed such that the UDP checksum does not notice.
    pub corrupt: f64,
    /// Packets larger than this vanish silently (a path MTU black hole).
    pub path_mtu: Option<usize>,
}

/// One IP packet in a reusable buffer.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) buffer: Box<[u8]>,
    pub(super) len: usize,
}

impl Packet {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    fn is_udp(&self) -> bool {
        match self.bytes() {
            [first, ..] if first >> 4 == 4 => self.bytes().get(9) == Some(&UDP),
            [first, ..] if first >> 4 == 6 => self.bytes().get(6) == Some(&UDP),
            _ => false,
        }
    }

    /// True when it comes from or goes to an IPv4 address.
    fn is_of(&self, address: Ipv4Addr) -> bool {
        let [from, to] = [12..16, 16..20].map(|place| self.bytes().get(place));
        let is = |field: Option<&[u8]>| field == Some(address.octets().as_slice());
        self.buffer[0] >> 4 == 4 && (is(from) || is(to))
    }

    /// Flips one bit in each of two 16-bit words of the UDP payload, in the same column and in opposite
    /// directions: the one's complement sum stays the same, so the packet reaches the application.
    fn corrupt(&mut self, rng: &mut Rng) -> bool {
        let header = if self.buffer[0] >> 4 == 4 { usize::from(self.buffer[0] & 15) * 4 } else { 40 };
        let payload = header + 8;
        let words = self.len.saturating_sub(payload) / 2;
        if words < 2 {
            return false;
        }
        for _ in 0..64 {
            let first = payload + 2 * rng.range(0, words as u64 - 1) as usize;
            let second = payload + 2 * rng.range(0, words as u64 - 1) as usize;
            let column = rng.range(0, 15) as usize;
            let (byte, mask) = (column / 8, 1u8 << (column % 8));
            if (self.buffer[first + byte] ^ self.buffer[second + byte]) & mask != 0 {
                self.buffer[first + byte] ^= mask;
                self.buffer[second + byte] ^= mask;
                return true;
            }
        }
        false
    }
}

/// A packet waiting at the bottleneck.
struct Queued {
    packet: Packet,
    arrived: u64,
}

/// A packet on its way behind the bottleneck, ordered by release time, then by order of sending.
struct Flying {
    release: u64,
    order: u64,
    packet: Packet,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.release, self.order).cmp(&(other.release, other.order))
    }
}

/// One direction of the path, with everything on it.
pub(super) struct Link {
    config: LinkConfig,
    pub(super) drop_udp: bool,
    pub(super) blackout: bool,
    pub(super) counters: Counters,
    rng: Rng,
    waiting: VecDeque<Queued>,
    waiting_bytes: u64,
    /// When the bottleneck has sent the head of the queue; meaningful while the queue is not empty.
    head_leaves: u64,
    flying: BinaryHeap<Reverse<Flying>>,
    next_order: u64,
    burst_lossy: bool,
    outage: (u64, u64),
    jitter_levels: (u64, u64),
    jitter_step: u64,
    spare: Vec<Box<[u8]>>,
}

impl Link {
    pub(super) fn new(config: LinkConfig, seed: u64) -> Self {
        let mut link = Self {
            config,
            drop_udp: false,
            blackout: false,
            counters: Counters::default(),
            rng: Rng::new(seed),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            head_leaves: 0,
            flying: BinaryHeap::new(),
            next_order: 0,
            burst_lossy: false,
            outage: (0, 0),
            jitter_levels: (0, 0),
            jitter_step: 0,
            spare: Vec::new(),
        };
        link.plan_outage(0);
        link
    }

    /// Puts a packet that arrived at `now` at the end of the queue, or drops it.
    pub(super) fn offer(&mut self, now: u64, packet: Packet) {
        self.advance(now);
        let len = packet.len as u64;
        self.counters.packets_in += 1;
        self.counters.bytes_in += len;
        let too_large = self.config.path_mtu.is_some_and(|mtu| packet.len > mtu);
        if self.blackout || too_large || (self.drop_udp && packet.is_udp()) {
            self.counters.blocked += 1;
            return self.recycle(packet);
        }
        self.counters.on_queue_bytes(self.waiting_bytes);
        let Some(service) = self.service_time(packet.len) else { return self.depart(now, 0, packet) };
        if !self.waiting.is_empty() && self.waiting_bytes + len > self.queue_limit() {
            self.counters.dropped_by_queue += 1;
            return self.recycle(packet);
        }
        if self.waiting.is_empty() {
            self.head_leaves = now + service;
        }
        self.waiting_bytes += len;
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(self.waiting_bytes);
        self.waiting.push_back(Queued { packet, arrived: now });
    }

    /// The next packet that has reached the other end by `now`.
    pub(super) fn poll_delivery(&mut self, now: u64) -> Option<Packet> {
        self.advance(now);
        loop {
            if self.flying.peek().is_none_or(|Reverse(next)| next.release > now) {
                return None;
            }
            let Reverse(next) = self.flying.pop()?;
            if self.blackout {
                self.counters.blocked += 1;
                self.recycle(next.packet);
                continue;
            }
            self.counters.packets_out += 1;
            self.counters.bytes_out += next.packet.len as u64;
            self.counters.on_late(now - next.release);
            return Some(next.packet);
        }
    }

    /// When `poll_delivery` may have something; departures before that need no attention of their own.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        let delay = self.config.delay.as_nanos() as u64;
        let head = (!self.waiting.is_empty()).then(|| self.head_leaves + delay);
        let flying = self.flying.peek().map(|Reverse(next)| next.release);
        head.into_iter().chain(flying).min()
    }

    /// Changes the bottleneck rate; what waits already is served at the new one.
    pub(super) fn set_rate(&mut self, now: u64, rate: Option<u64>) {
        self.advance(now);
        let before = std::mem::replace(&mut self.config.rate, rate);
        if let (Some(before), Some(after)) = (before, rate) {
            let left = self.head_leaves.saturating_sub(now);
            self.head_leaves =
                now + (u128::from(left) * u128::from(before) / u128::from(after.max(1))) as u64;
        } else {
            self.head_leaves = now;
        }
    }

    pub(super) fn set_delay(&mut self, now: u64, delay: Duration) {
        self.advance(now);
        self.config.delay = delay;
    }

    pub(super) fn set_loss(&mut self, now: u64, loss: f64) {
        self.advance(now);
        self.config.loss = loss;
    }

    pub(super) fn set_path_mtu(&mut self, path_mtu: Option<usize>) {
        self.config.path_mtu = path_mtu;
    }

    /// A buffer for the next packet, used or new.
    pub(super) fn take_buffer(&mut self, size: usize) -> Box<[u8]> {
        self.spare.pop().unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    /// Takes back a packet's buffer.
    pub(super) fn recycle(&mut self, packet: Packet) {
        self.spare.push(packet.buffer);
    }

    fn queue_limit(&self) -> u64 {
        self.config.queue_bytes.unwrap_or_else(|| {
            let rtt_ns = 2 * self.config.delay.as_nanos();
            let product = u128::from(self.config.rate.unwrap_or(0)) * rtt_ns / 8_000_000_000;
            (product as u64).max(QUEUE_FLOOR_BYTES)
        })
    }

    /// Nanoseconds the bottleneck needs for a packet; none when there is no bottleneck.
    fn service_time(&self, len: usize) -> Option<u64> {
        self.config.rate.map(|rate| len as u64 * 8_000_000_000 / rate.max(1))
    }

    /// Lets the bottleneck send everything it could until `now`.
    fn advance(&mut self, now: u64) {
        while self.head_leaves <= now {
            let Some(Queued { packet, arrived }) = self.waiting.pop_front() else { return };
            let left = self.head_leaves;
            self.waiting_bytes -= packet.len as u64;
            let own = self.service_time(packet.len).unwrap_or(0);
            let waited = left.saturating_sub(arrived).saturating_sub(own);
            if let Some(next) = self.waiting.front() {
                self.head_leaves += self.service_time(next.packet.len).unwrap_or(0);
            }
            self.depart(left, waited, packet);
        }
    }

    /// Behind the bottleneck at time `left`: accidents and propagation.
    fn depart(&mut self, left: u64, waited: u64, mut packet: Packet) {
        self.counters.on_queue_delay(waited);
        let burst = self.burst_loses(left);
        if self.rng.chance(self.config.loss) || burst {
            self.counters.lost += 1;
            return self.recycle(packet);
        }
        if packet.is_udp() && self.rng.chance(self.config.corrupt) && packet.corrupt(&mut self.rng) {
            self.counters.corrupted += 1;
        }
        let mut release = left + self.config.delay.as_nanos() as u64 + self.jitter(left);
        if let Some((_, more)) = self.config.far.filter(|(address, _)| packet.is_of(*address)) {
            release += more.as_nanos() as u64;
        }
        if self.rng.chance(self.config.reorder) {
            let (low, high) = self.config.reorder_hold;
            release += self.rng.range(low.as_nanos() as u64, high.as_nanos() as u64);
            self.counters.reordered += 1;
        }
        if self.rng.chance(self.config.duplicate) {
            let mut buffer = self.take_buffer(packet.buffer.len());
            buffer[..packet.len].copy_from_slice(packet.bytes());
            self.counters.duplicated += 1;
            self.fly(release, Packet { buffer, len: packet.len });
        }
        self.fly(release, packet);
    }

    fn fly(&mut self, release: u64, packet: Packet) {
        let order = self.next_order;
        self.next_order += 1;
        self.flying.push(Reverse(Flying { release, order, packet }));
    }

    fn burst_loses(&mut self, at: u64) -> bool {
        match self.config.burst {
            None => false,
            Some(Burst::Packets { share, mean_length }) => {
                let leave = 1.0 / mean_length.max(1.0);
                let enter = share * leave / (1.0 - share).max(f64::EPSILON);
                self.burst_lossy =
                    if self.burst_lossy { !self.rng.chance(leave) } else { self.rng.chance(enter) };
                self.burst_lossy
            }
            Some(Burst::Outage { .. }) => {
                while at >= self.outage.1 {
                    self.plan_outage(self.outage.1);
                }
                at >= self.outage.0
            }
        }
    }

    /// Chooses the first outage after `from`.
    fn plan_outage(&mut self, from: u64) {
        if let Some(Burst::Outage { length, every }) = self.config.burst {
            let length = (length.as_nanos() as u64).max(1);
            let gap = self.rng.exponential((every.as_nanos() as f64 - length as f64).max(1.0)) as u64;
            self.outage = (from + gap, from + gap + length);
        }
    }

    /// Extra delay at a time: linear between random levels. It never falls faster than time passes, so
    /// that packets keep their order.
    fn jitter(&mut self, at: u64) -> u64 {
        let most = (self.config.jitter.as_nanos() as u64).min(JITTER_STEP_NS);
        if most == 0 {
            return 0;
        }
        let step = at / JITTER_STEP_NS;
        if step != self.jitter_step {
            let from =
                if step == self.jitter_step + 1 { self.jitter_levels.1 } else { self.rng.range(0, most) };
            self.jitter_levels = (from, self.rng.range(0, most));
            self.jitter_step = step;
        }
        let (from, to) = self.jitter_levels;
        let part = at % JITTER_STEP_NS;
        (from * (JITTER_STEP_NS - part) + to * part) / JITTER_STEP_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LinkConfig {
        LinkConfig {
            rate: Some(8_000_000),
            delay: Duration::from_millis(10),
            far: None,
            queue_bytes: Some(3000),
            loss: 0.0,
            burst: None,
            reorder: 0.0,
            reorder_hold: (Duration::ZERO, Duration::ZERO),
            duplicate: 0.0,
            jitter: Duration::ZERO,
            corrupt: 0.0,
            path_mtu: None,
        }
    }

    fn packet(len: usize, first: u8) -> Packet {
        let mut buffer = vec![0; 1500].into_boxed_slice();
        buffer[0] = 0x45;
        buffer[9] = UDP;
        buffer[30] = first;
        Packet { buffer, len }
    }

    #[test]
    fn packets_leave_one_serialisation_time_apart_and_arrive_one_delay_later() {
        let mut link = Link::new(config(), 1);
        link.offer(0, packet(1000, 1));
        link.offer(0, packet(1000, 2));
        assert_eq!(link.next_deadline(), Some(11_000_000));
        assert!(link.poll_delivery(10_999_999).is_none());
        assert!(link.poll_delivery(11_000_000).is_some());
        assert_eq!(link.next_deadline(), Some(12_000_000));
        assert!(link.poll_delivery(12_000_000).is_some());
        assert_eq!(link.next_deadline(), None);
    }

    #[test]
    fn what_goes_to_the_far_address_takes_longer() {
        let far = Some((Ipv4Addr::new(10, 0, 0, 3), Duration::from_millis(5)));
        let mut link = Link::new(LinkConfig { far, ..config() }, 1);
        let mut to_far = packet(1000, 1);
        to_far.buffer[16..20].copy_from_slice(&[10, 0, 0, 3]);
        link.offer(0, to_far);
        link.offer(0, packet(1000, 2));
        assert_eq!(link.poll_delivery(12_000_000).map(|packet| packet.buffer[30]), Some(2));
        assert_eq!(link.next_deadline(), Some(16_000_000));
    }

    #[test]
    fn a_full_queue_drops_the_newcomer() {
        let mut link = Link::new(config(), 1);
        for n in 0..5 {
            link.offer(0, packet(1000, n));
        }
        assert_eq!(link.counters.dropped_by_queue, 2);
        assert_eq!(link.counters.queue_bytes_max, 3000);
    }

    #[test]
    fn a_new_rate_serves_what_waits_already() {
        let mut link = Link::new(config(), 1);
        for n in 0..3 {
            link.offer(0, packet(1000, n));
        }
        link.set_rate(500_000, Some(4_000_000));
        let mut arrivals = Vec::new();
        while let Some(next) = link.next_deadline() {
            while link.poll_delivery(next).is_some() {
                arrivals.push(next);
            }
        }
        assert_eq!(arrivals, [11_500_000, 13_500_000, 15_500_000]);
    }

    #[test]
    fn burst_loss_has_the_asked_share_and_run_length() {
        let burst = Some(Burst::Packets { share: 0.02, mean_length: 8.0 });
        let mut link = Link::new(LinkConfig { burst, rate: None, ..config() }, 7);
        let (mut runs, mut before) = (0u64, 0);
        let mut lossy = false;
        for n in 0..400_000u64 {
            link.offer(n, packet(100, 0));
            let lost = link.counters.lost > before;
            before = link.counters.lost;
            runs += u64::from(lost && !lossy);
            lossy = lost;
        }
        let share = link.counters.lost as f64 / 400_000.0;
        let length = link.counters.lost as f64 / runs as f64;
        assert!((0.016..0.024).contains(&share), "share {share}");
        assert!((7.0..9.0).contains(&length), "run length {length}");
    }

    #[test]
    fn jitter_changes_delay_but_not_order() {
        let mut link = Link::new(LinkConfig { rate: None, jitter: Duration::from_millis(20), ..config() }, 3);
        for n in 0..20_000u64 {
            link.offer(n * 10_000, packet(100, (n % 251) as u8));
        }
        let mut expected = 0u64;
        while let Some(delivered) = link.poll_delivery(u64::MAX / 2) {
            assert_eq!(u64::from(delivered.buffer[30]), expected % 251);
            expected += 1;
        }
        assert_eq!(expected, 20_000);
    }

    #[test]
    fn corruption_keeps_the_checksum() {
        let sum = |packet: &Packet| {
            packet
                .bytes()
                .chunks(2)
                .map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0)))
                .sum::<u64>()
        };
        let mut rng = Rng::new(5);
        let mut packet = packet(1000, 0);
        rng.fill(&mut packet.buffer[28..]);
        let (before, bytes) = (sum(&packet) % 65535, packet.bytes().to_vec());
        assert!(packet.corrupt(&mut rng));
        assert_eq!(sum(&packet) % 65535, before);
        assert_ne!(packet.bytes(), bytes);
    }
}
