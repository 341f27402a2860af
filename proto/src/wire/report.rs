//! REPORT: what the receiver has, told to the sender many times a second.
//!
//! ```text
//! flags u8                 bit 0: all is stored; nothing more is wanted. Bit 1: the disk is behind
//! largest u64              largest packet number received
//! held u32                 microseconds since it arrived
//! clock u32                receiver's clock, microseconds, wrapping
//! delay_min, delay_max i32 each: arrival clock - time of sending, microseconds, over the packets since the last report
//! packets, bytes varint each: datagrams and their UDP payload bytes received since the session began
//! credit varint            content may be sent below this offset
//! manifest varint          manifest bytes consumed
//! stored varint            content bytes that are on disk
//! files varint             files finished
//! buffer varint            bytes that may wait at the receiver, arrived but not yet taken; 0: not told
//! train_bytes, train_us varint each: UDP payload bytes, without the first datagram of each train, that arrived in trains
//!                          since the last report, and the time they took. A train is what was sent at one time
//! low u64                  the ranges start here
//! runs: count varint, then that many varints: packets received, missing, received, ... from `low` upwards.
//!       The first may be zero. What lies beyond the last run is not told.
//! ```

use super::{Reader, put_varint};

/// What the receiver has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// All content is stored and every file finished.
    pub complete: bool,
    /// The disk holds back the credit.
    pub disk_behind: bool,
    /// Largest packet number received.
    pub largest: u64,
    /// Microseconds since it arrived.
    pub held_us: u32,
    /// The receiver's clock in microseconds, wrapping.
    pub clock_us: u32,
    /// Least one-way delay since the last report, up to the constant between the two clocks.
    pub delay_min_us: i32,
    /// Largest one-way delay since the last report.
    pub delay_max_us: i32,
    /// Datagrams received since the session began.
    pub packets: u64,
    /// Their UDP payload bytes.
    pub bytes: u64,
    /// Content may be sent below this offset.
    pub credit: u64,
    /// Manifest bytes consumed.
    pub manifest: u64,
    /// Content bytes on disk.
    pub stored: u64,
    /// Files finished.
    pub files: u64,
    /// Bytes that may wait in the receiver's socket buffer; 0 if it does not tell.
    pub buffer: u64,
    /// Bytes that arrived in trains since the last report, without the first packet of each.
    pub train_bytes: u64,
    /// Microseconds from the first to the last packet of these trains, added up.
    pub train_us: u64,
    /// First packet number that `runs` tells of.
    pub low: u64,
    /// Lengths of alternating runs from `low`: received, missing, received, ...
    pub runs: Vec<u64>,
}

/// Runs that one report may hold; a peer that sends more is cut off.
pub const MAX_RUNS: u64 = 4096;

/// Bytes of a report without its runs, at most.
pub const FIXED_BYTES: usize = 1 + 8 + 4 * 4 + 9 * 10 + 8 + 3;

impl Report {
    /// Appends the report.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.complete) | u8::from(self.disk_behind) << 1);
        out.extend_from_slice(&self.largest.to_be_bytes());
        out.extend_from_slice(&self.held_us.to_be_bytes());
        out.extend_from_slice(&self.clock_us.to_be_bytes());
        out.extend_from_slice(&self.delay_min_us.to_be_bytes());
        out.extend_from_slice(&self.delay_max_us.to_be_bytes());
        for value in [self.packets, self.bytes, self.credit, self.manifest, self.stored] {
            put_varint(out, value);
        }
        for value in [self.files, self.buffer, self.train_bytes, self.train_us] {
            put_varint(out, value);
        }
        out.extend_from_slice(&self.low.to_be_bytes());
        put_varint(out, self.runs.len() as u64);
        for run in &self.runs {
            put_varint(out, *run);
        }
    }

    /// Reads a report; `None` if it is cut short or its ranges overflow.
    pub fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let flags = reader.u8()?;
        let mut report = Self {
            complete: flags & 1 != 0,
            disk_behind: flags & 2 != 0,
            largest: reader.u64()?,
            held_us: reader.u32()?,
            clock_us: reader.u32()?,
            delay_min_us: reader.u32()? as i32,
            delay_max_us: reader.u32()? as i32,
            packets: reader.varint()?,
            bytes: reader.varint()?,
            credit: reader.varint()?,
            manifest: reader.varint()?,
            stored: reader.varint()?,
            files: reader.varint()?,
            buffer: reader.varint()?,
            train_bytes: reader.varint()?,
            train_us: reader.varint()?,
            low: reader.u64()?,
            runs: Vec::new(),
        };
        let count = reader.varint().filter(|&count| count <= MAX_RUNS)?;
        let mut end = report.low;
        for _ in 0..count {
            let run = reader.varint()?;
            end = end.checked_add(run)?;
            report.runs.push(run);
        }
        Some(report)
    }

    /// The runs as ranges of packet numbers with whether they were received.
    pub fn ranges(&self) -> impl Iterator<Item = (std::ops::Range<u64>, bool)> + '_ {
        let mut start = self.low;
        self.runs.iter().enumerate().map(move |(index, &run)| {
            let range = start..start.saturating_add(run);
            start = range.end;
            (range, index % 2 == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        Report {
            complete: true,
            disk_behind: true,
            largest: 0x11,
            held_us: 2,
            clock_us: 3,
            delay_min_us: -4,
            delay_max_us: 5,
            packets: 6,
            bytes: 7,
            credit: 8,
            manifest: 9,
            stored: 10,
            files: 300,
            buffer: 200,
            train_bytes: 1000,
            train_us: 12,
            low: 5,
            runs: vec![0, 2, 11],
        }
    }

    #[test]
    fn the_report_is_pinned_and_every_cut_is_refused() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        let expected = [
            &[3][..],
            &[0, 0, 0, 0, 0, 0, 0, 0x11],
            &[0, 0, 0, 2, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xfc, 0, 0, 0, 5],
            &[6, 7, 8, 9, 10],
            &[0xac, 2],
            &[0xc8, 1],
            &[0xe8, 7],
            &[12],
            &[0, 0, 0, 0, 0, 0, 0, 5],
            &[3, 0, 2, 11],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(Report::decode(&mut Reader::new(&bytes)), Some(sample()));
        for cut in 0..bytes.len() {
            assert_eq!(Report::decode(&mut Reader::new(&bytes[..cut])), None, "cut at {cut}");
        }
    }

    #[test]
    fn ranges_alternate_from_low_and_cannot_overflow() {
        let ranges: Vec<_> = sample().ranges().collect();
        assert_eq!(ranges, [(5..5, true), (5..7, false), (7..18, true)]);
        let mut bytes = Vec::new();
        Report { low: u64::MAX, runs: vec![1], ..sample() }.encode(&mut bytes);
        assert_eq!(Report::decode(&mut Reader::new(&bytes)), None);
    }
}
