//! Path MTU search after RFC 8899 (DPLPMTUD): sizes are tried with probes, and a path that swallows large datagrams
//! is noticed. Not here: socket options, sending.

use std::time::Duration;

use crate::constants::{BASE_DATAGRAM, MAX_DATAGRAM};

/// Sizes worth trying, bytes of UDP payload, multiples of 16. 1472 fills a 1500-byte IPv4 packet, 1440 and 1424 IPv6
/// and tunnels; 8960 and 8944 fill 9000-byte jumbo frames.
const LADDER: [u16; 10] = [BASE_DATAGRAM, 1280, 1376, 1424, 1440, 1472, 4096, 8192, 8944, MAX_DATAGRAM];

/// Where the first probe goes: the size that most paths carry.
const FIRST_STEP: usize = 5;

/// A size is given up after this many lost probes (RFC 8899 section 5.1.2, MAX_PROBES).
const MAX_PROBES: u8 = 3;

/// The search starts again after this (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// The search starts again this long after a black hole.
const COOL_OFF: Duration = Duration::from_secs(60);

/// Large datagrams lost in a row, with none acknowledged, that make a black hole.
const BLACK_HOLE_LOSSES: u32 = 32;

/// Path MTU search of one path.
#[derive(Debug, Clone)]
pub(crate) struct MtuSearch {
    /// Index of the size in use.
    confirmed: usize,
    /// Sizes from this index on are known not to pass.
    ceiling: usize,
    /// Index being probed, and probes lost.
    probing: Option<(usize, u8)>,
    in_flight: bool,
    next_search: Duration,
    losses: u32,
    first_loss: Duration,
}

impl Default for MtuSearch {
    fn default() -> Self {
        Self {
            confirmed: 0,
            ceiling: LADDER.len(),
            probing: None,
            in_flight: false,
            next_search: Duration::ZERO,
            losses: 0,
            first_loss: Duration::ZERO,
        }
    }
}

impl MtuSearch {
    /// Datagram size in use.
    #[must_use]
    pub(crate) fn current(&self) -> u16 {
        LADDER.get(self.confirmed).copied().unwrap_or(BASE_DATAGRAM)
    }

    /// The size of a probe that should go now, if any.
    pub(crate) fn poll_probe(&mut self, now: Duration) -> Option<u16> {
        if self.in_flight {
            return None;
        }
        if self.probing.is_none() {
            if now < self.next_search {
                return None;
            }
            if self.confirmed + 1 >= self.ceiling {
                self.next_search = now + RAISE_AFTER;
                self.ceiling = LADDER.len();
                return None;
            }
            self.probing = Some((self.next_step(), 0));
        }
        let (step, _) = self.probing?;
        self.in_flight = true;
        LADDER.get(step).copied()
    }

    fn next_step(&self) -> usize {
        if self.confirmed < FIRST_STEP && self.ceiling > FIRST_STEP {
            FIRST_STEP
        } else if self.ceiling == LADDER.len() {
            LADDER.len() - 1
        } else {
            self.confirmed + (self.ceiling - self.confirmed).div_ceil(2)
        }
    }

    /// A probe arrived.
    pub(crate) fn on_probe_acked(&mut self, size: u16) {
        self.in_flight = false;
        if let Some((step, _)) = self.probing.take()
            && LADDER.get(step) == Some(&size)
        {
            self.confirmed = self.confirmed.max(step);
        }
    }

    /// A probe was lost. Probes are no congestion signal (RFC 8899 section 3).
    pub(crate) fn on_probe_lost(&mut self, size: u16) {
        self.in_flight = false;
        let Some((step, lost)) = self.probing.filter(|&(step, _)| LADDER.get(step) == Some(&size)) else {
            return;
        };
        if lost + 1 < MAX_PROBES {
            self.probing = Some((step, lost + 1));
        } else {
            self.rule_out(step);
        }
    }

    /// This host refused to send a datagram of `size` (EMSGSIZE): at once true, no probes needed.
    pub(crate) fn on_refused(&mut self, now: Duration, size: u16) {
        self.in_flight = false;
        let Some(step) = LADDER.iter().position(|&rung| rung >= size) else {
            return;
        };
        if step <= self.confirmed {
            self.fall_back(now);
        }
        self.rule_out(step.max(1));
    }

