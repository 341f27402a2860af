//! What the receiver needs of each file: all of it, nothing, or the blocks that it lacks. One mechanism for resuming,
//! skipping and overwriting. Not here: who decides, and by what.
//!
//! Verdicts go from the receiver to the sender over the control conversation, in the order of the manifest's files.
//! Both sides lay the content out by them: a skipped file takes no place in it, a partly held one the place of its
//! missing blocks. A file that was not wanted whole may turn out to be another one than thought, by its digest; such
//! files are named once more at the end, and are then sent whole.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::constants::{BLOCK_BYTES, MAX_MISSING_RUNS, MAX_PARTS, VERDICTS_WAITING};

/// What a receiver needs of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All of it.
    All,
    /// Nothing.
    Skip,
    /// These blocks, and the trailer, whose digest tells whether the rest is what the receiver takes it for.
    Part(Missing),
}

/// The blocks of a file that are missing at the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    /// Ranges of blocks, in order, apart from each other; with the number of missing blocks before each.
    ranges: Vec<(Range<u64>, u64)>,
}

impl Missing {
    /// From what is held of a file of `blocks` blocks. Where that is scattered wide, the end of it counts as missing.
    #[must_use]
    pub fn beside(held: &crate::range_set::RangeSet, blocks: u64) -> Self {
        let mut missing = Self::default();
        for range in held.missing_in(0..blocks) {
            if missing.ranges.len() == MAX_MISSING_RUNS / 2 - 1 {
                missing.push(range.start..blocks);
                break;
            }
            missing.push(range);
        }
        missing
    }

    fn push(&mut self, range: Range<u64>) {
        let before = self.blocks();
        self.ranges.push((range, before));
    }

    /// From run lengths: held, missing, held, ... `None` if they are not those of a file of `blocks` blocks.
    #[must_use]
    pub fn from_runs(runs: &[u64], blocks: u64) -> Option<Self> {
        let mut missing = Self::default();
        let mut at = 0u64;
        for (index, &run) in runs.iter().enumerate() {
            let end = at.checked_add(run).filter(|&end| end <= blocks)?;
            if run == 0 && index > 0 {
                return None;
            }
            if index % 2 == 1 {
                missing.push(at..end);
            }
            at = end;
        }
        (runs.len() <= MAX_MISSING_RUNS).then_some(missing)
    }

    /// As run lengths: held, missing, held, ...; what follows the last is held.
    #[must_use]
    pub fn runs(&self) -> Vec<u64> {
        let mut at = 0;
        let runs = self.ranges.iter().flat_map(|(range, _)| {
            let held = range.start - std::mem::replace(&mut at, range.end);
            [held, range.end - range.start]
        });
        runs.collect()
    }

    /// How many blocks are missing.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.ranges.last().map_or(0, |(range, before)| before + (range.end - range.start))
    }

    /// The missing bytes of a file of `size` bytes.
    #[must_use]
    pub fn bytes(&self, size: u64) -> u64 {
        let short = self.ranges.last().map_or(0, |(range, _)| (range.end * BLOCK_BYTES).saturating_sub(size));
        (self.blocks() * BLOCK_BYTES).saturating_sub(short)
    }

    /// The missing block at `position` among them.
    #[must_use]
    pub fn block_at(&self, position: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|(_, before)| *before <= position).checked_sub(1)?;
        let (range, before) = self.ranges.get(at)?;
        Some(range.start + (position - before)).filter(|block| *block < range.end)
    }

    /// The place of a block among those that are missing.
    #[must_use]
    pub fn position_of(&self, block: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|(range, _)| range.end <= block);
        let (range, before) = self.ranges.get(at)?;
        block.checked_sub(range.start).map(|into| before + into)
    }

    /// What the receiver holds of a file of `blocks` blocks.
    pub fn held(&self, blocks: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let starts = std::iter::once(0).chain(self.ranges.iter().map(|(range, _)| range.end));
        let ends = self.ranges.iter().map(|(range, _)| range.start).chain(std::iter::once(blocks));
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| range.start < range.end)
    }
}

/// What is wanted of a file, for laying it out and for finding its bytes.
pub trait Wanted {
    /// How many of its `size` bytes are wanted.
    fn wanted_bytes(&self, size: u64) -> u64;
    /// Where in the file the byte at `position` of the wanted ones stands.
    fn file_offset(&self, position: u64) -> u64;
}

