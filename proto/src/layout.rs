//! Where each file's bytes stand in the content object. Both sides compute it from the sizes in the manifest.
//!
//! Files follow one another in manifest order, each followed by its trailer. Content is dealt in blocks of
//! [`BLOCK_BYTES`]. A file that does not fit into the rest of a block, trailer included, starts at the next one, and a
//! trailer never straddles a boundary. Of a file that is wanted in part only those bytes count, of one that is not
//! wanted nothing. So a small file lies within one block, a large one starts at a boundary (which
//! makes its blocks BLAKE3 subtrees), and what a block does not use is always its tail. Unused bytes are never sent.

use std::collections::VecDeque;

use crate::constants::{BLOCK_BYTES, MAX_CONTENT, TRAILER_BYTES};

/// Where a file and its trailer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset of the file's first byte.
    pub offset: u64,
    /// Bytes of the file.
    pub size: u64,
    /// Offset of the trailer.
    pub trailer: u64,
}

impl Extent {
    /// One beyond the trailer.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.trailer + TRAILER_BYTES
    }
}

/// Places files one after the other.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    cursor: u64,
    finished: bool,
    /// Blocks that are not used to their end, with the used bytes, in order; consumed by [`Layout::forget_below`].
    short: VecDeque<(u64, u64)>,
}

impl Layout {
    /// Places the next file; `None` if the content would exceed 2^48 bytes.
    pub fn push(&mut self, size: u64) -> Option<Extent> {
        if size.checked_add(self.cursor)? > MAX_CONTENT - 2 * BLOCK_BYTES {
            return None;
        }
        let room = BLOCK_BYTES - self.cursor % BLOCK_BYTES;
        if room < BLOCK_BYTES && size + TRAILER_BYTES > room {
            self.skip_to_boundary();
        }
        let offset = self.cursor;
        let mut trailer = offset + size;
        if trailer % BLOCK_BYTES + TRAILER_BYTES > BLOCK_BYTES {
            self.cursor = trailer;
            self.skip_to_boundary();
            trailer = self.cursor;
        }
        let extent = Extent { offset, size, trailer };
        self.cursor = extent.end();
        Some(extent)
    }

    fn skip_to_boundary(&mut self) {
        let block = self.cursor / BLOCK_BYTES;
        self.short.push_back((block, self.cursor % BLOCK_BYTES));
        self.cursor = (block + 1) * BLOCK_BYTES;
    }

    /// The next file starts at a boundary, so that all blocks up to here are settled.
    pub fn break_block(&mut self) {
        if !self.finished && !self.cursor.is_multiple_of(BLOCK_BYTES) {
            self.skip_to_boundary();
        }
    }

    /// No file follows.
    pub fn finish(&mut self) {
        if !self.finished && !self.cursor.is_multiple_of(BLOCK_BYTES) {
            self.short.push_back((self.cursor / BLOCK_BYTES, self.cursor % BLOCK_BYTES));
        }
        self.finished = true;
    }

    /// Whether no file follows.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// One beyond the last byte placed so far.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.cursor
    }

    /// How many blocks are settled: no later file can add to them.
    #[must_use]
    pub const fn settled_blocks(&self) -> u64 {
        if self.finished { self.cursor.div_ceil(BLOCK_BYTES) } else { self.cursor / BLOCK_BYTES }
    }

    /// The bytes that `block` uses, from its start; `None` while a later file may still add to it.
    #[must_use]
    pub fn used(&self, block: u64) -> Option<u64> {
        if block >= self.settled_blocks() {
            return None;
        }
        let at = self.short.partition_point(|&(short, _)| short < block);
        match self.short.get(at) {
            Some(&(short, used)) if short == block => Some(used),
            _ => Some(BLOCK_BYTES),
        }
    }

    /// Frees what is known of blocks below `block`.
    pub fn forget_below(&mut self, block: u64) {
        while self.short.front().is_some_and(|&(short, _)| short < block) {
            self.short.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u64 = BLOCK_BYTES;
    const T: u64 = TRAILER_BYTES;

    #[test]
    fn files_stand_where_the_rule_puts_them() {
        // size -> offset, trailer
        let table = [
            (0, 0, 0),
            (100, T, T + 100),
            (B - 3 * T - 100, 2 * T + 100, B - T),
            (B, B, 2 * B),
            (B - T, 3 * B, 4 * B - T),
            (B - T + 1, 4 * B, 5 * B),
            (3 * B + 5, 6 * B, 9 * B + 5),
            (7, 9 * B + 5 + T, 9 * B + 12 + T),
            (B - 100, 10 * B, 11 * B - 100),
            (2000, 11 * B, 11 * B + 2000),
        ];
        let mut layout = Layout::default();
        for (row, (size, offset, trailer)) in table.into_iter().enumerate() {
            assert_eq!(layout.push(size), Some(Extent { offset, size, trailer }), "row {row}");
        }
        assert_eq!(layout.used(11), None, "a later file may still come");
        layout.finish();
        let used: Vec<_> = (0..13).map(|block| layout.used(block)).collect();
        let full = Some(B);
        assert_eq!(
            used,
            [
                full,
                full,
                Some(T),
                full,
                Some(B - T + 1),
                Some(T),
                full,
                full,
                full,
                Some(12 + 2 * T),
                Some(B - 100 + T),
                Some(2000 + T),
                None
            ]
        );
    }

    #[test]
    fn every_byte_of_every_extent_is_used_and_no_trailer_straddles() {
        let mut state = 1u64;
        for _ in 0..200 {
            let mut layout = Layout::default();
            let mut extents = Vec::new();
            for _ in 0..40 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let size = (state >> 33) % [50, 5000, B, 4 * B][(state >> 60) as usize % 4];
                extents.push(layout.push(size).unwrap());
            }
            layout.finish();
            for extent in &extents {
                assert_eq!(extent.trailer / B, (extent.end() - 1) / B);
                if extent.size + T <= B {
                    assert_eq!(extent.offset / B, (extent.end() - 1) / B, "small files lie within a block");
                } else {
                    assert_eq!(extent.offset % B, 0, "large files start at a boundary");
                }
                for byte in [extent.trailer, extent.end() - 1, extent.offset + extent.size.saturating_sub(1)]
                {
                    assert!(byte % B < layout.used(byte / B).unwrap());
                }
            }
            assert!(extents.windows(2).all(|pair| pair[0].end() <= pair[1].offset));
            assert_eq!(layout.end(), extents.last().unwrap().end());
        }
    }

    #[test]
    fn content_beyond_48_bits_is_refused() {
        let mut layout = Layout::default();
        assert_eq!(layout.push(MAX_CONTENT), None);
        assert_eq!(layout.push(u64::MAX), None);
        assert!(layout.push(1 << 47).is_some());
        assert_eq!(layout.push(1 << 47), None);
    }
}
