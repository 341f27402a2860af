//! BLAKE3 of a file whose blocks come in any order. A block is a subtree of the hash tree, so subtrees are merged as
//! they meet, and the result equals the plain BLAKE3 of the file. Memory grows with the gaps, not with the file.

use std::collections::BTreeMap;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use haul_proto::constants::BLOCK_BYTES;
use haul_proto::journal::Subtree;

/// Digest of a file in the making.
#[derive(Debug)]
pub(super) enum TreeDigest {
    /// A file of one block, which is the root itself.
    One(Option<[u8; 32]>),
    /// A file of several blocks.
    Tree {
        /// How many blocks it has.
        blocks: u64,
        /// Finished subtrees by their first block: how many levels above a block they end, and their value. Those at
        /// the end of the file may be short.
        subtrees: BTreeMap<u64, (u32, ChainingValue)>,
    },
}

impl TreeDigest {
    /// For a file of `size` bytes.
    pub(super) const fn new(size: u64) -> Self {
        match size.div_ceil(BLOCK_BYTES) {
            0 | 1 => Self::One(None),
            blocks => Self::Tree { blocks, subtrees: BTreeMap::new() },
        }
    }

    /// For `blocks` blocks of a file that has more, which count from the first of them.
    pub(super) const fn of_part(blocks: u64) -> Self {
        Self::Tree { blocks, subtrees: BTreeMap::new() }
    }

    /// For a file of `size` bytes, some of whose subtrees are known.
    pub(super) fn continued(size: u64, known: impl IntoIterator<Item = Subtree>) -> Self {
        let mut digest = Self::new(size);
        if let Self::Tree { blocks, subtrees } = &mut digest {
            let fits = |subtree: &Subtree| {
                let end = 1_u64.checked_shl(subtree.level).and_then(|count| subtree.first.checked_add(count));
                end.is_some_and(|end| end <= *blocks)
            };
            let known = known.into_iter().filter(fits);
            subtrees.extend(known.map(|known| (known.first, (known.level, known.value))));
        }
        digest
    }

    /// The subtrees that are finished.
    pub(super) fn subtrees(&self) -> Vec<Subtree> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Tree { subtrees, .. } => {
                let subtree = |(&first, &(level, value)): (&u64, &(u32, ChainingValue))| Subtree {
                    first,
                    level,
                    value,
                };
                subtrees.iter().map(subtree).collect()
            }
        }
    }

    /// The value of the block at `offset` of a file of several blocks.
    pub(super) fn value(offset: u64, bytes: &[u8]) -> ChainingValue {
        Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
    }

    /// Takes the value of the block with this number, of a file of several blocks.
    pub(super) fn add(&mut self, block: u64, value: ChainingValue) {
        if let Self::Tree { blocks, subtrees } = self {
            insert(*blocks, subtrees, block, value);
        }
    }

    /// Takes the block at `offset`, a multiple of the block size.
    pub(super) fn update(&mut self, offset: u64, bytes: &[u8]) {
        match self {
            Self::One(digest) => *digest = Some(*blake3::hash(bytes).as_bytes()),
            Self::Tree { blocks, subtrees } => {
                insert(*blocks, subtrees, offset / BLOCK_BYTES, Self::value(offset, bytes));
            }
        }
    }

    /// The digest; `None` if blocks are missing.
    pub(super) fn finish(&self) -> Option<[u8; 32]> {
        match self {
            Self::One(digest) => *digest,
            Self::Tree { blocks, subtrees } => fold(*blocks, subtrees),
        }
    }
}

/// Adds a subtree and merges it with its sibling, as often as there is one. The root is left to [`fold`].
fn insert(
    blocks: u64,
    subtrees: &mut BTreeMap<u64, (u32, ChainingValue)>,
    mut first: u64,
    mut value: ChainingValue,
) {
    let mut level = 0;
    while 2_u64 << level < blocks {
        let sibling = first ^ (1 << level);
        let Some(&(_, other)) = subtrees.get(&sibling).filter(|(other, _)| *other == level) else {
            break;
        };
        subtrees.remove(&sibling);
        let (left, right) = if first < sibling { (&value, &other) } else { (&other, &value) };
        value = merge_subtrees_non_root(left, right, Mode::Hash);
        first = first.min(sibling);
        level += 1;
    }
    subtrees.insert(first, (level, value));
}

/// Joins the subtrees from the end of the file to its start: the smaller ones hang below on the right.
fn fold(blocks: u64, subtrees: &BTreeMap<u64, (u32, ChainingValue)>) -> Option<[u8; 32]> {
    let mut expected = 0;
    for (&first, &(level, _)) in subtrees {
        if first != expected {
            return None;
        }
        expected += 1 << level;
    }
    if expected != blocks {
        return None;
    }
    let mut values = subtrees.values().rev().map(|(_, value)| value);
    let mut right = *values.next()?;
    let Some(mut left) = values.next() else {
        // One block of a file that has more.
        return Some(right);
    };
    for further in values {
        right = merge_subtrees_non_root(left, &right, Mode::Hash);
        left = further;
    }
    Some(*merge_subtrees_root(left, &right, Mode::Hash).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: usize = BLOCK_BYTES as usize;

    #[test]
    fn any_order_of_blocks_gives_plain_blake3() {
        let mut content = vec![0; 9 * B];
        blake3::Hasher::new().update(b"seed").finalize_xof().fill(&mut content);
        let mut state = 7_u64;
        let mut draw = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let edges = [0, 1, 1023, B - 41, B - 40, B - 39, B, B + 1, 5 * B + 7];
        let counts = (2..9).flat_map(|blocks| [blocks * B - 1, blocks * B, blocks * B + 1024]);
        for size in edges.into_iter().chain(counts) {
            let content = &content[..size];
            let mut blocks: Vec<_> = (0..size.div_ceil(B).max(1)).collect();
            for _ in 0..4 {
                (1..blocks.len()).rev().for_each(|at| blocks.swap(at, draw(at + 1)));
                let mut digest = TreeDigest::new(size as u64);
                for (count, &block) in blocks.iter().enumerate() {
                    assert_eq!(digest.finish(), None, "{count} blocks are not enough");
                    digest.update((block * B) as u64, &content[block * B..size.min((block + 1) * B)]);
                }
                assert_eq!(digest.finish(), Some(*blake3::hash(content).as_bytes()), "{size} {blocks:?}");
            }
        }
    }

    #[test]
    fn blocks_in_order_take_memory_for_the_depth_only() {
        let mut digest = TreeDigest::new(1 << 40);
        for block in 0..1023_u64 {
            digest.update(block * BLOCK_BYTES, b"x");
            let TreeDigest::Tree { subtrees, .. } = &digest else { panic!("one block") };
            assert!(subtrees.len() <= 10);
        }
    }
}
