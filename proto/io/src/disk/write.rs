//! Stores folders and blocks. All that is known of one transfer's files is here; the calls on them are in [`partial`].
//!
//! A file's failure is told once and the transfer goes on. A full, read-only or broken disk ends the session.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;

use haul_proto::constants::BLOCK_BYTES;
use haul_proto::control::{Digest, Trouble};
use haul_proto::disk::{
    BlockWrite, DiskDone, DiskRequest, EntryFailure, FileEntry, FilePiece, FolderEntry, LinkEntry,
};
use haul_proto::manifest::{Attributes, Trailer};
use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use super::at_once::AtOnce;
use super::folder::Folder;
use super::folders::Folders;
use super::helper::Work;
use super::link::make_link;
use super::partial::{self, Final, partial_name};
use super::tree_digest::TreeDigest;
use super::{Destination, DiskError, SinkOptions, trouble_of};

/// Partial files kept open; few in tests, so that they are closed and opened again.
const OPEN_FILES: usize = if cfg!(test) { 3 } else { 256 };

/// What went wrong.
#[derive(Debug)]
pub(super) enum Fault {
    /// With one entry.
    Entry { trouble: Trouble, message: String },
    /// With the disk.
    Session(DiskError),
}

impl Fault {
    pub(super) fn entry(trouble: Trouble, message: &str) -> Self {
        Self::Entry { trouble, message: message.to_owned() }
    }

    /// Tells by the error whom it concerns. `needed` are the bytes that were asked for.
    pub(super) fn system(
        action: &'static str,
        path: &[u8],
        errno: Errno,
        near: &Folder,
        needed: Option<u64>,
    ) -> Self {
        let mut error = DiskError::system(action, path, errno);
        match (errno, needed) {
            (Errno::ENOSPC, Some(needed)) => {
                let free = fstatvfs(near).map(|about| about.blocks_available() * about.fragment_size());
                let free = free.map(|free| format!(", {free} are free")).unwrap_or_default();
                error.reason = format!("{} ({needed} bytes are needed{free})", error.reason);
                Self::Session(error)
            }
            (Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS | Errno::EIO, _) => Self::Session(error),
            _ => Self::Entry { trouble: trouble_of(errno), message: error.without_path() },
        }
    }
}

/// A file of several pieces.
#[derive(Debug)]
struct Incoming {
    parent: u64,
    /// Pieces that have not come yet.
    awaited: u64,
    /// None once it has failed; what comes of it then is dropped.
    storing: Option<Storing>,
}

#[derive(Debug)]
struct Storing {
    /// Name of the partial file.
    partial: Vec<u8>,
    /// Closed when too many are open.
    file: Option<OwnedFd>,
    at_once: AtOnce,
    last_used: u64,
    digest: Option<TreeDigest>,
    trailer: Option<Trailer>,
}

impl Storing {
    /// Writes, however long it takes.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> nix::Result<()> {
        if let Some(file) = &self.file {
            partial::write_at(file, bytes, offset)?;
        }
        self.digest(offset, bytes);
        Ok(())
    }

    /// Writes without waiting, if that is possible.
    fn write_at_once(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let done = self.file.as_ref().is_some_and(|file| self.at_once.write(file, bytes, offset));
        if done {
            self.digest(offset, bytes);
        }
        done
    }

    fn digest(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(digest) = self.digest.as_mut().filter(|_| !bytes.is_empty()) {
            digest.update(offset, bytes);
        }
    }
}

/// The books of a receiving disk.
#[derive(Debug)]
pub(super) struct Writer {
    options: SinkOptions,
    umask: u32,
    folders: Folders,
    incoming: HashMap<u64, Incoming>,
    open_files: usize,
    uses: u64,
    /// New name of the entry at the top.
    rename: Option<Vec<u8>>,
    /// The entry that has taken that name.
    renamed: Option<Top>,
    /// Why the disk cannot go on. Nothing is stored any more.
    broken: Option<DiskError>,
}

/// An entry at the top of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Top {
    Folder(u64),
    File(u64),
    /// The only link there: a link has no number.
    Link,
}

impl Work for Writer {
    type Request = DiskRequest;
    type Answer = Result<DiskDone, DiskError>;

    fn try_at_once(&mut self, request: DiskRequest) -> Result<Self::Answer, DiskRequest> {
        let DiskRequest::Block(block) = request else {
            return Err(request);
        };
        match block.pieces.as_slice() {
            [piece] if self.broken.is_none() && self.part_at_once(piece, &block.data) => {
                let stored = piece.bytes.len() as u64;
                let (finished, failed) = (Vec::new(), Vec::new());
                Ok(Ok(DiskDone::Block { buffer: block.data, stored, finished, failed }))
            }
            _ => Err(DiskRequest::Block(block)),
        }
    }

