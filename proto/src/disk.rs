//! What the receiving machine asks of the disk, and what the disk answers. Plain data. Not here: doing it.

use std::ops::Range;
use std::sync::Arc;

use crate::control::Trouble;
use crate::manifest::{Attributes, Trailer};
use crate::verdict::{Missing, Verdict};

/// One request to the receiver's disk. Requests must be started in order.
#[derive(Debug)]
pub enum DiskRequest {
    /// Make a folder.
    Folder(FolderEntry),
    /// Find out what is needed of these files.
    Look(Vec<FileEntry>),
    /// Make a symbolic link.
    Link(LinkEntry),
    /// Store a block.
    Block(BlockWrite),
    /// All files are settled: set what must be set last (times of folders), and make everything durable.
    Finish,
}

/// A folder of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its number, from 1.
    pub id: u64,
    /// Folder that holds it; 0 is the destination.
    pub parent: u64,
    /// Its name, one component.
    pub name: Vec<u8>,
    /// Its mode and times.
    pub attributes: Attributes,
}

/// A symbolic link of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkEntry {
    /// Folder that holds it; 0 is the destination.
    pub parent: u64,
    /// Its name, one component.
    pub name: Vec<u8>,
    /// What it says. Text: it is never followed.
    pub target: Vec<u8>,
    /// It replaces a file of its name.
    pub replaces_file: bool,
    /// Its times.
    pub attributes: Attributes,
}

/// A file of the manifest.
#[derive(Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its number, from 0.
    pub id: u64,
    /// Folder that holds it; 0 is the destination.
    pub parent: u64,
    /// Its name, one component.
    pub name: Vec<u8>,
    /// Its bytes.
    pub size: u64,
    /// Its mode and times.
    pub attributes: Attributes,
    /// What is awaited of it, if not all.
    pub missing: Option<Missing>,
    /// In how many [`FilePiece`]s it comes. The file is to be finished when all have been stored, in whatever order.
    pub pieces: u64,
}

/// A block of content, complete.
#[derive(Debug)]
pub struct BlockWrite {
    /// Its number.
    pub block: u64,
    /// Its bytes; give the buffer back with the completion.
    pub data: Vec<u8>,
    /// The files that it holds pieces of, in order.
    pub pieces: Vec<FilePiece>,
}

/// What a block holds of one file.
#[derive(Debug)]
pub struct FilePiece {
    /// The file.
    pub file: Arc<FileEntry>,
    /// Where its bytes stand in the block; empty if only the trailer is here.
    pub bytes: Range<usize>,
    /// Where they belong in the file: 0, or a multiple of the block size.
    pub offset: u64,
    /// The file's trailer, if it is in this block.
    pub trailer: Option<Trailer>,
}

/// The disk's answer.
#[derive(Debug)]
pub enum DiskDone {
    /// A folder, or a link, exists.
    Folder,
    /// A folder, or a link, could not be made.
    FolderFailed(EntryFailure),
    /// What is needed of the files that were looked at, in their order.
    Looked(Vec<Looked>),
    /// A block has been stored, or given up on where a file of it has failed.
    Block {
        /// The buffer of the block.
        buffer: Vec<u8>,
        /// Content bytes of files that were stored.
        stored: u64,
        /// Files that are under their final name now, by bytes.
        finished: Vec<u64>,
        /// Files that proved to be there already, by bytes.
        found: Vec<u64>,
        /// Files that were awaited in part, and by their digest are others than thought; by number. Nothing is left of
        /// them.
        wrong: Vec<u64>,
        /// Files that failed. Each is told once.
        failed: Vec<EntryFailure>,
    },
    /// Everything is durable.
    Finished,
}

/// What is needed of a file.
#[derive(Debug)]
pub struct Looked {
    /// The file.
    pub file: FileEntry,
    /// What is needed.
    pub verdict: Verdict,
    /// It is skipped because it could not be stored.
    pub failure: Option<EntryFailure>,
}

/// An entry that failed; the transfer goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFailure {
    /// Its path below the destination.
    pub path: Vec<u8>,
    /// Kind of trouble.
    pub trouble: Trouble,
    /// What failed.
    pub message: String,
}
