//! When to report and what: packet numbers received, delays, counters. Not here: the byte layout of a report.

use std::collections::VecDeque;
use std::time::Duration;

use crate::constants::{
    FULL_REPORT_EVERY, REPORT_BYTES, REPORT_DATAGRAMS, REPORT_HISTORY, REPORT_INTERVAL_IDLE,
    REPORT_INTERVAL_MAX, REPORT_PACKETS, REPORT_PACKETS_MIN, REPORT_PATIENCE, SHORT_PATH,
};
use crate::range_set::RangeSet;
use crate::sender::report_interval;
use crate::wire::report::Report;

/// Bytes of runs in one datagram: what is left of 1200 beside headers and the report's fixed part, less a margin.
const RUN_BYTES: usize = 1000;

/// Ranges of packet numbers that are remembered; a sender that never raises its floor loses the oldest.
const MAX_RANGES: usize = 32_768;

/// Book-keeping for reports.
#[derive(Debug, Default)]
pub(crate) struct Feedback {
    numbers: RangeSet,
    floor: u64,
    largest: Option<(u64, Duration)>,
    /// Largest packet number at the latest reports.
    history: VecDeque<u64>,
    sequence: u32,
    delay_zero: Option<i32>,
    delay: Option<(i32, i32)>,
    trains: Trains,
    since_report: u64,
    bytes_since_report: u64,
    /// A report goes at once after this many bytes, on short paths.
    prompt_bytes: u64,
    last_report: Duration,
    due: Option<Duration>,
    rtt: Option<Duration>,
    missing: u64,
}

impl Feedback {
    /// Nothing received yet. On short paths the sender fills `socket_buffer`, so it must hear often how much was taken.
    pub(crate) fn new(socket_buffer: u64) -> Self {
        let (least, most) = REPORT_BYTES;
        Self { prompt_bytes: (socket_buffer / 4).clamp(least, most), ..Self::default() }
    }

    /// A packet arrived, of `size` bytes.
    pub(crate) fn on_packet(&mut self, now: Duration, number: u64, size: u16) {
        self.numbers.insert(number..number + 1);
        if self.numbers.len() > MAX_RANGES {
            let oldest = self.numbers.iter().next().map_or(self.floor, |range| range.end);
            self.raise_floor(oldest.max(self.floor));
        }
        if self.largest.is_none_or(|(largest, _)| number > largest) {
            self.largest = Some((number, now));
        }
        self.since_report += 1;
        self.bytes_since_report += u64::from(size);
        let short = self.rtt.is_some_and(|rtt| rtt < SHORT_PATH);
        let wait = match self.since_report {
            _ if short && self.bytes_since_report >= self.prompt_bytes => Duration::ZERO,
            REPORT_PACKETS.. => Duration::ZERO,
            REPORT_PACKETS_MIN.. => self.interval(),
            _ => (self.interval() * REPORT_PATIENCE).min(REPORT_INTERVAL_MAX),
        };
        let at = self.last_report + wait;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// A DATA packet of `size` bytes told when it was sent and which packet numbers still matter.
    pub(crate) fn on_data(&mut self, now: Duration, number: u64, size: u16, sent_us: u32, floor: u32) {
        self.trains.on_packet(now, number, size, sent_us);
        let delay = (now.as_micros() as u32).wrapping_sub(sent_us) as i32;
        let zero = *self.delay_zero.get_or_insert(delay);
        // Relative to the first delay, so that the wrapping clocks compare rightly.
        let delay = delay.wrapping_sub(zero);
        let (least, most) = self.delay.unwrap_or((delay, delay));
        self.delay = Some((least.min(delay), most.max(delay)));
        self.on_floor(number, floor);
    }

    /// The same of a packet that came on a stream: its time there says nothing about the path of UDP.
    pub(crate) fn on_floor(&mut self, number: u64, floor: u32) {
        let behind = u64::from((number as u32).wrapping_sub(floor));
        if let Some(floor) = number.checked_sub(behind).filter(|&floor| floor > self.floor) {
            self.raise_floor(floor);
        }
    }

    fn raise_floor(&mut self, floor: u64) {
        self.missing +=
            self.numbers.missing_in(self.floor..floor).map(|gap| gap.end - gap.start).sum::<u64>();
        self.floor = floor;
        self.numbers.remove_below(floor);
    }

    /// The sender told its RTT.
    pub(crate) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = Some(rtt);
    }

    /// RTT as the sender measured it.
    #[must_use]
    pub(crate) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    fn interval(&self) -> Duration {
        report_interval(self.rtt)
    }

