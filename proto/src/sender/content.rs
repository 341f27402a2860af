//! The content blocks that the sender holds: being read, under way, acknowledged. Not here: when to send what.

use std::collections::VecDeque;
use std::ops::Range;

use crate::constants::{BLOCK_BYTES, READ_AHEAD_BLOCKS, SEND_WINDOW_BYTES};
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
}

impl ContentOut {
    /// The next block to read, if more should be in memory. Read-ahead covers `ahead` bytes beyond the cursor.
    pub(super) fn poll_read(&mut self, ahead: u64) -> Option<u64> {
        let next = self.first + self.slots.len() as u64;
        let wanted =
            (self.cursor + ahead).div_ceil(BLOCK_BYTES).max(self.cursor / BLOCK_BYTES + READ_AHEAD_BLOCKS);
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
    pub(super) fn next_piece(&mut self, most: u64, credit: u64) -> Option<Range<u64>> {
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

    /// Copies content into a packet. Returns false if it is not in memory.
    pub(super) fn copy(&self, offset: u64, into: &mut [u8]) -> bool {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let Some(data) = self.held(at / BLOCK_BYTES) else {
                return false;
            };
            let start = (at % BLOCK_BYTES) as usize;
            let count = rest.len().min(data.len().saturating_sub(start));
            let Some(from) = data.get(start..start + count).filter(|from| !from.is_empty()) else {
                return false;
            };
            let (to, later) = rest.split_at_mut(count);
            to.copy_from_slice(from);
            rest = later;
            at += count as u64;
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
            && self.spare.len() < READ_AHEAD_BLOCKS as usize
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

    /// Next byte that was never sent.
    #[must_use]
    pub(super) const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether the block at the cursor is still being read.
    #[must_use]
    pub(super) fn is_waiting_for_disk(&self) -> bool {
        !self.all_sent() && self.held(self.cursor / BLOCK_BYTES).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK_BYTES;

    #[test]
    fn pieces_run_across_full_blocks_and_skip_unused_tails() {
        let mut content = ContentOut::default();
        while content.poll_read(0).is_some() {}
        assert!(content.handle_block(0, vec![1; B as usize]));
        assert!(content.handle_block(1, vec![2; 500]));
        assert!(content.handle_block(2, vec![3; 40]));
        assert!(!content.handle_block(2, vec![3; 40]), "twice");
        assert!(!content.handle_block(9, vec![3; 40]), "never asked for");
        content.handle_end(3);
        let mut pieces = Vec::new();
        while let Some(piece) = content.next_piece(B - 100, u64::MAX) {
            pieces.push(piece);
        }
        assert_eq!(pieces, [0..B - 100, B - 100..B + 500, 2 * B..2 * B + 40]);
        assert!(content.all_sent());
        let mut bytes = [0; 200];
        assert!(content.copy(B - 100, &mut bytes));
        assert_eq!(bytes, [[1; 100], [2; 100]].concat()[..]);
        assert!(!content.copy(B + 400, &mut bytes), "beyond what the block uses");
        content.on_arrived(&(0..B + 100));
        assert_eq!(content.first_unacked(&(0..B + 500)), Some(B + 100..B + 500));
        content.on_arrived(&(B + 100..B + 500));
        content.on_arrived(&(2 * B..2 * B + 40));
        content.on_arrived(&(2 * B..2 * B + 40));
        assert_eq!(content.first_unacked(&(0..3 * B)), None);
    }

    #[test]
    fn credit_bounds_what_is_sent() {
        let mut content = ContentOut::default();
        content.poll_read(0);
        content.handle_block(0, vec![1; B as usize]);
        assert_eq!(content.next_piece(1000, 300), Some(0..300));
        assert_eq!(content.next_piece(1000, 300), None);
        assert_eq!(content.next_piece(1000, 5000), Some(300..1300));
    }
}
