//! What happens to sources once they are stored at the other side, and how the sender hears which of them are.
//! Not here: doing it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::PathText;
use crate::range_set::RangeSet;

/// Ranges of one message: with the longest numbers they stay below [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES).
const RANGES_A_MESSAGE: usize = 20_000;

/// Ranges that are kept of what is stored. What would need more counts as not stored, so it stays at the source.
pub const MAX_STORED_RANGES: usize = 100_000;

/// What happens to sources that are stored, by digest and durably, at the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct AfterTransfer {
    /// Files are removed.
    pub remove: bool,
    /// Files are moved below this folder, to where they landed below the destination.
    pub move_to: Option<PathText>,
    /// Folders that are empty then are removed, but for the sources themselves.
    pub remove_empty_folders: bool,
    /// Sources that are empty folders then are removed.
    pub remove_empty_sources: bool,
}

/// Files that are stored, by their numbers in the manifest: first and count, in turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct StoredFiles {
    runs: Vec<u64>,
}

impl StoredFiles {
    /// As many messages as the ranges need; none if nothing is stored.
    #[must_use]
    pub fn messages(ranges: &[Range<u64>]) -> Vec<Self> {
        let runs = |ranges: &[Range<u64>]| {
            ranges.iter().flat_map(|range| [range.start, range.end - range.start]).collect()
        };
        ranges.chunks(RANGES_A_MESSAGE).map(|ranges| Self { runs: runs(ranges) }).collect()
    }

    /// Adds what is told to what is known. What cannot be is passed over: the sender looks up each number.
    pub fn add_to(&self, known: &mut RangeSet) {
        for pair in self.runs.chunks_exact(2) {
            let &[first, count] = pair else { continue };
            if known.len() < MAX_STORED_RANGES
                && let Some(end) = first.checked_add(count)
            {
                known.insert(first..end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ServerMessage, encode_line};
    use super::*;

    #[test]
    fn stored_files_are_pinned() {
        let message = ServerMessage::Stored(StoredFiles { runs: vec![0, 5, 7, 1] });
        let expected = r#"{"type":"stored","runs":[0,5,7,1]}"#;
        assert_eq!(String::from_utf8(encode_line(&message)).unwrap().trim_end(), expected);
        assert_eq!(serde_json::from_str::<ServerMessage>(expected).unwrap(), message);
    }

    #[test]
    fn wishes_for_afterwards_are_pinned() {
        let after = AfterTransfer { move_to: Some(PathText::new(*b"done")), ..AfterTransfer::default() };
        let expected =
            r#"{"remove":false,"move_to":"done","remove_empty_folders":false,"remove_empty_sources":false}"#;
        assert_eq!(serde_json::to_string(&after).unwrap(), expected);
        assert_eq!(serde_json::from_str::<AfterTransfer>(r#"{"move_to":"done"}"#).unwrap(), after);
    }

    #[test]
    fn ranges_survive_the_messages_and_nonsense_is_passed_over() {
        let ranges: Vec<_> = (0..50_000_u64).map(|n| 3 * n..3 * n + 2).collect();
        let messages = StoredFiles::messages(&ranges);
        assert_eq!(messages.len(), 3);
        let mut known = RangeSet::new();
        messages.iter().for_each(|message| message.add_to(&mut known));
        assert_eq!(known.len(), ranges.len());
        StoredFiles { runs: vec![u64::MAX, 2, 9, 0, 4] }.add_to(&mut known);
        assert_eq!(known.len(), ranges.len());
        let many: Vec<_> = (0..200_000_u64).map(|n| 3 * n..3 * n + 1).collect();
        let mut known = RangeSet::new();
        StoredFiles::messages(&many).iter().for_each(|message| message.add_to(&mut known));
        assert_eq!(known.len(), MAX_STORED_RANGES, "a hostile receiver takes bounded memory");
    }
}