impl Wanted for Option<Missing> {
    fn wanted_bytes(&self, size: u64) -> u64 {
        self.as_ref().map_or(size, |missing| missing.bytes(size))
    }

    fn file_offset(&self, position: u64) -> u64 {
        let Some(missing) = self else {
            return position;
        };
        let (block, into) = (position / BLOCK_BYTES, position % BLOCK_BYTES);
        // One beyond the last is where an empty piece stands; it does not matter.
        missing.block_at(block).unwrap_or(block) * BLOCK_BYTES + into
    }
}

/// A line of verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// Number of the first file that it is about: verdicts have no gaps.
    pub first: u64,
    /// How many files are wanted whole, how many not at all, how many whole, ...
    #[serde(default)]
    pub runs: Vec<u64>,
    /// Of the file after those: how many blocks are held, how many missing, how many held, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Vec<u64>>,
    /// After the last file: those that are wanted whole after all. No verdict follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Vec<u64>>,
}

/// Runs in a line that is said at the latest.
const RUNS_A_LINE: usize = 4096;

/// The receiver's verdicts on their way out.
#[derive(Debug, Default)]
pub(crate) struct VerdictsOut {
    line: Verdicts,
    /// Number of the file that comes next.
    next: u64,
    ready: VecDeque<Verdicts>,
}

impl VerdictsOut {
    pub(crate) fn push(&mut self, verdict: &Verdict) {
        self.next += 1;
        match verdict {
            Verdict::All => self.count(0),
            Verdict::Skip => self.count(1),
            Verdict::Part(missing) => {
                self.line.missing = Some(missing.runs());
                self.cut();
            }
        }
    }

    fn count(&mut self, parity: usize) {
        while self.line.runs.len() % 2 == parity || self.line.runs.is_empty() {
            self.line.runs.push(0);
        }
        if let Some(last) = self.line.runs.last_mut() {
            *last += 1;
        }
        if self.line.runs.len() >= RUNS_A_LINE {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let next = Verdicts { first: self.next, ..Verdicts::default() };
        self.ready.push_back(std::mem::replace(&mut self.line, next));
    }

    /// The last word: these files are wanted whole after all.
    pub(crate) fn finish(&mut self, again: Vec<u64>) {
        self.line.again = Some(again);
        self.cut();
    }

    /// Whether so much waits to be said that no more should be decided.
    pub(crate) fn is_full(&self) -> bool {
        self.ready.len() >= VERDICTS_WAITING
    }

    pub(crate) fn poll(&mut self) -> Option<Verdicts> {
        if self.ready.is_empty() && self.line.first < self.next {
            self.cut();
        }
        self.ready.pop_front()
    }
}

/// What the sender makes of verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Of the next file.
    File(Verdict),
    /// Of the files that were wanted in part, in the order in which they came, these are wanted whole. The last.
    Again(Vec<u64>),
}

/// The sender's book of files whose verdict is awaited.
#[derive(Debug, Default)]
pub(crate) struct VerdictsIn {
    /// Sizes of the files that have been listed.
    awaited: VecDeque<u64>,
    next: u64,
    /// Those that are wanted in part.
    parts: BTreeSet<u64>,
    listed_all: bool,
    ended: bool,
    decisions: VecDeque<Decision>,
    /// Files that are skipped, and bytes that the receiver holds already.
    pub(crate) skipped_files: u64,
    pub(crate) held_bytes: u64,
}

impl VerdictsIn {
    pub(crate) fn on_file(&mut self, size: u64) {
        self.awaited.push_back(size);
    }

    pub(crate) fn on_end(&mut self) {
        self.listed_all = true;
    }

