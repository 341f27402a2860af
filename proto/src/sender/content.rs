//! The content blocks that the sender holds: being read, under way, acknowledged. Not here: when to send what.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::constants::{BLOCK_BYTES, DISK_WAIT, READ_AHEAD_BLOCKS, READ_AHEAD_BLOCKS_MAX, SEND_WINDOW_BYTES};
use crate::range_set::RangeSet;

#[derive(Debug)]
enum Slot {
    /// Asked for, not yet read.
    Reading,
    /// In memory, with what has been acknowledged of it.
    Held { data: Vec<u8>, acked: RangeSet, acked_bytes: u64 },
    /// Acknowledged in full.
    Done,
}

/// Blocks from the oldest that is not yet acknowledged in full to the newest that was asked for.
#[derive(Debug, Default)]
pub(super) struct ContentOut {
    /// Number of the first slot's block.
    first: u64,
    slots: VecDeque<Slot>,
    /// Next byte that was never sent.
    cursor: u64,
    /// How many blocks there are, once known.
    blocks: Option<u64>,
    spare: Vec<Vec<u8>>,
    /// How far beyond the cursor to read.
    ahead: Ahead,
}

/// Read-ahead. Content that waits long leaves the cache before it is sealed (measured on loopback: with 4 blocks
/// instead of 2 the sender takes 1.4 times the CPU), so it starts small and doubles when the disk kept the sender waiting.
#[derive(Debug)]
struct Ahead {
    blocks: u64,
    waiting_since: Option<Duration>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { blocks: READ_AHEAD_BLOCKS, waiting_since: None }
    }
}

impl Ahead {
    fn on_starved(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now);
    }

    /// A wait this short is that of a thread for a processor, not for a disk.
    fn on_fed(&mut self, now: Duration) {
        if self.waiting_since.take().is_some_and(|since| now.saturating_sub(since) >= DISK_WAIT) {
            self.blocks = (self.blocks * 2).min(READ_AHEAD_BLOCKS_MAX);
        }
    }
}

impl ContentOut {
    /// The next block to read, if more should be in memory.
    pub(super) fn poll_read(&mut self) -> Option<u64> {
        let next = self.first + self.slots.len() as u64;
        let wanted = self.cursor / BLOCK_BYTES + self.ahead.blocks;
        let most = self.first + SEND_WINDOW_BYTES / BLOCK_BYTES;
        if next >= wanted.min(most) || self.blocks.is_some_and(|blocks| next >= blocks) {
            return None;
        }
        self.slots.push_back(Slot::Reading);
        Some(next)
    }

    /// A buffer to read a block into, if one is spare.
    pub(super) fn spare_buffer(&mut self) -> Option<Vec<u8>> {
        self.spare.pop()
    }

    /// A block has been read: the bytes it uses, from its start. Returns false if it was not asked for.
    pub(super) fn handle_block(&mut self, block: u64, data: Vec<u8>) -> bool {
        let valid = !data.is_empty() && data.len() as u64 <= BLOCK_BYTES;
        match self.slot_mut(block) {
            Some(slot @ Slot::Reading) if valid => {
                *slot = Slot::Held { data, acked: RangeSet::new(), acked_bytes: 0 };
                true
            }
            _ => false,
        }
    }

    /// There are `blocks` blocks in all; requests beyond are void.
    pub(super) fn handle_end(&mut self, blocks: u64) {
        self.blocks = Some(blocks);
        while self.first + self.slots.len() as u64 > blocks
            && matches!(self.slots.back(), Some(Slot::Reading))
        {
            self.slots.pop_back();
        }
    }