    /// Something that the sender waits for has changed: report within an interval.
    pub(crate) fn hurry(&mut self) {
        if self.largest.is_some() {
            let at = self.last_report + self.interval();
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// When the next report is due.
    #[must_use]
    pub(crate) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Packets that were missed so far.
    #[must_use]
    pub(crate) fn missing(&self) -> u64 {
        let end = self.largest.map_or(self.floor, |(largest, _)| largest + 1);
        self.missing + self.numbers.missing_in(self.floor..end).map(|gap| gap.end - gap.start).sum::<u64>()
    }

    /// Packets that the sender is known to have sent.
    #[must_use]
    pub(crate) fn seen(&self) -> u64 {
        self.largest.map_or(0, |(largest, _)| largest + 1)
    }

    /// Builds the reports that are due, each for one datagram. `standing` holds what is not about packets.
    pub(crate) fn build(&mut self, now: Duration, standing: &Report) -> Vec<Report> {
        let Some((largest, at)) = self.largest else {
            return Vec::new();
        };
        let zero = self.delay_zero.unwrap_or(0);
        let (least, most) = self.delay.take().unwrap_or((1, 0));
        let (train_bytes, train_time) = self.trains.take();
        let head = Report {
            largest,
            held_us: u32::try_from(now.saturating_sub(at).as_micros()).unwrap_or(u32::MAX),
            clock_us: now.as_micros() as u32,
            delay_min_us: zero.wrapping_add(least),
            delay_max_us: zero.wrapping_add(most),
            train_bytes,
            train_us: train_time.as_micros() as u64,
            runs: Vec::new(),
            ..standing.clone()
        };
        self.sequence = self.sequence.wrapping_add(1);
        let low = if self.sequence.is_multiple_of(FULL_REPORT_EVERY) {
            self.floor
        } else {
            self.history.front().map_or(self.floor, |&seen| seen.max(self.floor))
        };
        self.history.push_back(largest);
        if self.history.len() > REPORT_HISTORY {
            self.history.pop_front();
        }
        self.last_report = now;
        self.since_report = 0;
        self.bytes_since_report = 0;
        let quiet = now.saturating_sub(at) > self.rtt.unwrap_or_default() * 2 + self.interval() * 4;
        let wait = (self.interval() * REPORT_PATIENCE).min(REPORT_INTERVAL_MAX);
        self.due = Some(now + if quiet { REPORT_INTERVAL_IDLE } else { wait });
        self.split(&head, low, largest + 1)
    }

    /// Distributes the runs over as many reports as they need.
    fn split(&self, head: &Report, low: u64, end: u64) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut report = Report { low, ..head.clone() };
        let mut bytes = 0;
        let mut at = low;
        while at < end {
            let run_end = self.numbers.end_of_run(at).min(end);
            let gap_end = self
                .numbers
                .missing_in(run_end..end)
                .next()
                .map_or(run_end, |gap| if gap.start == run_end { gap.end } else { run_end });
            report.runs.push(run_end - at);
            bytes += varint_len(run_end - at);
            if gap_end > run_end {
                report.runs.push(gap_end - run_end);
                bytes += varint_len(gap_end - run_end);
            }
            at = gap_end;
            if bytes >= RUN_BYTES && at < end {
                reports.push(std::mem::replace(&mut report, Report { low: at, ..head.clone() }));
                bytes = 0;
                if reports.len() >= REPORT_DATAGRAMS {
                    return reports;
                }
            }
        }
        reports.push(report);
        reports
    }
}

/// How much each packet counts for the disorder, and how much of it trains survive.
const DISORDER_MEMORY: f64 = 1.0 / 64.0;
/// See [`DISORDER_MEMORY`].
const DISORDER_MAX: f64 = 0.1;

/// Packets that were sent at one time: how far apart they arrive tells the rate of the narrowest link. But not while many
/// overtake each other: then it is jitter that spreads them.
#[derive(Debug, Default)]
struct Trains {
    sent_us: u32,
    latest: Option<(u64, Duration)>,
    /// Share of packets that arrive behind a later one of their train, fading.
    disorder: f64,
    bytes: u64,
    time: Duration,
}

impl Trains {
    fn on_packet(&mut self, now: Duration, number: u64, size: u16, sent_us: u32) {
        if let Some((latest, at)) = self.latest.filter(|_| sent_us == self.sent_us) {
            let late = number < latest;
            self.disorder += DISORDER_MEMORY * (f64::from(u8::from(late)) - self.disorder);
            self.bytes += u64::from(size);
            self.time += now.saturating_sub(at);
        }
        (self.sent_us, self.latest) = (sent_us, Some((number, now)));
    }

