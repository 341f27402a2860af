//! Assembles content blocks from pieces that arrive in any order. Memory is bounded by a pool of blocks; the free part
//! of it is the credit that the sender gets. Not here: files.

use std::collections::VecDeque;

use crate::Error;
use crate::constants::{BLOCK_BYTES, MAX_GAPS, RECEIVE_BLOCKS_MAX, RECEIVE_BLOCKS_MIN};
use crate::layout::Layout;
use crate::range_set::RangeSet;

#[derive(Debug)]
enum Slot {
    /// Nothing of it has arrived.
    Empty,
    /// Some of it has arrived.
    Filling { data: Vec<u8>, got: RangeSet, got_bytes: u64 },
    /// It went to the disk.
    Done,
}

/// Blocks from the oldest incomplete one to the newest that was touched.
#[derive(Debug)]
pub(super) struct ContentIn {
    first: u64,
    slots: VecDeque<Slot>,
    /// Blocks that hold memory: being filled, or on their way to the disk.
    in_use: u64,
    /// Slots that are empty.
    empty: u64,
    pool: u64,
    spare: Vec<Vec<u8>>,
    duplicate_bytes: u64,
}

impl Default for ContentIn {
    fn default() -> Self {
        Self {
            first: 0,
            slots: VecDeque::new(),
            in_use: 0,
            empty: 0,
            pool: RECEIVE_BLOCKS_MIN,
            spare: Vec::new(),
            duplicate_bytes: 0,
        }
    }
}

impl ContentIn {
    /// Content may be sent below this offset. Never shrinks.
    #[must_use]
    pub(super) fn credit(&self) -> u64 {
        let free = self.pool.saturating_sub(self.in_use);
        (self.first + self.slots.len() as u64 + free).saturating_sub(self.empty) * BLOCK_BYTES
    }

    /// Blocks that may hold memory.
    #[must_use]
    pub(super) const fn pool(&self) -> u64 {
        self.pool
    }

    /// Makes room for twice what arrives in a round-trip time.
    pub(super) fn on_delivered(&mut self, bytes_per_rtt: u64) {
        let wanted = RECEIVE_BLOCKS_MIN + 2 * bytes_per_rtt / BLOCK_BYTES;
        self.pool = self.pool.max(wanted.min(RECEIVE_BLOCKS_MAX));
    }

    /// Takes a piece. Calls `complete` with each block that it touched, to be checked for completeness.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if it lies beyond the credit.
    pub(super) fn handle_piece(&mut self, offset: u64, piece: &[u8]) -> Result<(), Error> {
        let end = offset.saturating_add(piece.len() as u64);
        if end > self.credit() {
            return Err(Error::PeerMisbehaved("content lies beyond the credit"));
        }
        let mut at = offset;
        let mut rest = piece;
        while !rest.is_empty() {
            let start = at % BLOCK_BYTES;
            let count = rest.len().min((BLOCK_BYTES - start) as usize);
            let (now, later) = rest.split_at(count);
            self.store(at / BLOCK_BYTES, start, now)?;
            rest = later;
            at += count as u64;
        }
        Ok(())
    }

    fn store(&mut self, block: u64, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let Some(index) = block.checked_sub(self.first).and_then(|index| usize::try_from(index).ok()) else {
            self.duplicate_bytes += bytes.len() as u64;
            return Ok(());
        };
        while self.slots.len() <= index {
            self.slots.push_back(Slot::Empty);
            self.empty += 1;
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        if matches!(slot, Slot::Empty) {
            let data = self.spare.pop().unwrap_or_else(|| vec![0; BLOCK_BYTES as usize]);
            *slot = Slot::Filling { data, got: RangeSet::new(), got_bytes: 0 };
            self.empty -= 1;
            self.in_use += 1;
        }
        let Slot::Filling { data, got, got_bytes } = slot else {
            self.duplicate_bytes += bytes.len() as u64;
            return Ok(());
        };
        let end = start + bytes.len() as u64;
        let added = got.insert(start..end);
        *got_bytes += added;
        self.duplicate_bytes += bytes.len() as u64 - added;
        // A repeated piece may overwrite: it authenticated, so it carries the same bytes.
        if let Some(to) = data.get_mut(start as usize..end as usize) {
            to.copy_from_slice(bytes);
        }
        if got.len() > MAX_GAPS {
            return Err(Error::PeerMisbehaved("content comes in too many small pieces"));
        }
        Ok(())
    }

    /// Takes out `block` if all that the layout uses of it has arrived.
    pub(super) fn take_complete(&mut self, block: u64, layout: &Layout) -> Option<Vec<u8>> {
        let used = layout.used(block)?;
        let index = usize::try_from(block.checked_sub(self.first)?).ok()?;
        let slot = self.slots.get_mut(index)?;
        match slot {
            Slot::Filling { got, got_bytes, .. } if *got_bytes >= used && got.contains_all(0..used) => {}
            Slot::Filling { .. } | Slot::Empty | Slot::Done => return None,
        }
        let Slot::Filling { data, .. } = std::mem::replace(slot, Slot::Done) else {
            return None;
        };
        while matches!(self.slots.front(), Some(Slot::Done)) {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(data)
    }

    /// A buffer comes back from the disk.
    pub(super) fn handle_buffer(&mut self, buffer: Vec<u8>) {
        self.in_use = self.in_use.saturating_sub(1);
        if buffer.len() == BLOCK_BYTES as usize && (self.spare.len() as u64) < RECEIVE_BLOCKS_MIN / 2 {
            self.spare.push(buffer);
        }
    }

    /// Oldest block that is not complete.
    #[must_use]
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// One beyond the newest block that was touched.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Bytes that came more than once.
    #[must_use]
    pub(super) const fn duplicate_bytes(&self) -> u64 {
        self.duplicate_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK_BYTES;

    #[test]
    fn credit_never_shrinks_and_counts_blocks_in_memory() {
        let mut layout = Layout::default();
        layout.push(1000 * B).unwrap();
        let mut content = ContentIn::default();
        let pool = RECEIVE_BLOCKS_MIN;
        assert_eq!(content.credit(), pool * B);
        content.handle_piece(3 * B, &[1; 100]).unwrap();
        assert_eq!(content.credit(), pool * B, "blocks that were skipped are still owed");
        for block in 0..3 {
            content.handle_piece(block * B, &vec![1; B as usize]).unwrap();
        }
        assert_eq!(content.credit(), pool * B);
        let data = content.take_complete(0, &layout).unwrap();
        assert_eq!(content.credit(), pool * B, "still on its way to the disk");
        content.handle_buffer(data);
        assert_eq!(content.credit(), (pool + 1) * B);
        assert!(content.handle_piece((pool + 1) * B - 1, &[1; 2]).is_err(), "beyond the credit");
        assert!(content.take_complete(3, &layout).is_none());
        content.handle_piece(0, &[1; 100]).unwrap();
        assert_eq!(content.duplicate_bytes(), 100);
    }
}
