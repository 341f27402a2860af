//! The manifest stream on its way in: reassembled, checked, and turned into folders, files and places in the content.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::Error;
use crate::constants::{BLOCK_BYTES, MANIFEST_WINDOW, MAX_GAPS, MAX_PARTS, PENDING_FILES};
use crate::control::Feature;
use crate::disk::{EntryFailure, FileEntry, FilePiece, FolderEntry, LinkEntry};
use crate::layout::{Extent, Layout};
use crate::manifest::{Record, Trailer, TreeCheck};
use crate::range_set::RangeSet;
use crate::verdict::{Verdict, Verdicts, VerdictsOut, Wanted as _};

/// What a record means to the receiver.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make a folder.
    Folder(FolderEntry),
    /// Make a symbolic link.
    Link(LinkEntry),
    /// A source could not be read.
    Skipped(EntryFailure),
    /// A file was placed.
    File,
    /// A file whose place depends on what is needed of it.
    Look(FileEntry),
    /// The manifest is complete.
    End,
}

/// Incoming manifest and the files whose content is awaited.
#[derive(Debug, Default)]
pub(super) struct ManifestIn {
    /// Stream offset of the first byte in `bytes`.
    consumed: u64,
    bytes: Vec<u8>,
    got: RangeSet,
    tree: TreeCheck,
    layout: Layout,
    files: VecDeque<(Extent, Arc<FileEntry>)>,
    next_file: u64,
    /// Folders and links that the disk has not answered for.
    folders: usize,
    /// Reading stopped because too many files are awaited.
    held_back: bool,
    /// Places depend on verdicts.
    verdicts: bool,
    /// Files that were listed and have no verdict yet.
    undecided: usize,
    said: VerdictsOut,
    /// Files that are wanted in part.
    parts: Vec<Arc<FileEntry>>,
    /// Of those, the ones that are wanted whole after all.
    wrong: Vec<u64>,
    /// What was agreed on beyond the first records.
    features: Vec<Feature>,
}

impl ManifestIn {
    /// For a manifest that may hold what `features` allow, with or without verdicts.
    pub(super) fn new(features: &[Feature], verdicts: bool) -> Self {
        Self { features: features.to_vec(), verdicts, ..Self::default() }
    }

    /// Takes a piece of the stream.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if it lies beyond the window.
    pub(super) fn handle_piece(&mut self, offset: u64, piece: &[u8]) -> Result<(), Error> {
        let end = offset.saturating_add(piece.len() as u64);
        if end > self.consumed + MANIFEST_WINDOW {
            return Err(Error::PeerMisbehaved("the manifest runs beyond its window"));
        }
        self.got.insert(offset..end);
        if self.got.len() > MAX_GAPS {
            return Err(Error::PeerMisbehaved("the manifest comes in too many small pieces"));
        }
        let skip = self.consumed.saturating_sub(offset).min(piece.len() as u64) as usize;
        let start = (offset + skip as u64 - self.consumed.min(offset + skip as u64)) as usize;
        let fresh = piece.get(skip..).unwrap_or_default();
        if self.bytes.len() < start + fresh.len() {
            self.bytes.resize(start + fresh.len(), 0);
        }
        if let Some(to) = self.bytes.get_mut(start..start + fresh.len()) {
            to.copy_from_slice(fresh);
        }
        Ok(())
    }

    /// The meaning of the next record, if it has arrived in full and there is room for it.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if the record is malformed or breaks the rules of a tree.
    pub(super) fn poll_steps(&mut self, mut take: impl FnMut(Step)) -> Result<(), Error> {
        let ready = (self.got.end_of_run(self.consumed) - self.consumed) as usize;
        let mut at = 0;
        while self.has_room() {
            let Some((record, length)) = Record::decode(self.bytes.get(at..ready).unwrap_or_default())?
            else {
                break;
            };
            at += length;
            self.tree.handle_record(&record)?;
            take(self.place(record)?);
        }
        self.held_back = !self.has_room();
        self.bytes.drain(..at);
        self.consumed += at as u64;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.files.len() + self.undecided < PENDING_FILES
            && self.folders < PENDING_FILES
            && !self.said.is_full()
    }

    /// The disk has answered for a folder or a link.
    pub(crate) fn on_folder_done(&mut self) {
        self.folders = self.folders.saturating_sub(1);
    }

    fn place(&mut self, record: Record) -> Result<Step, Error> {
        Ok(match record {
            Record::Folder { parent, name, attributes } => {
                self.folders += 1;
                Step::Folder(FolderEntry { id: self.tree.folders(), parent, name, attributes })
            }
            Record::File { parent, name, size, attributes } => {
                let (id, missing, pieces) = (self.next_file, None, 0);
                let entry = FileEntry { id, parent, name, size, attributes, missing, pieces };
                self.next_file += 1;
                if self.verdicts {
                    self.undecided += 1;
                    return Ok(Step::Look(entry));
                }
                self.push(entry)?;
                Step::File
            }
            Record::Link { .. } if !self.features.contains(&Feature::Links) => {
                return Err(Error::PeerMisbehaved("the manifest holds a link, which was not agreed on"));
            }
            Record::Link { parent, name, target, replaces_file, attributes } => {
                self.folders += 1;
                Step::Link(LinkEntry { parent, name, target, replaces_file, attributes })
            }
            Record::Skipped { path, trouble, message } => {
                Step::Skipped(EntryFailure { path, trouble, message })
            }
            Record::End { .. } => {
                self.end_if_decided();
                Step::End
            }
        })
    }