    fn may_be_done_at_once(&self) -> bool {
        let storing = self.incoming.values().filter_map(|incoming| incoming.storing.as_ref());
        storing.take(1).any(|storing| storing.at_once != AtOnce::Never)
    }

    fn wait_for(&mut self, request: DiskRequest) -> Result<DiskDone, DiskError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let result = match request {
            DiskRequest::Folder(entry) => self.folder(&entry),
            DiskRequest::Link(entry) => self.link(&entry),
            DiskRequest::Block(block) => self.block(block),
            DiskRequest::Finish => {
                self.folders.finish(self.options.preserve_times).map(|()| DiskDone::Finished)
            }
        };
        self.broken = result.as_ref().err().cloned();
        result
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl Writer {
    pub(super) fn new(destination: Destination, options: SinkOptions) -> Self {
        let Destination { folder, rename, path } = destination;
        let folders = Folders::new(folder, path);
        let incoming = HashMap::new();
        Self {
            options,
            umask: umask(),
            folders,
            incoming,
            open_files: 0,
            uses: 0,
            rename,
            renamed: None,
            broken: None,
        }
    }

    /// Stores a piece that fills a block amid a file, if that needs no waiting. Returns whether it did.
    fn part_at_once(&mut self, piece: &FilePiece, data: &[u8]) -> bool {
        let Some(incoming) = self.incoming.get_mut(&piece.file.id).filter(|incoming| incoming.awaited > 1)
        else {
            return false;
        };
        let (Some(storing), Some(bytes)) = (&mut incoming.storing, data.get(piece.bytes.clone())) else {
            return false;
        };
        if piece.trailer.is_some() || !storing.write_at_once(piece.offset, bytes) {
            return false;
        }
        self.uses += 1;
        storing.last_used = self.uses;
        incoming.awaited -= 1;
        true
    }

    /// Removes what is unfinished.
    fn abandon(&mut self) {
        for (_, incoming) in std::mem::take(&mut self.incoming) {
            if let Some(Storing { partial, .. }) = incoming.storing {
                self.remove(incoming.parent, &partial);
            }
        }
        self.open_files = 0;
    }

    fn folder(&mut self, entry: &FolderEntry) -> Result<DiskDone, DiskError> {
        let name = self.landing_name(entry.parent, &entry.name, Top::Folder(entry.id));
        match self.folders.make(entry, name, self.umask) {
            Ok(()) => Ok(DiskDone::Folder),
            Err(Fault::Entry { trouble, message }) => {
                let path = self.folders.path_of(entry.parent, &entry.name);
                Ok(DiskDone::FolderFailed(EntryFailure { path, trouble, message }))
            }
            Err(Fault::Session(error)) => Err(error),
        }
    }

    fn link(&mut self, entry: &LinkEntry) -> Result<DiskDone, DiskError> {
        let name = self.landing_name(entry.parent, &entry.name, Top::Link);
        let made = name.and_then(|name| {
            let folder = self.folders.open(entry.parent)?;
            let session = &self.options.session;
            make_link(&folder, &name, entry, session, self.options.preserve_times).map_err(
                |error| match error {
                    Ok(fault) => fault,
                    Err(errno) => {
                        let path = self.folders.below_destination(entry.parent, &entry.name);
                        Fault::system("make the link", &path, errno, &folder, None)
                    }
                },
            )
        });
        match made {
            Ok(()) => Ok(DiskDone::Folder),
            Err(Fault::Entry { trouble, message }) => {
                let path = self.folders.path_of(entry.parent, &entry.name);
                Ok(DiskDone::FolderFailed(EntryFailure { path, trouble, message }))
            }
            Err(Fault::Session(error)) => Err(error),
        }
    }

    /// The name that an entry gets: its own, but for the single entry that takes the destination's name.
    fn landing_name(&mut self, parent: u64, name: &[u8], top: Top) -> Result<Vec<u8>, Fault> {
        match &self.rename {
            Some(rename) if parent == 0 => {
                if *self.renamed.get_or_insert(top) == top {
                    Ok(rename.clone())
                } else {
                    let message = "several entries cannot take one name; -d makes a folder for them";
                    Err(Fault::entry(Trouble::WrongKind, message))
                }
            }
            _ => Ok(name.to_vec()),
        }
    }

    fn block(&mut self, block: BlockWrite) -> Result<DiskDone, DiskError> {
        let BlockWrite { data, pieces, .. } = block;
        let (mut stored, mut finished, mut failed) = (0, Vec::new(), Vec::new());
        for piece in &pieces {
            let result = match data.get(piece.bytes.clone()) {
                Some(bytes) if piece.file.pieces == 1 => self.whole(piece, bytes),
                Some(bytes) => self.part(piece, bytes),
                None => Err(Fault::entry(Trouble::Internal, "a piece lies beyond its block")),
            };
            match result {
                Ok(done) => {
                    stored += done.stored;
                    finished.extend(done.finished.then_some(piece.file.size));
                }
                Err(Fault::Entry { trouble, message }) => {
                    let path = self.folders.path_of(piece.file.parent, &piece.file.name);
                    failed.push(EntryFailure { path, trouble, message });
                }
                Err(Fault::Session(error)) => return Err(error),
            }
        }
        Ok(DiskDone::Block { buffer: data, stored, finished, failed })
    }

    /// Stores a file that lies in one block.
    fn whole(&mut self, piece: &FilePiece, bytes: &[u8]) -> Result<Stored, Fault> {
        let file = &*piece.file;
        let digest = match self.options.digest {
            Digest::Blake3 => Some(*blake3::hash(bytes).as_bytes()),
            Digest::None => None,
        };
        partial::check(self.options.digest, piece.trailer.as_ref().ok_or_else(no_trailer)?, digest)?;
        let name = self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        let folder = self.folders.open(file.parent)?;
        let partial = partial_name(&self.options.session, file);
        let written = partial::create(&folder, &partial, file.size).and_then(|descriptor| {
            partial::write_at(&descriptor, bytes, 0)
                .and_then(|()| {
                    partial::settle(&folder, &partial, &descriptor, file.size, &self.wanted(file, &name))
                })
                .inspect_err(|_| discard(&folder, &partial))
        });
        written.map_err(|errno| self.fault(file, &folder, errno))?;
        Ok(Stored { stored: bytes.len() as u64, finished: true })
    }

    fn wanted<'a>(&self, file: &FileEntry, name: &'a [u8]) -> Final<'a> {
        // Never the bits that let a file run as somebody else.
        let mode = file.attributes.mode & 0o777 & !self.umask;
        let attributes = Attributes { mode, ..file.attributes };
        Final { name, attributes, preserve_times: self.options.preserve_times }
    }

    fn fault(&self, file: &FileEntry, folder: &Folder, errno: Errno) -> Fault {
        match errno {
            Errno::EISDIR => Fault::entry(Trouble::WrongKind, "a folder stands where the file should go"),
            _ => {
                let path = self.folders.below_destination(file.parent, &file.name);
                Fault::system("write", &path, errno, folder, Some(file.size))
            }
        }
    }

    /// Stores a piece of a file that lies in several blocks.
    fn part(&mut self, piece: &FilePiece, bytes: &[u8]) -> Result<Stored, Fault> {
        let file = &*piece.file;
        let begun = if self.incoming.contains_key(&file.id) { Ok(()) } else { self.begin(file) };
        let result = begun.and_then(|()| self.store(piece, bytes));
        let Some(over) = self.count_piece(file.id, result.is_err()) else {
            return result;
        };
        let partial = over.partial.clone();
        result
            .and_then(|stored| self.finish(file, over).map(|()| Stored { finished: true, ..stored }))
            .inspect_err(|_| self.remove(file.parent, &partial))
    }

    /// Notes that a piece has come. Gives what is stored of the file if that was the last one, or if it has failed now.
    fn count_piece(&mut self, id: u64, failed: bool) -> Option<Storing> {
        let Entry::Occupied(mut entry) = self.incoming.entry(id) else {
            return None;
        };
        let incoming = entry.get_mut();
        incoming.awaited = incoming.awaited.saturating_sub(1);
        let last = incoming.awaited == 0;
        let over = if failed || last { incoming.storing.take() } else { None };
        if last {
            entry.remove();
        }
        self.open_files -= usize::from(over.as_ref().is_some_and(|storing| storing.file.is_some()));
        over
    }

    fn begin(&mut self, file: &FileEntry) -> Result<(), Fault> {
        let created = self.create(file);
        let (storing, result) = match created {
            Ok(storing) => (Some(storing), Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        self.incoming.insert(file.id, Incoming { parent: file.parent, awaited: file.pieces, storing });
        result
    }

    fn create(&mut self, file: &FileEntry) -> Result<Storing, Fault> {
        let folder = self.folders.open(file.parent)?;
        self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        self.close_oldest();
        let partial = partial_name(&self.options.session, file);
        let descriptor = partial::create(&folder, &partial, file.size);
        let descriptor = descriptor.map_err(|errno| self.fault(file, &folder, errno))?;
        self.open_files += 1;
        let digest = (self.options.digest == Digest::Blake3).then(|| TreeDigest::new(file.size));
        let at_once = AtOnce::of(&descriptor, digest.is_some());
        Ok(Storing { partial, file: Some(descriptor), at_once, last_used: self.uses, digest, trailer: None })
    }

    fn store(&mut self, piece: &FilePiece, bytes: &[u8]) -> Result<Stored, Fault> {
        let file = &*piece.file;
        if !piece.offset.is_multiple_of(BLOCK_BYTES) || bytes.len() as u64 > BLOCK_BYTES {
            return Err(Fault::entry(Trouble::Internal, "a piece does not stand on a boundary"));
        }
        self.reopen(file)?;
        self.uses += 1;
        let Some(storing) = self.incoming.get_mut(&file.id).and_then(|incoming| incoming.storing.as_mut())
        else {
            // It has failed before, and that has been told.
            return Ok(Stored { stored: 0, finished: false });
        };
        storing.last_used = self.uses;
        storing.trailer = storing.trailer.or(piece.trailer);
        if let Some(trouble) = storing.trailer.and_then(|trailer| trailer.trouble) {
            // No use in storing the rest.
            return Err(partial::source_fault(trouble));
        }
        if let Err(errno) = storing.write(piece.offset, bytes) {
            let folder = self.folders.open(file.parent)?;
            return Err(self.fault(file, &folder, errno));
        }
        Ok(Stored { stored: bytes.len() as u64, finished: false })
    }

    /// Opens the partial file again if it was closed for want of descriptors.
    fn reopen(&mut self, file: &FileEntry) -> Result<(), Fault> {
        let storing = self.incoming.get(&file.id).and_then(|incoming| incoming.storing.as_ref());
        let Some(Storing { partial, file: None, .. }) = storing else {
            return Ok(());
        };
        let name = partial.clone();
        self.close_oldest();
        let folder = self.folders.open(file.parent)?;
        let opened = folder.reopen_file(&name).map_err(|errno| self.fault(file, &folder, errno))?;
        if let Some(storing) = self.incoming.get_mut(&file.id).and_then(|incoming| incoming.storing.as_mut())
        {
            storing.file = Some(opened);
            self.open_files += 1;
        }
        Ok(())
    }

    /// Makes room for another open file.
    fn close_oldest(&mut self) {
        if self.open_files < OPEN_FILES {
            return;
        }
        let storing = self.incoming.values_mut().filter_map(|incoming| incoming.storing.as_mut());
        let oldest = storing.filter(|storing| storing.file.is_some()).min_by_key(|storing| storing.last_used);
        if let Some(storing) = oldest {
            storing.file = None;
            self.open_files -= 1;
        }
    }

    /// Checks a file of which every piece has come, and gives it its name.
    fn finish(&mut self, file: &FileEntry, stored: Storing) -> Result<(), Fault> {
        let Storing { partial, file: descriptor, digest, trailer, .. } = stored;
        let digest = digest.and_then(|digest| digest.finish());
        partial::check(self.options.digest, &trailer.ok_or_else(no_trailer)?, digest)?;
        let name = self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        let folder = self.folders.open(file.parent)?;
        let descriptor = descriptor.map_or_else(|| folder.reopen_file(&partial), Ok);
        descriptor
            .and_then(|descriptor| {
                partial::settle(&folder, &partial, &descriptor, file.size, &self.wanted(file, &name))
            })
            .map_err(|errno| self.fault(file, &folder, errno))
    }

    fn remove(&mut self, parent: u64, partial: &[u8]) {
        if let Ok(folder) = self.folders.open(parent) {
            discard(&folder, partial);
        }
    }
}

/// Removes a partial file, if it is there.
fn discard(folder: &Folder, partial: &[u8]) {
    if let Err(errno) = folder.unlink(partial) {
        tracing::warn!(name = %partial.escape_ascii(), %errno, "a partial file could not be removed");
    }
}

struct Stored {
    stored: u64,
    finished: bool,
}

fn no_trailer() -> Fault {
    Fault::entry(Trouble::Internal, "the file's trailer is missing")
}

/// The permission bits that this process does not give. Reading it by `umask(2)` would change it for other threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o022)
}
