//! The ledger: what became of each packet sent. Loss is declared here and nowhere else, from the receiver's reports,
//! by time as RACK does (RFC 8985): a packet is lost when one sent a reordering window later has arrived. Not here:
//! what to do about it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::constants::{OUTAGE_MIN, OUTAGE_PACKETS, REORDER_MIN};
use crate::link::Way;
use crate::rtt::Rtt;
use crate::wire::packet::Object;
use crate::wire::report::Report;

/// What a packet carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cargo {
    /// A piece of an object.
    Piece(Piece),
    /// Frames, which are not repeated.
    Frames,
    /// Padding that tries a datagram size.
    Probe,
}

/// A piece of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The object.
    pub object: Object,
    /// Where the piece starts.
    pub offset: u64,
    /// Its length.
    pub length: u16,
}

impl Piece {
    /// The bytes it covers.
    #[must_use]
    pub(crate) const fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.length as u64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Arrived,
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Duration,
    cargo: Cargo,
    size: u16,
    path: Path,
    fate: Fate,
}

/// What a packet was sent on: UDP, or one stream by its number in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Path {
    /// UDP.
    #[default]
    Udp,
    /// A stream: what is sent on it arrives, unless it breaks.
    Stream(u16),
}

/// A path that carries nothing any more: packets below this number that it was to carry are lost, once a report has told
/// of this number or a later one and not of them.
#[derive(Debug, Clone, Copy)]
struct Closed {
    path: Path,
    below: u64,
}

/// Closed paths that are remembered; those before have long been settled.
const MAX_CLOSED: usize = 64;

/// A packet on a living stream that no report can tell of any more is given up after this.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// What one report revealed.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Pieces that arrived, neighbours joined.
    pub arrived: Vec<(Object, Range<u64>)>,
    /// Pieces that were lost.
    pub lost: Vec<Piece>,
    /// Probes that arrived, by datagram size.
    pub probes_arrived: Vec<u16>,
    /// Probes that were lost.
    pub probes_lost: Vec<u16>,
    /// Packets that arrived, and their bytes.
    pub arrived_packets: u64,
    /// See `arrived_packets`.
    pub arrived_bytes: u64,
    /// Whether any of them came over UDP.
    pub udp_arrived: bool,
    /// Largest datagram that arrived over UDP.
    pub arrived_size: u16,
    /// Packets that were lost, probes not counted, and their bytes.
    pub lost_packets: u64,
    /// See `lost_packets`.
    pub lost_bytes: u64,
    /// Largest datagram that was lost on UDP.
    pub lost_size: u16,
    /// Of `lost_packets`, those of outages: times in which nothing at all passed.
    pub outage_packets: u64,
    /// A round-trip time, if the newest arrival was news.
    pub rtt: Option<Duration>,
}

impl Path {
    const fn way(self) -> Way {
        match self {
            Self::Udp => Way::Udp,
            Self::Stream(_) => Way::Stream,
        }
    }
}

impl Outcomes {
    fn clear(&mut self) {
        self.arrived.clear();
        self.lost.clear();
        self.probes_arrived.clear();
        self.probes_lost.clear();
        *self = Self {
            arrived: std::mem::take(&mut self.arrived),
            lost: std::mem::take(&mut self.lost),
            probes_arrived: std::mem::take(&mut self.probes_arrived),
            probes_lost: std::mem::take(&mut self.probes_lost),
            ..Self::default()
        };
    }
}

/// Packets sent and not yet settled, by packet number.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Packet number of the first entry.
    base: u64,
    sent: VecDeque<Sent>,
    in_flight: u64,
    /// When the newest packet that has arrived was sent.
    newest_arrival: Option<Duration>,
    largest_arrived: Option<u64>,
    reorder_window: Duration,
    spurious: u64,
    closed: VecDeque<Closed>,
    outcomes: Outcomes,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            base: 0,
            sent: VecDeque::new(),
            in_flight: 0,
            newest_arrival: None,
            largest_arrived: None,
            reorder_window: REORDER_MIN,
            spurious: 0,
            closed: VecDeque::new(),
            outcomes: Outcomes::default(),
        }
    }
}