    /// Bytes and time since the last call.
    fn take(&mut self) -> (u64, Duration) {
        let told = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.time));
        if self.disorder > DISORDER_MAX { (0, Duration::ZERO) } else { told }
    }
}

const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn received(reports: &[Report]) -> (Vec<u64>, Vec<u64>) {
        let (mut arrived, mut missing) = (Vec::new(), Vec::new());
        for (range, got) in reports.iter().flat_map(Report::ranges) {
            if got { arrived.extend(range) } else { missing.extend(range) }
        }
        (arrived, missing)
    }

    #[test]
    fn reports_tell_exactly_what_arrived_even_when_split() {
        let mut feedback = Feedback::default();
        let numbers: Vec<u64> = (0..5000).filter(|n| n % 3 != 1).collect();
        for &number in &numbers {
            feedback.on_packet(ms(1), number, 1000);
        }
        let reports = feedback.build(ms(2), &Report::default());
        assert!(reports.len() > 2);
        let (arrived, missing) = received(&reports);
        assert_eq!(arrived, numbers);
        assert_eq!(missing, (0..4999).filter(|n| n % 3 == 1).collect::<Vec<_>>());
        assert!(reports.iter().all(|report| {
            let mut bytes = Vec::new();
            report.encode(&mut bytes);
            bytes.len() < 1150
        }));
    }

    #[test]
    fn ordinary_reports_cover_the_last_intervals_and_full_ones_everything_above_the_floor() {
        let mut feedback = Feedback::default();
        let mut lows = Vec::new();
        for round in 0..16 {
            for number in round * 10..round * 10 + 10 {
                feedback.on_packet(ms(round), number, 1000);
            }
            feedback.on_data(ms(round), round * 10 + 9, 1000, 0, 5);
            lows.push(feedback.build(ms(round), &Report::default())[0].low);
        }
        assert_eq!(lows, [5, 9, 9, 9, 9, 19, 29, 5, 49, 59, 69, 79, 89, 99, 109, 5]);
    }

    #[test]
    fn delays_compare_rightly_when_the_clocks_wrap() {
        let mut feedback = Feedback::default();
        let now = Duration::from_micros(u64::from(u32::MAX) - 10);
        for (number, (step, late)) in [(0u64, 0u64), (20, 5), (30, 3)].into_iter().enumerate() {
            let sent = (0x8000_0000u64 + step - late) as u32;
            feedback.on_packet(now, number as u64, 1000);
            feedback.on_data(now + Duration::from_micros(step), number as u64, 1000, sent, 0);
        }
        let report = feedback.build(now, &Report::default()).remove(0);
        assert_eq!(report.delay_max_us.wrapping_sub(report.delay_min_us), 5);
    }

    #[test]
    fn a_report_is_due_after_an_interval_or_a_thousand_packets() {
        let mut feedback = Feedback::default();
        feedback.set_rtt(ms(80));
        feedback.on_packet(ms(100), 0, 1000);
        assert_eq!(feedback.due(), Some(ms(25)), "the first at once");
        feedback.build(ms(100), &Report::default());
        feedback.on_packet(ms(101), 1, 1000);
        assert_eq!(feedback.due(), Some(ms(125)), "for so little it waits");
        (2..2 + REPORT_PACKETS_MIN).for_each(|number| feedback.on_packet(ms(102), number, 1000));
        assert_eq!(feedback.due(), Some(ms(110)));
        (100..100 + REPORT_PACKETS).for_each(|number| feedback.on_packet(ms(103), number, 1000));
        assert_eq!(feedback.due(), Some(ms(100)), "at once");
    }

    #[test]
    fn trains_tell_the_rate_of_the_link_unless_jitter_disorders_them() {
        let us = Duration::from_micros;
        let mut trains = Trains::default();
        for number in 0..64 {
            // Two trains of 32, a packet each 100 us; one of them is overtaken by the next.
            let number = if number == 40 {
                41
            } else if number == 41 {
                40
            } else {
                number
            };
            trains.on_packet(us(number * 100), number, 1000, (number / 32) as u32);
        }
        assert_eq!(trains.take().0, 62_000);
        for number in 64..128 {
            trains.on_packet(us(number * 100), number ^ 1, 1000, 7);
        }
        assert_eq!(trains.take(), (0, Duration::ZERO));
    }
}