    pub(crate) fn poll(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// Takes a line.
    pub(crate) fn handle(&mut self, line: &Verdicts) -> Result<(), Error> {
        if line.first != self.next || self.ended {
            return Err(Error::PeerMisbehaved("verdicts came out of order"));
        }
        for (index, &count) in line.runs.iter().enumerate() {
            if count > self.awaited.len() as u64 {
                return Err(Error::PeerMisbehaved("a verdict is about a file that was not listed"));
            }
            for _ in 0..count {
                self.take(|_| Some(if index % 2 == 0 { Verdict::All } else { Verdict::Skip }))?;
            }
        }
        if let Some(runs) = &line.missing {
            self.take(|size| Missing::from_runs(runs, size.div_ceil(BLOCK_BYTES)).map(Verdict::Part))?;
        }
        line.again.as_ref().map_or(Ok(()), |again| self.end(again))
    }

    fn take(&mut self, verdict: impl FnOnce(u64) -> Option<Verdict>) -> Result<(), Error> {
        let size = self.awaited.pop_front();
        let size = size.ok_or(Error::PeerMisbehaved("a verdict is about a file that was not listed"))?;
        let verdict =
            verdict(size).ok_or(Error::PeerMisbehaved("a verdict names blocks that are not there"))?;
        match &verdict {
            Verdict::All => {}
            Verdict::Skip => {
                self.skipped_files += 1;
                self.held_bytes += size;
            }
            Verdict::Part(missing) => {
                if self.parts.len() >= MAX_PARTS {
                    return Err(Error::PeerMisbehaved("too many files are wanted in part"));
                }
                self.parts.insert(self.next);
                self.held_bytes += size - missing.bytes(size);
            }
        }
        self.next += 1;
        self.decisions.push_back(Decision::File(verdict));
        Ok(())
    }

    fn end(&mut self, again: &[u64]) -> Result<(), Error> {
        let in_order = again.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if !self.listed_all || !self.awaited.is_empty() || self.parts.is_empty() || !in_order {
            return Err(Error::PeerMisbehaved("verdicts ended before their time"));
        }
        let place = |id: &u64| self.parts.contains(id).then(|| self.parts.range(..id).count() as u64);
        let places: Option<Vec<u64>> = again.iter().map(place).collect();
        let places =
            places.ok_or(Error::PeerMisbehaved("a file is wanted again that was not wanted in part"))?;
        self.ended = true;
        self.decisions.push_back(Decision::Again(places));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range_set::RangeSet;

    fn held(ranges: &[Range<u64>]) -> RangeSet {
        let mut set = RangeSet::new();
        for range in ranges {
            set.insert(range.clone());
        }
        set
    }

    #[test]
    fn missing_blocks_are_what_is_not_held() {
        // blocks, size of the last block, held, runs, missing bytes
        let b = BLOCK_BYTES;
        for (row, (blocks, last, ranges, runs, bytes)) in [
            (10, b, vec![], vec![0, 10], 10 * b),
            (10, 7, vec![0..3, 3..4], vec![4, 6], 5 * b + 7),
            (10, 7, vec![2..4, 9..10], vec![0, 2, 2, 5], 7 * b),
            (10, 7, vec![0..5, 5..10], vec![], 0),
            (10, 7, vec![0..8, 8..9], vec![9, 1], 7),
        ]
        .into_iter()
        .enumerate()
        {
            let missing = Missing::beside(&held(&ranges), blocks);
            assert_eq!(missing.runs(), runs, "row {row}");
            assert_eq!(missing.bytes((blocks - 1) * b + last), bytes, "row {row}");
            assert_eq!(Missing::from_runs(&runs, blocks), Some(missing.clone()), "row {row}");
            let places: Vec<u64> = (0..missing.blocks()).map(|at| missing.block_at(at).unwrap()).collect();
            let expected: Vec<u64> =
                (0..blocks).filter(|block| !ranges.iter().any(|range| range.contains(block))).collect();
            assert_eq!(places, expected, "row {row}");
            assert_eq!(missing.block_at(missing.blocks()), None, "row {row}");
            for (place, &block) in places.iter().enumerate() {
                assert_eq!(missing.position_of(block), Some(place as u64), "row {row}");
            }
            let there: Vec<u64> = missing.held(blocks).flatten().collect();
            assert_eq!(there, ranges.into_iter().flatten().collect::<Vec<_>>(), "row {row}");
        }
    }

    #[test]
    fn what_is_scattered_wide_is_bounded() {
        let mut set = RangeSet::new();
        (0..5000).for_each(|n| {
            set.insert(2 * n..2 * n + 1);
        });
        let missing = Missing::beside(&set, 10_000);
        assert!(missing.runs().len() <= MAX_MISSING_RUNS);
        assert!(
            (1..10_000).step_by(2).all(|block| missing.position_of(block).is_some()),
            "none is forgotten"
        );
        assert_eq!(Missing::from_runs(&missing.runs(), 10_000), Some(missing));
    }

    #[test]
    fn runs_that_make_no_sense_are_refused() {
        for (row, runs) in
            [&[0, 11][..], &[11], &[3, 0, 2], &[u64::MAX, 2], &[0; 3], &[1; MAX_MISSING_RUNS + 1]]
                .iter()
                .enumerate()
        {
            assert_eq!(Missing::from_runs(runs, if row == 5 { 1 << 40 } else { 10 }), None, "row {row}");
        }
    }

    fn part(runs: &[u64], blocks: u64) -> Verdict {
        Verdict::Part(Missing::from_runs(runs, blocks).unwrap())
    }

    #[test]
    fn verdicts_arrive_as_they_were_given() {
        let mut state = 5u64;
        let mut draw = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let (mut out, mut book, mut given) = (VerdictsOut::default(), VerdictsIn::default(), Vec::new());
        for _ in 0..3000 {
            book.on_file(10 * BLOCK_BYTES);
            let verdict = match draw(8) {
                0..5 => Verdict::All,
                5..7 => Verdict::Skip,
                _ => part(&[draw(5), 1 + draw(4)], 10),
            };
            out.push(&verdict);
            given.push(Decision::File(verdict));
            if draw(20) == 0 {
                while let Some(line) = out.poll() {
                    let text = serde_json::to_string(&line).unwrap();
                    assert!(text.len() < crate::control::MAX_LINE_BYTES);
                    book.handle(&serde_json::from_str(&text).unwrap()).unwrap();
                }
            }
        }
        book.on_end();
        let parts: Vec<u64> =
            (0..3000).filter(|&id| matches!(given[id as usize], Decision::File(Verdict::Part(_)))).collect();
        out.finish(vec![parts[3], parts[7]]);
        while let Some(line) = out.poll() {
            book.handle(&line).unwrap();
        }
        given.push(Decision::Again(vec![3, 7]));
        assert_eq!(std::iter::from_fn(|| book.poll()).collect::<Vec<_>>(), given);
        assert!(book.handle(&Verdicts { first: 3000, ..Verdicts::default() }).is_err(), "after the last");
    }

    #[test]
    fn a_hostile_receiver_is_found_out() {
        let line = |first, runs: &[u64]| Verdicts { first, runs: runs.to_vec(), ..Verdicts::default() };
        let missing = |runs: &[u64]| Verdicts { missing: Some(runs.to_vec()), ..line(0, &[]) };
        let again =
            |first, runs: &[u64], ids: &[u64]| Verdicts { again: Some(ids.to_vec()), ..line(first, runs) };
        for (row, line) in [
            line(1, &[1]),
            line(0, &[3]),
            line(0, &[u64::MAX]),
            line(0, &[1, 1, 1]),
            missing(&[0, 5]),
            missing(&[1, 0]),
            again(0, &[2], &[]),
            again(0, &[2], &[0]),
            again(0, &[1], &[0]),
            Verdicts { again: Some(vec![1]), missing: Some(vec![4]), ..line(0, &[1]) },
            Verdicts { again: Some(vec![0, 0]), missing: Some(vec![4]), ..line(0, &[]) },
        ]
        .into_iter()
        .enumerate()
        {
            let mut book = VerdictsIn::default();
            book.on_file(4 * BLOCK_BYTES);
            book.on_file(0);
            book.on_end();
            assert!(book.handle(&line).is_err(), "row {row}: {line:?}");
        }
    }

    #[test]
    fn the_text_is_pinned() {
        let mut out = VerdictsOut::default();
        for verdict in [Verdict::Skip, Verdict::Skip, Verdict::All, part(&[2, 3], 9)] {
            out.push(&verdict);
        }
        out.finish(vec![3]);
        let lines: Vec<String> =
            std::iter::from_fn(|| out.poll()).map(|line| serde_json::to_string(&line).unwrap()).collect();
        assert_eq!(
            lines,
            [r#"{"first":0,"runs":[0,2,1],"missing":[2,3]}"#, r#"{"first":4,"runs":[],"again":[3]}"#]
        );
    }
}