    fn slot(&self, block: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(block.checked_sub(self.first)?).ok()?)
    }

    fn slot_mut(&mut self, block: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(block.checked_sub(self.first)?).ok()?)
    }

    fn held(&self, block: u64) -> Option<&[u8]> {
        match self.slot(block)? {
            Slot::Held { data, .. } => Some(data),
            Slot::Reading | Slot::Done => None,
        }
    }

    /// The next piece that was never sent, at most `most` bytes and below `credit`.
    pub(super) fn next_piece(&mut self, now: Duration, most: u64, credit: u64) -> Option<Range<u64>> {
        let start = self.cursor;
        let mut end = start;
        while end - start < most {
            let block = end / BLOCK_BYTES;
            let Some(data) = self.held(block) else {
                break;
            };
            let used_end = block * BLOCK_BYTES + data.len() as u64;
            end = used_end.min(start + most);
            if end < (block + 1) * BLOCK_BYTES {
                break;
            }
        }
        if end > start {
            self.ahead.on_fed(now);
        } else if !self.all_sent() {
            self.ahead.on_starved(now);
        }
        end = end.min(credit);
        if end <= start {
            return None;
        }
        self.cursor = end;
        self.skip_unused();
        Some(start..end)
    }

    /// Moves the cursor over the unused tail of a block.
    fn skip_unused(&mut self) {
        let block = self.cursor / BLOCK_BYTES;
        if self.held(block).is_some_and(|data| self.cursor - block * BLOCK_BYTES >= data.len() as u64) {
            self.cursor = (block + 1) * BLOCK_BYTES;
        }
    }

    /// What of `range` has not been acknowledged: its first gap, and how much of the range follows that gap.
    pub(super) fn first_unacked(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let mut start = range.start;
        while start < range.end {
            let block = start / BLOCK_BYTES;
            let base = block * BLOCK_BYTES;
            let end = range.end.min(base + BLOCK_BYTES);
            if let Some(Slot::Held { acked, .. }) = self.slot(block)
                && let Some(gap) = acked.missing_in(start - base..end - base).next()
            {
                return Some(base + gap.start..base + gap.end);
            }
            start = end;
        }
        None
    }

    /// Appends `count` bytes of content to a packet. Returns false, perhaps with a part appended, if they are not in memory.
    pub(super) fn append(&self, offset: u64, count: usize, packet: &mut Vec<u8>) -> bool {
        let mut at = offset;
        let mut rest = count;
        while rest > 0 {
            let start = (at % BLOCK_BYTES) as usize;
            let Some(from) = self.held(at / BLOCK_BYTES).and_then(|data| data.get(start..)) else {
                return false;
            };
            let Some(from) = from.get(..rest.min(from.len())).filter(|from| !from.is_empty()) else {
                return false;
            };
            packet.extend_from_slice(from);
            rest -= from.len();
            at += from.len() as u64;
        }
        true
    }

    /// Content has arrived at the other end.
    pub(super) fn on_arrived(&mut self, range: &Range<u64>) {
        let mut start = range.start;
        while start < range.end {
            let block = start / BLOCK_BYTES;
            let base = block * BLOCK_BYTES;
            let end = range.end.min(base + BLOCK_BYTES);
            let mut done = false;
            if let Some(Slot::Held { data, acked, acked_bytes }) = self.slot_mut(block) {
                *acked_bytes += acked.insert(start - base..end - base);
                done = *acked_bytes == data.len() as u64;
            }
            if done {
                self.release(block);
            }
            start = end;
        }
    }

    fn release(&mut self, block: u64) {
        if let Some(slot) = self.slot_mut(block)
            && let Slot::Held { data, .. } = std::mem::replace(slot, Slot::Done)
            && self.spare.len() < READ_AHEAD_BLOCKS_MAX as usize
        {
            self.spare.push(data);
        }
        while matches!(self.slots.front(), Some(Slot::Done)) {
            self.slots.pop_front();
            self.first += 1;
        }
    }

    /// Whether every byte has been sent at least once.
    #[must_use]
    pub(super) fn all_sent(&self) -> bool {
        self.blocks.is_some_and(|blocks| self.cursor >= blocks * BLOCK_BYTES || self.cursor_is_at_end(blocks))
    }

    fn cursor_is_at_end(&self, blocks: u64) -> bool {
        let last = blocks.saturating_sub(1);
        self.cursor / BLOCK_BYTES == last
            && self.held(last).is_some_and(|data| self.cursor - last * BLOCK_BYTES == data.len() as u64)
    }

    /// Whether there is content in memory that must wait for credit.
    #[must_use]
    pub(super) fn is_waiting_for_credit(&self, credit: u64) -> bool {
        self.cursor >= credit && self.held(self.cursor / BLOCK_BYTES).is_some() && !self.all_sent()
    }

    /// Next byte that was never sent.
    #[must_use]
    pub(super) const fn cursor(&self) -> u64 {
        self.cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK_BYTES;
    const NOW: Duration = Duration::ZERO;

    #[test]
    fn pieces_run_across_full_blocks_and_skip_unused_tails() {
        let mut content = ContentOut::default();
        let mut pieces = Vec::new();
        for (block, bytes) in [B as usize, 500, 40].into_iter().enumerate() {
            while content.poll_read().is_some() {}
            assert!(content.handle_block(block as u64, vec![block as u8 + 1; bytes]));
            assert!(!content.handle_block(block as u64, vec![3; 40]), "twice");
            assert!(!content.handle_block(9, vec![3; 40]), "never asked for");
            if block > 0 {
                pieces.extend(std::iter::from_fn(|| content.next_piece(NOW, B - 100, u64::MAX)));
            }
        }
        content.handle_end(3);
        assert_eq!(pieces, [0..B - 100, B - 100..B + 500, 2 * B..2 * B + 40]);
        assert!(content.all_sent());
        let mut bytes = Vec::new();
        assert!(content.append(B - 100, 200, &mut bytes));
        assert_eq!(bytes, [[1; 100], [2; 100]].concat());
        assert!(!content.append(B + 400, 200, &mut bytes), "beyond what the block uses");
        content.on_arrived(&(0..B + 100));
        assert_eq!(content.first_unacked(&(0..B + 500)), Some(B + 100..B + 500));
        content.on_arrived(&(B + 100..B + 500));
        content.on_arrived(&(2 * B..2 * B + 40));
        content.on_arrived(&(2 * B..2 * B + 40));
        assert_eq!(content.first_unacked(&(0..3 * B)), None);
    }

    #[test]
    fn a_slow_disk_is_read_further_ahead_a_slow_thread_is_not() {
        for (wait_ms, asked) in [(1, 2), (2, 4), (1000, 4)] {
            let mut content = ContentOut::default();
            let mut reading: Vec<u64> = std::iter::from_fn(|| content.poll_read()).collect();
            assert_eq!(content.next_piece(NOW, 1000, u64::MAX), None);
            assert!(content.handle_block(0, vec![1; B as usize]));
            let later = Duration::from_millis(wait_ms);
            assert_eq!(content.next_piece(later, 1000, u64::MAX), Some(0..1000));
            reading.extend(std::iter::from_fn(|| content.poll_read()));
            assert_eq!(reading.len(), asked, "after {wait_ms} ms");
        }
    }

    #[test]
    fn credit_bounds_what_is_sent() {
        let mut content = ContentOut::default();
        content.poll_read();
        content.handle_block(0, vec![1; B as usize]);
        assert_eq!(content.next_piece(NOW, 1000, 300), Some(0..300));
        assert_eq!(content.next_piece(NOW, 1000, 300), None);
        assert_eq!(content.next_piece(NOW, 1000, 5000), Some(300..1300));
    }
}
