//! Sorted disjoint ranges of `u64`, the book-keeping of what has arrived. Not here: what the numbers mean.

use std::collections::VecDeque;
use std::ops::Range;

/// A set of numbers, stored as sorted, disjoint, non-touching ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: VecDeque<Range<u64>>,
}

impl RangeSet {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: VecDeque::new() }
    }

    /// Adds a range; returns how many numbers were new. An empty range adds nothing.
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        if range.start >= range.end {
            return 0;
        }
        // In order arrival is the rule: extend or follow the last range without a search.
        match self.ranges.back_mut() {
            None => {
                let added = range.end - range.start;
                self.ranges.push_back(range);
                return added;
            }
            Some(last) if range.start > last.end => {
                let added = range.end - range.start;
                self.ranges.push_back(range);
                return added;
            }
            Some(last) if range.start == last.end => {
                last.end = range.end;
                return range.end - range.start;
            }
            Some(_) => {}
        }
        self.insert_within(range)
    }

    fn insert_within(&mut self, range: Range<u64>) -> u64 {
        // First range that touches or follows the start; those up to `to` are swallowed.
        let from = self.ranges.partition_point(|have| have.end < range.start);
        let mut to = from;
        let mut merged = range.clone();
        let mut already = 0;
        while let Some(have) = self.ranges.get(to).filter(|have| have.start <= range.end) {
            already += have.end.min(range.end).saturating_sub(have.start.max(range.start));
            merged.start = merged.start.min(have.start);
            merged.end = merged.end.max(have.end);
            to += 1;
        }
        if to == from {
            self.ranges.insert(from, merged);
        } else {
            if let Some(first) = self.ranges.get_mut(from) {
                *first = merged;
            }
            if to > from + 1 {
                self.ranges.drain(from + 1..to);
            }
        }
        range.end - range.start - already
    }

    /// Forgets everything below `floor`.
    pub fn remove_below(&mut self, floor: u64) {
        while let Some(first) = self.ranges.front_mut() {
            if first.end <= floor {
                self.ranges.pop_front();
            } else {
                first.start = first.start.max(floor);
                return;
            }
        }
    }

    /// Whether all of `range` is in the set.
    #[must_use]
    pub fn contains_all(&self, range: Range<u64>) -> bool {
        if range.start >= range.end {
            return true;
        }
        let at = self.ranges.partition_point(|have| have.end <= range.start);
        self.ranges.get(at).is_some_and(|have| have.start <= range.start && range.end <= have.end)
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn missing_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut cursor = range.start;
        let mut at = self.ranges.partition_point(|have| have.end <= range.start);
        std::iter::from_fn(move || {
            while cursor < range.end {
                let Some(have) = self.ranges.get(at) else {
                    let gap = cursor..range.end;
                    cursor = range.end;
                    return Some(gap);
                };
                let gap = cursor..have.start.min(range.end);
                cursor = have.end;
                at += 1;
                if gap.start < gap.end {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Range<u64>> + '_ {
        self.ranges.iter()
    }

    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The end of the range that covers `start`, or `start` itself.
    #[must_use]
    pub fn end_of_run(&self, start: u64) -> u64 {
        let at = self.ranges.partition_point(|have| have.end <= start);
        self.ranges.get(at).filter(|have| have.start <= start).map_or(start, |have| have.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small generator, so that the property tests need no crate and repeat exactly.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }
    }

    #[test]
    fn agrees_with_a_bitmap_over_random_insertions() {
        for seed in 0..500 {
            let mut dice = Dice(seed);
            let mut set = RangeSet::new();
            let mut bits = [false; 200];
            for _ in 0..60 {
                let start = dice.roll(200);
                let end = (start + dice.roll(30)).min(200);
                let new = bits[start as usize..end as usize].iter().filter(|bit| !**bit).count() as u64;
                bits[start as usize..end as usize].fill(true);
                assert_eq!(set.insert(start..end), new, "seed {seed}");
                if dice.roll(20) == 0 {
                    let floor = dice.roll(50);
                    set.remove_below(floor);
                    bits[..floor as usize].fill(false);
                }
                let listed: Vec<u64> = set.iter().cloned().flatten().collect();
                let expected: Vec<u64> = (0..200).filter(|&n| bits[n as usize]).collect();
                assert_eq!(listed, expected, "seed {seed}");
                let missing: Vec<u64> = set.missing_in(10..190).flatten().collect();
                let expected: Vec<u64> = (10..190).filter(|&n| !bits[n as usize]).collect();
                assert_eq!(missing, expected, "seed {seed}");
                let probe = dice.roll(150)..dice.roll(200);
                let all = probe.clone().all(|n| bits[n as usize]);
                assert_eq!(set.contains_all(probe), all, "seed {seed}");
            }
            let ranges: Vec<_> = set.iter().cloned().collect();
            assert!(
                ranges.windows(2).all(|pair| pair[0].end < pair[1].start),
                "seed {seed}: touching ranges"
            );
        }
    }
}
