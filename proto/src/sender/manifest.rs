//! The manifest as a byte stream on its way out: what has been written, sent and acknowledged.

use std::ops::Range;

use crate::constants::MANIFEST_BACKLOG;
use crate::manifest::Record;
use crate::range_set::RangeSet;

/// Outgoing manifest.
#[derive(Debug, Default)]
pub(super) struct ManifestOut {
    /// Stream offset of the first byte in `bytes`.
    base: u64,
    bytes: Vec<u8>,
    acked: RangeSet,
    cursor: u64,
    ended: bool,
}

impl ManifestOut {
    /// Appends a record. Nothing may follow [`Record::End`].
    pub(super) fn push(&mut self, record: &Record) {
        record.encode(&mut self.bytes);
        self.ended |= matches!(record, Record::End { .. });
    }

    /// Whether the walk should pause until more has been sent.
    #[must_use]
    pub(super) fn is_full(&self) -> bool {
        self.end() - self.cursor >= MANIFEST_BACKLOG
    }

    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    /// The next piece that was never sent, at most `most` bytes and below `credit`.
    pub(super) fn next_piece(&mut self, most: u64, credit: u64) -> Option<Range<u64>> {
        let end = self.end().min(self.cursor + most).min(credit);
        (end > self.cursor).then(|| std::mem::replace(&mut self.cursor, end)..end)
    }

    /// The first part of `range` that has not been acknowledged.
    #[must_use]
    pub(super) fn first_unacked(&self, range: &Range<u64>) -> Option<Range<u64>> {
        self.acked.missing_in(range.start.max(self.base)..range.end.max(self.base)).next()
    }

    /// Appends `count` bytes to a packet. Returns false, with nothing appended, if they are not held.
    pub(super) fn append(&self, offset: u64, count: usize, packet: &mut Vec<u8>) -> bool {
        let from = offset.checked_sub(self.base).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            self.bytes.get(start..start + count)
        });
        from.map(|from| packet.extend_from_slice(from)).is_some()
    }

    /// Bytes have arrived.
    pub(super) fn on_arrived(&mut self, range: Range<u64>) {
        self.acked.insert(range);
        let prefix = self.acked.end_of_run(self.base);
        let drop = usize::try_from(prefix - self.base).unwrap_or(0);
        // In steps, so that the copying stays small beside the sending.
        if drop >= 64 * 1024 && drop >= self.bytes.len() / 2 {
            self.bytes.drain(..drop);
            self.base = prefix;
        }
    }

    /// Whether every byte has been sent at least once.
    #[must_use]
    pub(super) fn all_sent(&self) -> bool {
        self.ended && self.cursor == self.end()
    }
}