    /// Gives a file its place in the content.
    fn push(&mut self, mut file: FileEntry) -> Result<Arc<FileEntry>, Error> {
        let wanted = file.missing.wanted_bytes(file.size);
        let extent =
            self.layout.push(wanted).ok_or(Error::PeerMisbehaved("the content exceeds 2^48 bytes"))?;
        file.pieces = (extent.end() - 1) / BLOCK_BYTES - extent.offset / BLOCK_BYTES + 1;
        let file = Arc::new(file);
        self.files.push_back((extent, Arc::clone(&file)));
        Ok(file)
    }

    /// The disk has told what is needed of the next file.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if the content gets too large.
    pub(super) fn decide(&mut self, mut file: FileEntry, verdict: Verdict) -> Result<(), Error> {
        self.undecided = self.undecided.saturating_sub(1);
        let verdict = match verdict {
            Verdict::Part(_) if self.parts.len() >= MAX_PARTS => Verdict::All,
            verdict => verdict,
        };
        self.said.push(&verdict);
        match verdict {
            Verdict::Skip => {}
            Verdict::All => drop(self.push(file)?),
            Verdict::Part(missing) => {
                file.missing = Some(missing);
                let file = self.push(file)?;
                self.parts.push(file);
            }
        }
        self.end_if_decided();
        Ok(())
    }

    /// A file that was wanted in part is wanted whole after all.
    pub(super) fn on_wrong(&mut self, id: u64) {
        self.wrong.push(id);
    }

    fn end_if_decided(&mut self) {
        if !self.tree.is_ended() || self.undecided > 0 {
            return;
        }
        if self.parts.is_empty() {
            self.layout.finish();
        } else {
            // Where the parts end must be known before it can be told whether they fit.
            self.layout.break_block();
        }
    }

    /// All that was placed has been stored: what was wrong in the parts gets a place at the end. Returns whether there
    /// was such a second round.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if the content gets too large.
    pub(super) fn place_again(&mut self) -> Result<bool, Error> {
        if self.layout.is_finished() || !self.tree.is_ended() || self.undecided > 0 {
            return Ok(false);
        }
        let mut wrong = std::mem::take(&mut self.wrong);
        wrong.sort_unstable();
        wrong.dedup();
        for part in std::mem::take(&mut self.parts) {
            if wrong.binary_search(&part.id).is_ok() {
                let FileEntry { id, parent, size, attributes, .. } = *part;
                let (name, missing, pieces) = (part.name.clone(), None, 0);
                self.push(FileEntry { id, parent, name, size, attributes, missing, pieces })?;
            }
        }
        self.said.finish(wrong);
        self.layout.finish();
        Ok(true)
    }

    /// The next line of verdicts.
    pub(super) fn poll_verdicts(&mut self) -> Option<Verdicts> {
        self.said.poll()
    }

    /// What `block` holds of which files.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] if a trailer is malformed.
    pub(super) fn pieces_of(&self, block: u64, data: &[u8]) -> Result<Vec<FilePiece>, Error> {
        let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        let from = self.files.partition_point(|(extent, _)| extent.end() <= start);
        let mut pieces = Vec::new();
        for (extent, file) in self.files.range(from..).take_while(|(extent, _)| extent.offset < end) {
            let content_end = extent.offset + extent.size;
            let (first, last) = (extent.offset.clamp(start, end), content_end.clamp(start, end));
            let trailer = if (start..end).contains(&extent.trailer) {
                let bytes = data.get((extent.trailer - start) as usize..).unwrap_or_default();
                Some(Trailer::decode(bytes).ok_or(Error::PeerMisbehaved("a file's trailer cannot be read"))?)
            } else {
                None
            };
            pieces.push(FilePiece {
                file: Arc::clone(file),
                bytes: (first - start) as usize..(last - start) as usize,
                offset: file.missing.file_offset(first - extent.offset),
                trailer,
            });
        }
        Ok(pieces)
    }

    /// Forgets files that lie wholly below `block`.
    pub(super) fn forget_below(&mut self, block: u64) {
        let floor = block * BLOCK_BYTES;
        while self.files.front().is_some_and(|(extent, _)| extent.end() <= floor) {
            self.files.pop_front();
        }
        self.layout.forget_below(block);
    }

    /// Whether reading stopped for want of room, and there is room again.
    pub(crate) fn may_go_on(&self) -> bool {
        const ENOUGH: usize = PENDING_FILES / 8 * 7;
        self.held_back
            && self.files.len() + self.undecided < ENOUGH
            && self.folders < ENOUGH
            && !self.said.is_full()
    }

    /// Where files stand.
    #[must_use]
    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Totals so far.
    #[must_use]
    pub(super) const fn tree(&self) -> &TreeCheck {
        &self.tree
    }

    /// Bytes of the stream that need not be sent again and no longer take room.
    #[must_use]
    pub(super) const fn consumed(&self) -> u64 {
        self.consumed
    }
}