impl Ledger {
    /// Enters a packet. Numbers come in order.
    pub(crate) fn on_sent(&mut self, number: u64, now: Duration, cargo: Cargo, size: u16, path: Path) {
        debug_assert_eq!(number, self.base + self.sent.len() as u64);
        self.sent.push_back(Sent { at: now, cargo, size, path, fate: Fate::Unknown });
        self.in_flight += u64::from(size);
    }

    /// Nothing that was sent on this path so far is to be expected any more.
    pub(crate) fn close(&mut self, path: Path) {
        if self.closed.len() >= MAX_CLOSED {
            self.closed.pop_front();
        }
        self.closed.push_back(Closed { path, below: self.base + self.sent.len() as u64 });
    }

    /// Bytes of packets whose fate is unknown.
    #[must_use]
    pub(crate) const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Packets whose fate is unknown, or was settled after that of an older one.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Oldest packet number whose fate still matters.
    #[must_use]
    pub(crate) const fn floor(&self) -> u64 {
        self.base
    }

    /// Packets that were declared lost and arrived after all.
    #[must_use]
    pub(crate) const fn spurious(&self) -> u64 {
        self.spurious
    }

    /// What the latest report revealed.
    #[must_use]
    pub(crate) const fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Pieces whose fate is unknown, oldest first.
    pub(crate) fn unsettled(&self) -> impl Iterator<Item = Piece> + '_ {
        self.sent.iter().filter(|sent| sent.fate == Fate::Unknown).filter_map(|sent| match sent.cargo {
            Cargo::Piece(piece) => Some(piece),
            Cargo::Frames | Cargo::Probe => None,
        })
    }

    /// Takes a report; what it revealed. `None` if it speaks of packets that were never sent.
    pub(crate) fn on_report(
        &mut self,
        now: Duration,
        report: &Report,
        rtt: &Rtt,
        interval: Duration,
        way: Way,
    ) -> Option<&Outcomes> {
        let next = self.base + self.sent.len() as u64;
        let told_end = report.ranges().last().map_or(report.low, |(range, _)| range.end);
        if report.largest >= next || told_end > next {
            return None;
        }
        self.outcomes.clear();
        self.take_rtt(now, report, way);
        for (range, received) in report.ranges() {
            if received {
                self.settle_arrived(range);
            }
        }
        self.declare_lost(now, report, rtt, interval);
        self.give_up_untold(now, report, rtt);
        self.drop_settled(now, rtt);
        Some(&self.outcomes)
    }

    /// Of packets on the way in use: the times of the other one are no news of it.
    fn take_rtt(&mut self, now: Duration, report: &Report, way: Way) {
        if self.largest_arrived.is_some_and(|largest| report.largest <= largest) {
            return;
        }
        if let Some(sent) = self.entry(report.largest).filter(|sent| sent.path.way() == way) {
            let held = Duration::from_micros(u64::from(report.held_us));
            self.outcomes.rtt = now.checked_sub(sent.at + held);
        }
    }

    fn entry(&self, number: u64) -> Option<&Sent> {
        self.sent.get(usize::try_from(number.checked_sub(self.base)?).ok()?)
    }

    /// The entries of a range of packet numbers, as far as they are still in the ledger.
    fn span(&self, range: &Range<u64>) -> Range<usize> {
        let index = |number: u64| {
            usize::try_from(number.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.sent.len())
        };
        index(range.start)..index(range.end)
    }

    fn settle_arrived(&mut self, range: Range<u64>) {
        let span = self.span(&range);
        if span.is_empty() {
            return;
        }
        let largest = range.end - 1;
        if self.largest_arrived.is_none_or(|known| largest > known) {
            // Streams keep no order with UDP: what arrives on them says nothing about what is missing there.
            let newest = self.sent.range(span.clone()).rev().find(|sent| sent.path == Path::Udp);
            self.newest_arrival = newest.map(|sent| sent.at).or(self.newest_arrival);
            self.largest_arrived = Some(largest);
        }
        let newest = self.newest_arrival.unwrap_or_default();
        let mut late = Duration::ZERO;
        for sent in self.sent.range_mut(span) {
            match sent.fate {
                Fate::Arrived => continue,
                Fate::Lost => {
                    // It was late, not lost: wait that much longer from now on (RFC 8985 section 7.1).
                    self.spurious += 1;
                    if sent.path == Path::Udp {
                        late = late.max(newest.saturating_sub(sent.at));
                    }
                }
                Fate::Unknown => self.in_flight -= u64::from(sent.size),
            }
            sent.fate = Fate::Arrived;
            let outcomes = &mut self.outcomes;
            outcomes.arrived_packets += 1;
            outcomes.arrived_bytes += u64::from(sent.size);
            if sent.path == Path::Udp {
                outcomes.udp_arrived = true;
                outcomes.arrived_size = outcomes.arrived_size.max(sent.size);
            }
            match sent.cargo {
                Cargo::Piece(piece) => join(&mut outcomes.arrived, piece),
                Cargo::Probe => outcomes.probes_arrived.push(sent.size),
                Cargo::Frames => {}
            }
        }
        if !late.is_zero() {
            self.reorder_window = self.reorder_window.max(late + late / 4);
        }
    }

    fn declare_lost(&mut self, now: Duration, report: &Report, rtt: &Rtt, interval: Duration) {
        let newest = self.newest_arrival.unwrap_or_default();
        if self.largest_arrived.is_none() {
            return;
        }
        let closed: Vec<Closed> =
            self.closed.iter().filter(|closed| report.largest >= closed.below).copied().collect();
        let window = (rtt.minimum() / 16)
            .max(REORDER_MIN)
            .max(self.reorder_window)
            .min(rtt.smoothed() / 2 + REORDER_MIN);
        let patience = rtt.patience() + interval * 2 + window;
        for (range, received) in report.ranges() {
            if received {
                continue;
            }
            let span = self.span(&range);
            let outage = self.is_outage(&span);
            let first = self.base + span.start as u64;
            for (number, sent) in (first..).zip(self.sent.range_mut(span)) {
                let lost = match sent.path {
                    Path::Udp => sent.at + window <= newest || sent.at + patience <= now,
                    Path::Stream(_) => false,
                };
                let abandoned =
                    || closed.iter().any(|closed| closed.path == sent.path && number < closed.below);
                if sent.fate != Fate::Unknown || !(lost || abandoned()) {
                    continue;
                }
                sent.fate = Fate::Lost;
                self.in_flight -= u64::from(sent.size);
                let outcomes = &mut self.outcomes;
                if sent.cargo == Cargo::Probe {
                    outcomes.probes_lost.push(sent.size);
                    continue;
                }
                outcomes.lost_packets += 1;
                outcomes.outage_packets += u64::from(outage);
                outcomes.lost_bytes += u64::from(sent.size);
                if sent.path == Path::Udp {
                    outcomes.lost_size = outcomes.lost_size.max(sent.size);
                }
                if let Cargo::Piece(piece) = sent.cargo {
                    outcomes.lost.push(piece);
                }
            }
        }
    }

    /// Whether a gap between arrivals is too long for a queue that overflows: such a queue still lets pass what the link
    /// carries, so some packets of any few batches arrive. Where none does, the link itself was away.
    fn is_outage(&self, gap: &Range<usize>) -> bool {
        let sent = |index: usize| self.sent.get(index).map(|sent| sent.at);
        let (first, last) = (sent(gap.start), gap.end.checked_sub(1).and_then(sent));
        let lasted = first.zip(last).map_or(Duration::ZERO, |(first, last)| last.saturating_sub(first));
        gap.len() >= OUTAGE_PACKETS && lasted >= OUTAGE_MIN
    }

    /// Packets below what a report can still tell, told of by none, are taken as lost after a long while.
    fn give_up_untold(&mut self, now: Duration, report: &Report, rtt: &Rtt) {
        let patience = rtt.patience() * 4 + Duration::from_secs(1);
        let untold =
            usize::try_from(report.low.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.sent.len());
        for sent in self.sent.range_mut(..untold) {
            if sent.at + patience > now {
                return;
            }
            if sent.path != Path::Udp && sent.at + STREAM_PATIENCE > now {
                continue;
            }
            if sent.fate == Fate::Unknown {
                sent.fate = Fate::Lost;
                self.in_flight -= u64::from(sent.size);
                self.outcomes.lost_packets += 1;
                self.outcomes.lost_bytes += u64::from(sent.size);
                if let Cargo::Piece(piece) = sent.cargo {
                    self.outcomes.lost.push(piece);
                }
            }
        }
    }

    /// Forgets settled packets at the front; lost ones stay half an RTT longer, so that late arrivals are recognised.
    fn drop_settled(&mut self, now: Duration, rtt: &Rtt) {
        let memory = rtt.smoothed() + rtt.smoothed() / 2 + REORDER_MIN * 10;
        while let Some(first) = self.sent.front() {
            let settled = match first.fate {
                Fate::Unknown => false,
                Fate::Arrived => true,
                Fate::Lost => first.at + memory <= now,
            };
            if !settled {
                return;
            }
            self.sent.pop_front();
            self.base += 1;
        }
    }
}

