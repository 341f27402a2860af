//! What a receiver knows of a file that is on its way, so that a later session can go on: the source it came from,
//! which blocks are on the disk, and the chaining values of the digest so far. As bytes, with a checksum: a journal
//! that was not written to its end is none.
//!
//! ```text
//! "haul journal 1" LF | size u64 | modified s i64, ns u32 | digest u8 | ranges u32 | subtrees u32
//! range      first block u64 | end u64
//! subtree    first block u64 | level u32 | chaining value, 32 bytes
//! at the end SHA-256 of all before
//! ```
//!
//! Not here: files.

use ring::digest::{SHA256, digest};

use crate::control::Digest;
use crate::disk::FileEntry;
use crate::range_set::RangeSet;
use crate::wire::Reader;

const MAGIC: &[u8] = b"haul journal 1\n";

/// Longest journal that is read, bytes. Those that are written are a few kilobytes: what is held has few gaps.
pub const MAX_JOURNAL_BYTES: u64 = 4 << 20;

/// Blocks from which on a file has a journal: what is smaller is sent again sooner than it is kept account of.
pub const JOURNAL_BLOCKS: u64 = 16;

/// What a source is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its bytes.
    pub size: u64,
    /// Its time of last modification.
    pub modified: (i64, u32),
}

impl Identity {
    /// Of a file of the manifest.
    #[must_use]
    pub const fn of(file: &FileEntry) -> Self {
        Self { size: file.size, modified: (file.attributes.modified_s, file.attributes.modified_ns) }
    }
}

/// A finished subtree of a file's BLAKE3 tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// Its first block.
    pub first: u64,
    /// How many levels above a block it ends.
    pub level: u32,
    /// Its chaining value.
    pub value: [u8; 32],
}

/// What is known of a file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its source.
    pub source: Identity,
    /// The digest whose values are kept.
    pub digest: Digest,
    /// Blocks that are on the disk.
    pub held: RangeSet,
    /// Values of these blocks, merged as far as they go.
    pub subtrees: Vec<Subtree>,
}

impl Journal {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.source.size.to_be_bytes());
        out.extend_from_slice(&self.source.modified.0.to_be_bytes());
        out.extend_from_slice(&self.source.modified.1.to_be_bytes());
        out.push(match self.digest {
            Digest::None => 0,
            Digest::Blake3 => 1,
        });
        out.extend_from_slice(&(self.held.len() as u32).to_be_bytes());
        out.extend_from_slice(&(self.subtrees.len() as u32).to_be_bytes());
        for range in self.held.iter() {
            out.extend_from_slice(&range.start.to_be_bytes());
            out.extend_from_slice(&range.end.to_be_bytes());
        }
        for subtree in &self.subtrees {
            out.extend_from_slice(&subtree.first.to_be_bytes());
            out.extend_from_slice(&subtree.level.to_be_bytes());
            out.extend_from_slice(&subtree.value);
        }
        let sum = digest(&SHA256, &out);
        out.extend_from_slice(sum.as_ref());
        out
    }

    /// From bytes; `None` if they are not a whole journal.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if digest(&SHA256, body).as_ref() != sum {
            return None;
        }
        let mut reader = Reader::new(body.strip_prefix(MAGIC)?);
        let source = Identity { size: reader.u64()?, modified: (reader.i64()?, reader.u32()?) };
        let digest = match reader.u8()? {
            0 => Digest::None,
            1 => Digest::Blake3,
            _ => return None,
        };
        let (ranges, subtrees) = (reader.u32()?, reader.u32()?);
        let mut held = RangeSet::new();
        for _ in 0..ranges {
            held.insert(reader.u64()?..reader.u64()?);
        }
        let mut subtree = || {
            let (first, level) = (reader.u64()?, reader.u32()?);
            Some(Subtree { first, level, value: reader.bytes(32)?.try_into().ok()? })
        };
        let subtrees = (0..subtrees).map(|_| subtree()).collect::<Option<_>>()?;
        Some(Self { source, digest, held, subtrees })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let mut held = RangeSet::new();
        held.insert(0..7);
        held.insert(9..10);
        let subtree = |first, level| Subtree { first, level, value: [first as u8; 32] };
        Journal {
            source: Identity { size: 10 << 20, modified: (-5, 7) },
            digest: Digest::Blake3,
            held,
            subtrees: vec![subtree(0, 2), subtree(4, 1), subtree(6, 0), subtree(9, 0)],
        }
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let bytes = journal().encode();
        assert_eq!(bytes.len(), 15 + 8 + 12 + 1 + 8 + 2 * 16 + 4 * 44 + 32);
        assert_eq!(Journal::decode(&bytes), Some(journal()));
    }

    #[test]
    fn a_journal_that_was_cut_or_altered_is_none() {
        let bytes = journal().encode();
        for cut in 0..bytes.len() {
            assert_eq!(Journal::decode(&bytes[..cut]), None, "cut at {cut}");
            let mut altered = bytes.clone();
            altered[cut] ^= 1;
            assert_eq!(Journal::decode(&altered), None, "altered at {cut}");
        }
        assert_eq!(Journal::decode(&[&bytes[..], b"x"].concat()), None);
    }
}