    fn rule_out(&mut self, step: usize) {
        self.ceiling = self.ceiling.min(step);
        self.probing = None;
    }

    /// A datagram of `size` arrived.
    pub(crate) fn on_acked(&mut self, size: u16) {
        if size > BASE_DATAGRAM {
            self.losses = 0;
        }
    }

    /// A datagram of `size` was lost. Returns whether the path turned out to swallow that size.
    pub(crate) fn on_lost(&mut self, now: Duration, size: u16, rtt: Duration) -> bool {
        if size <= BASE_DATAGRAM || self.confirmed == 0 {
            return false;
        }
        if self.losses == 0 {
            self.first_loss = now;
        }
        self.losses += 1;
        let swallowed = self.losses >= BLACK_HOLE_LOSSES && now.saturating_sub(self.first_loss) > rtt * 2;
        if swallowed {
            self.fall_back(now);
        }
        swallowed
    }

    /// Goes back to the size that always passes, and searches again after a while.
    pub(crate) fn fall_back(&mut self, now: Duration) {
        if self.confirmed > 0 {
            self.confirmed = 0;
            self.ceiling = LADDER.len();
            self.probing = None;
            self.losses = 0;
            self.next_search = now + COOL_OFF;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the search over a path that carries datagrams up to `limit`; the size found and the probes spent.
    fn search(limit: u16) -> (u16, u32) {
        let mut mtu = MtuSearch::default();
        let mut probes = 0;
        while let Some(size) = mtu.poll_probe(Duration::ZERO) {
            probes += 1;
            if size <= limit { mtu.on_probe_acked(size) } else { mtu.on_probe_lost(size) }
        }
        (mtu.current(), probes)
    }

    #[test]
    fn finds_the_largest_rung_of_every_path_with_few_probes() {
        for (limit, expected) in
            [(1200, 1200), (1300, 1280), (1400, 1376), (1452, 1440), (1472, 1472), (4500, 4096), (8972, 8944)]
        {
            let (found, probes) = search(limit);
            assert_eq!(found, expected, "path of {limit}");
            assert!(probes <= 12, "path of {limit}: {probes} probes");
        }
        assert_eq!(search(u16::MAX), (MAX_DATAGRAM, 2));
    }

    #[test]
    fn a_black_hole_is_noticed_and_the_search_resumes_after_a_minute() {
        let mut mtu = MtuSearch::default();
        while let Some(size) = mtu.poll_probe(Duration::ZERO) {
            mtu.on_probe_acked(size);
        }
        let rtt = Duration::from_millis(10);
        let lost = (0..100).find(|ms| mtu.on_lost(Duration::from_millis(*ms), 1472, rtt));
        assert_eq!(lost, Some(31));
        assert_eq!(mtu.current(), BASE_DATAGRAM);
        assert_eq!(mtu.poll_probe(Duration::from_secs(1)), None);
        assert_eq!(mtu.poll_probe(Duration::from_secs(62)), Some(1472));
    }

    #[test]
    fn losses_among_arrivals_make_no_black_hole() {
        let mut mtu = MtuSearch::default();
        while let Some(size) = mtu.poll_probe(Duration::ZERO) {
            mtu.on_probe_acked(size);
        }
        for ms in 0..10_000 {
            assert!(!mtu.on_lost(Duration::from_millis(ms), 1472, Duration::from_millis(10)));
            if ms % 10 == 0 {
                mtu.on_acked(1472);
            }
        }
    }

    #[test]
    fn a_refusal_of_this_host_ends_the_search_there() {
        let mut mtu = MtuSearch::default();
        assert_eq!(mtu.poll_probe(Duration::ZERO), Some(1472));
        mtu.on_probe_acked(1472);
        assert_eq!(mtu.poll_probe(Duration::ZERO), Some(MAX_DATAGRAM));
        mtu.on_refused(Duration::ZERO, MAX_DATAGRAM);
        assert_eq!(mtu.poll_probe(Duration::ZERO), Some(8192));
    }
}