fn join(arrived: &mut Vec<(Object, Range<u64>)>, piece: Piece) {
    let range = piece.range();
    match arrived.last_mut() {
        Some((object, last)) if *object == piece.object && last.end == range.start => last.end = range.end,
        _ => arrived.push((piece.object, range)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn piece(number: u64) -> Piece {
        Piece { object: Object::Content, offset: number * 100, length: 100 }
    }

    /// Ten packets, one a millisecond, over an RTT of 100 ms.
    fn ledger() -> (Ledger, Rtt) {
        let mut ledger = Ledger::default();
        for number in 0..10 {
            ledger.on_sent(number, ms(number), Cargo::Piece(piece(number)), 148, Path::Udp);
        }
        let mut rtt = Rtt::default();
        rtt.on_sample(ms(0), ms(100));
        (ledger, rtt)
    }

    fn report(low: u64, runs: &[u64]) -> Report {
        let end = low + runs.iter().sum::<u64>();
        Report { largest: end - 1, low, runs: runs.to_vec(), ..Report::default() }
    }

    #[test]
    fn arrivals_are_joined_and_the_round_trip_measured() {
        let (mut ledger, rtt) = ledger();
        let outcomes = ledger.on_report(ms(102), &report(0, &[3]), &rtt, ms(5), Way::Udp).unwrap();
        assert_eq!(outcomes.arrived, [(Object::Content, 0..300)]);
        assert_eq!(outcomes.rtt, Some(ms(100)));
        assert_eq!((ledger.floor(), ledger.in_flight()), (3, 7 * 148));
        let outcomes = ledger.on_report(ms(103), &report(0, &[3]), &rtt, ms(5), Way::Udp).unwrap();
        assert_eq!((outcomes.arrived_packets, outcomes.rtt), (0, None), "told twice, counted once");
    }

    #[test]
    fn a_gap_is_lost_once_a_reordering_window_has_passed_it() {
        let (mut ledger, rtt) = ledger();
        // The window is 100 / 16 = 6.25 ms: packet 1 is 3 ms older than the newest arrival, then 8 ms.
        assert!(
            ledger.on_report(ms(105), &report(0, &[1, 1, 3]), &rtt, ms(5), Way::Udp).unwrap().lost.is_empty()
        );
        let outcomes = ledger.on_report(ms(110), &report(0, &[1, 1, 8]), &rtt, ms(5), Way::Udp).unwrap();
        assert_eq!(outcomes.lost, [piece(1)]);
        assert_eq!(ledger.in_flight(), 0);
        assert_eq!(ledger.floor(), 1, "a lost packet is remembered for a while");
    }

    #[test]
    fn a_late_arrival_widens_the_reordering_window() {
        let (mut ledger, rtt) = ledger();
        assert_eq!(
            ledger.on_report(ms(110), &report(0, &[1, 1, 8]), &rtt, ms(5), Way::Udp).unwrap().lost.len(),
            1
        );
        ledger.on_report(ms(111), &report(0, &[10]), &rtt, ms(5), Way::Udp).unwrap();
        assert_eq!(ledger.spurious(), 1);
        for number in 10..20 {
            ledger.on_sent(number, ms(number), Cargo::Piece(piece(number)), 148, Path::Udp);
        }
        let outcomes = ledger.on_report(ms(120), &report(10, &[1, 1, 8]), &rtt, ms(5), Way::Udp).unwrap();
        assert!(outcomes.lost.is_empty(), "8 ms is now within the window");
    }

    #[test]
    fn an_old_gap_is_lost_even_when_nothing_newer_was_sent() {
        let (mut ledger, rtt) = ledger();
        let gap = report(0, &[8, 1, 1]);
        assert!(ledger.on_report(ms(110), &gap, &rtt, ms(5), Way::Udp).unwrap().lost.is_empty());
        assert_eq!(ledger.on_report(ms(400), &gap, &rtt, ms(5), Way::Udp).unwrap().lost, [piece(8)]);
    }

    #[test]
    fn a_time_in_which_nothing_passes_is_an_outage_and_scattered_loss_is_none() {
        let (mut whole, rtt) = ledger();
        for number in 10..30 {
            whole.on_sent(number, ms(number), Cargo::Piece(piece(number)), 148, Path::Udp);
        }
        let outcomes = whole.on_report(ms(130), &report(0, &[1, 10, 19]), &rtt, ms(5), Way::Udp).unwrap();
        assert_eq!((outcomes.lost_packets, outcomes.outage_packets), (10, 10));
        for (n, (gap, apart)) in [(7, 1), (10, 0)].into_iter().enumerate() {
            let mut ledger = Ledger::default();
            for number in 0..30 {
                ledger.on_sent(number, ms(number * apart), Cargo::Piece(piece(number)), 148, Path::Udp);
            }
            ledger.on_sent(30, ms(40), Cargo::Piece(piece(30)), 148, Path::Udp);
            let outcomes =
                ledger.on_report(ms(140), &report(0, &[1, gap, 30 - gap]), &rtt, ms(5), Way::Udp).unwrap();
            assert_eq!((outcomes.lost_packets, outcomes.outage_packets), (gap, 0), "row {n}");
        }
    }

    #[test]
    fn packets_never_sent_cannot_be_reported() {
        let (mut ledger, rtt) = ledger();
        assert!(ledger.on_report(ms(110), &report(0, &[11]), &rtt, ms(5), Way::Udp).is_none());
        assert!(ledger.on_report(ms(110), &report(11, &[0, 5]), &rtt, ms(5), Way::Udp).is_none());
        let lying = Report { largest: 10, ..report(0, &[1]) };
        assert!(ledger.on_report(ms(110), &lying, &rtt, ms(5), Way::Udp).is_none());
    }

    #[test]
    fn probes_are_no_loss() {
        let (mut ledger, rtt) = ledger();
        ledger.on_sent(10, ms(10), Cargo::Probe, 1472, Path::Udp);
        for number in 11..30 {
            ledger.on_sent(number, ms(number), Cargo::Frames, 148, Path::Udp);
        }
        let outcomes = ledger.on_report(ms(130), &report(0, &[10, 1, 19]), &rtt, ms(5), Way::Udp).unwrap();
        assert_eq!((outcomes.lost_packets, &outcomes.probes_lost[..]), (0, &[1472][..]));
    }

    #[test]
    fn what_streams_overtake_is_not_lost_until_its_stream_breaks() {
        let mut ledger = Ledger::default();
        for number in 0..10 {
            let path = Path::Stream((number % 2) as u16);
            ledger.on_sent(number, ms(number), Cargo::Piece(piece(number)), 148, path);
        }
        let rtt = Rtt::default();
        let odd = report(0, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert!(ledger.on_report(ms(5000), &odd, &rtt, ms(5), Way::Stream).unwrap().lost.is_empty());
        ledger.close(Path::Stream(0));
        assert!(
            ledger.on_report(ms(5001), &odd, &rtt, ms(5), Way::Stream).unwrap().lost.is_empty(),
            "this report may be older than the break"
        );
        ledger.on_sent(10, ms(5002), Cargo::Frames, 48, Path::Stream(1));
        let later = report(0, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
        let outcomes = ledger.on_report(ms(5100), &later, &rtt, ms(5), Way::Stream).unwrap();
        assert_eq!(outcomes.lost, [piece(0), piece(2), piece(4), piece(6), piece(8)]);
    }

    #[test]
    fn round_trips_of_the_way_that_was_left_are_not_taken() {
        let (mut ledger, rtt) = ledger();
        ledger.close(Path::Udp);
        ledger.on_sent(10, ms(300), Cargo::Frames, 48, Path::Stream(0));
        let old = report(0, &[3]);
        assert_eq!(ledger.on_report(ms(900), &old, &rtt, ms(5), Way::Stream).unwrap().rtt, None);
        let new = report(0, &[3, 7, 1]);
        let outcomes = ledger.on_report(ms(950), &new, &rtt, ms(5), Way::Stream).unwrap();
        assert_eq!((outcomes.rtt, outcomes.lost.len()), (Some(ms(650)), 7));
    }
}
