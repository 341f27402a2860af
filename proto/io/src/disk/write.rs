//! Stores folders and blocks. All that is known of one transfer's files is here; the calls on them are in [`partial`].
//!
//! A file's failure is told once and the transfer goes on. A full, read-only or broken disk ends the session.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::PoisonError;

use haul_proto::constants::BLOCK_BYTES;
use haul_proto::control::{Digest, MAX_STORED_RANGES, Overwrite, ResumeCheck, Trouble};
use haul_proto::disk::{
    BlockWrite, DiskDone, DiskRequest, EntryFailure, FileEntry, FilePiece, FolderEntry, LinkEntry, Looked,
};
use haul_proto::journal::{Identity, JOURNAL_BLOCKS, Subtree};
use haul_proto::manifest::{Attributes, Trailer};
use haul_proto::verdict::{Missing, Verdict};
use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use super::at_once::AtOnce;
use super::facts::Kind;
use super::folder::Folder;
use super::folders::Folders;
use super::helper::Work;
use super::judge::{Judgement, judge};
use super::keep::{self, BUSY, Journaling, Keep, Names, NoPartial};
use super::link::make_link;
use super::partial::{self, Final, partial_name};
use super::sparse::write_around_holes;
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
    /// Of what comes of a file that is continued, where only that is checked.
    part_digest: Option<TreeDigest>,
    trailer: Option<Trailer>,
    /// What a later session may go on with.
    keep: Option<Keep>,
}

impl Storing {
    /// Writes, however long it takes.
    fn write(&mut self, file: &FileEntry, offset: u64, bytes: &[u8]) -> nix::Result<()> {
        if let Some(descriptor) = &self.file {
            write_content(descriptor, file, bytes, offset)?;
        }
        self.on_written(file, offset, bytes);
        Ok(())
    }

    /// Writes without waiting, if that is possible.
    fn write_at_once(&mut self, file: &FileEntry, offset: u64, bytes: &[u8]) -> bool {
        let done = self.file.as_ref().is_some_and(|file| self.at_once.write(file, bytes, offset));
        if done {
            self.on_written(file, offset, bytes);
        }
        done
    }

    fn on_written(&mut self, file: &FileEntry, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(keep) = &mut self.keep {
            keep.on_written(offset, bytes.len());
        }
        let place = file.missing.as_ref().and_then(|missing| missing.position_of(offset / BLOCK_BYTES));
        match (&mut self.digest, &mut self.part_digest, place) {
            (Some(digest), Some(part), Some(place)) => {
                let value = TreeDigest::value(offset, bytes);
                digest.add(offset / BLOCK_BYTES, value);
                part.add(place, value);
            }
            (Some(digest), ..) => digest.update(offset, bytes),
            (None, ..) => {}
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
    /// Files that were looked at and of which a part is there; those without an account are there whole, it seems.
    found: HashMap<u64, Option<Storing>>,
    journaling: Journaling,
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
                if let Err(error) = self.journal(&piece.file) {
                    self.broken = Some(error.clone());
                    return Ok(Err(error));
                }
                Ok(Ok(Report { stored, ..Report::default() }.done(block.data)))
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
            DiskRequest::Look(files) => {
                Ok(DiskDone::Looked(files.into_iter().map(|file| self.look(file)).collect()))
            }
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
            found: HashMap::new(),
            journaling: Journaling::default(),
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
        if piece.trailer.is_some() || !storing.write_at_once(&piece.file, piece.offset, bytes) {
            return false;
        }
        self.uses += 1;
        storing.last_used = self.uses;
        incoming.awaited -= 1;
        true
    }

    /// Removes what is unfinished, or journals it if a later session may go on with it.
    fn abandon(&mut self) {
        let written = self.journaling.wait();
        for (_, incoming) in std::mem::take(&mut self.incoming) {
            if let Some(storing) = incoming.storing {
                self.leave(incoming.parent, storing, written.is_ok());
            }
        }
        // What was looked at and not touched is as its journal says.
        self.found.clear();
        self.open_files = 0;
    }

    fn leave(&mut self, parent: u64, mut storing: Storing, journal: bool) {
        let digest = storing.digest.take();
        let Storing { partial, file, keep, .. } = storing;
        let Ok(folder) = self.folders.open(parent) else {
            return;
        };
        match (keep, file) {
            (None, _) => discard(&folder, &partial),
            (Some(keep), _) if keep.is_empty() => keep::discard(&folder, &keep.names),
            (Some(mut keep), Some(file)) if journal => {
                let bytes = keep.journal(digest.as_ref());
                if let Err(errno) = keep::store(&file, &folder, &keep.names, &bytes) {
                    tracing::warn!(%errno, "the journal of an unfinished file could not be written");
                }
            }
            // The last journal is still true.
            (Some(_), _) => {}
        }
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
            if self.options.overwrite == Overwrite::Never
                && folder.stat(&name).is_ok_and(|facts| matches!(facts.kind, Kind::File | Kind::Link))
            {
                return Ok(());
            }
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
        let name = match &self.rename {
            Some(rename) if parent == 0 => {
                if *self.renamed.get_or_insert(top) != top {
                    let message = "several entries cannot take one name; -d makes a folder for them";
                    return Err(Fault::entry(Trouble::WrongKind, message));
                }
                rename.as_slice()
            }
            _ => name,
        };
        if keep::is_reserved(name) {
            return Err(Fault::entry(Trouble::WrongKind, "the name is kept for unfinished files"));
        }
        Ok(name.to_vec())
    }

    fn block(&mut self, block: BlockWrite) -> Result<DiskDone, DiskError> {
        let BlockWrite { data, pieces, .. } = block;
        let mut report = Report::default();
        for piece in &pieces {
            let file = &*piece.file;
            let result = match data.get(piece.bytes.clone()) {
                Some(_) if file.missing.is_some() && matches!(self.found.get(&file.id), Some(None)) => {
                    self.compare(piece)
                }
                Some(bytes) if file.pieces == 1 && file.missing.is_none() => self.whole(piece, bytes),
                Some(bytes) => self.part(piece, bytes),
                None => Err(Fault::entry(Trouble::Internal, "a piece lies beyond its block")),
            };
            match result {
                Ok(Stored { stored, end }) => {
                    report.stored += stored;
                    match end {
                        None => {}
                        Some(Finished::Stored) => {
                            report.finished.push(file.size);
                            self.note_stored(file.id);
                        }
                        Some(Finished::Found) => report.found.push(file.size),
                        Some(Finished::Wrong) => report.wrong.push(file.id),
                    }
                }
                Err(Fault::Entry { trouble, message }) => {
                    let path = self.folders.path_of(file.parent, &file.name);
                    report.failed.push(EntryFailure { path, trouble, message });
                }
                Err(Fault::Session(error)) => return Err(error),
            }
            self.journal(file)?;
        }
        Ok(report.done(data))
    }

    /// What is needed of a file.
    fn look(&mut self, file: FileEntry) -> Looked {
        let (verdict, failure) = match self.find(&file) {
            Ok(verdict) => (verdict, None),
            Err(Fault::Entry { trouble: Trouble::Busy, message }) => {
                let path = self.folders.path_of(file.parent, &file.name);
                (Verdict::Skip, Some(EntryFailure { path, trouble: Trouble::Busy, message }))
            }
            // Will be found again, and told, when it is to be stored.
            Err(_) => (Verdict::All, None),
        };
        Looked { file, verdict, failure }
    }

    fn find(&mut self, file: &FileEntry) -> Result<Verdict, Fault> {
        let name = self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        let folder = self.folders.open(file.parent)?;
        if let Ok(facts) = folder.stat(&name)
            && matches!(facts.kind, Kind::File | Kind::Link)
        {
            match judge(&facts, file.size, &file.attributes, &self.options) {
                Judgement::Stays => return Ok(Verdict::Skip),
                Judgement::StaysIfEqual => {
                    self.found.insert(file.id, None);
                    return Ok(Verdict::Part(Missing::default()));
                }
                Judgement::IsReplaced => {}
            }
        }
        if self.options.resume == ResumeCheck::None || file.size.div_ceil(BLOCK_BYTES) < JOURNAL_BLOCKS {
            return Ok(Verdict::All);
        }
        self.find_partial(file, &folder, &name)
    }

    /// What an earlier session has kept of the file.
    fn find_partial(&mut self, file: &FileEntry, folder: &Folder, name: &[u8]) -> Result<Verdict, Fault> {
        let names = keep::names(name);
        let descriptor = match keep::open(folder, &names.partial, false) {
            Ok(Some(descriptor)) => descriptor,
            Err(NoPartial::Busy) => return Err(Fault::entry(BUSY.0, BUSY.1)),
            // A journal alone tells nothing.
            Ok(None) => {
                keep::discard_journal(folder, &names, false);
                return Ok(Verdict::All);
            }
            Err(NoPartial::Foreign | NoPartial::System(_)) => return Ok(Verdict::All),
        };
        let source = Identity::of(file);
        let Some((keep, subtrees)) = keep::read(folder, names.clone(), source, self.options.digest) else {
            tracing::info!(name = %file.name.escape_ascii(), "what is there of it belongs to another source");
            keep::discard(folder, &names);
            return Ok(Verdict::All);
        };
        let missing = Missing::beside(keep.held(), file.size.div_ceil(BLOCK_BYTES));
        let digest = self.digest_held(file, folder, &keep, subtrees)?;
        let partly = self.options.resume == ResumeCheck::Attributes && digest.is_some();
        let part_digest = partly.then(|| TreeDigest::of_part(missing.blocks()));
        let (partial, last_used) = (names.partial, self.uses);
        let sparse = file.attributes.is_sparse();
        let at_once = if sparse { AtOnce::Never } else { AtOnce::of(&descriptor, digest.is_some()) };
        let (file_open, keep, trailer) = (Some(descriptor), Some(keep), None);
        let storing =
            Storing { partial, file: file_open, at_once, last_used, digest, part_digest, trailer, keep };
        self.found.insert(file.id, Some(storing));
        Ok(Verdict::Part(missing))
    }

    /// The digest of what is there: from the journal, or by reading it again.
    fn digest_held(
        &self,
        file: &FileEntry,
        folder: &Folder,
        keep: &Keep,
        subtrees: Vec<Subtree>,
    ) -> Result<Option<TreeDigest>, Fault> {
        if self.options.digest == Digest::None {
            return Ok(None);
        }
        let known = self.options.resume != ResumeCheck::Reread && !subtrees.is_empty();
        if known {
            return Ok(Some(TreeDigest::continued(file.size, subtrees)));
        }
        let fault = |errno| self.fault(file, folder, errno);
        let descriptor = folder.open_file(&keep.names.partial).map_err(fault)?;
        let mut digest = TreeDigest::new(file.size);
        let mut buffer = vec![0; BLOCK_BYTES as usize];
        for block in keep.held().iter().cloned().flatten() {
            let offset = block * BLOCK_BYTES;
            let bytes = file.size.saturating_sub(offset).min(BLOCK_BYTES) as usize;
            let into = buffer.get_mut(..bytes).unwrap_or_default();
            keep::read_at(&descriptor, into, offset).map_err(fault)?;
            digest.update(offset, into);
        }
        Ok(Some(digest))
    }

    /// Whether what stands there is what the sender has.
    fn compare(&mut self, piece: &FilePiece) -> Result<Stored, Fault> {
        let file = &*piece.file;
        self.found.remove(&file.id);
        let trailer = piece.trailer.as_ref().ok_or_else(no_trailer)?;
        if let Some(trouble) = trailer.trouble {
            return Err(partial::source_fault(trouble));
        }
        let name = self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        let folder = self.folders.open(file.parent)?;
        let own = folder.open_file(&name).ok().and_then(|own| {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(std::fs::File::from(own)).ok()?;
            Some(*hasher.finalize().as_bytes())
        });
        let equal = own.is_some() && own == trailer.digest && !trailer.of_part;
        let end = Some(if equal { Finished::Found } else { Finished::Wrong });
        Ok(Stored { stored: 0, end })
    }

    /// Journals an unfinished file if it is time to.
    fn journal(&mut self, file: &FileEntry) -> Result<(), DiskError> {
        let Some(Incoming { parent, storing: Some(storing), .. }) = self.incoming.get_mut(&file.id) else {
            return Ok(());
        };
        let (Some(keep), Some(descriptor)) = (&mut storing.keep, &storing.file) else {
            return Ok(());
        };
        if !keep.is_due() {
            return Ok(());
        }
        let path = || self.folders.below_destination(file.parent, &file.name);
        let failed = |errno| DiskError::system("make durable", &path(), errno);
        if !self.journaling.is_free().map_err(failed)? {
            return Ok(());
        }
        let Ok(folder) = self.folders.open(*parent) else {
            return Ok(());
        };
        let (names, bytes) = (keep.names.clone(), keep.journal(storing.digest.as_ref()));
        self.journaling.begin(descriptor, folder, names, bytes).map_err(|errno| {
            DiskError::system("make durable", &self.folders.below_destination(file.parent, &file.name), errno)
        })
    }

    fn note_stored(&self, id: u64) {
        let mut stored = self.options.stored.lock().unwrap_or_else(PoisonError::into_inner);
        // Files that fail here and there would make it long; those that are not noted stay at the source.
        if stored.len() < MAX_STORED_RANGES {
            stored.insert(id..id + 1);
        }
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
        let (partial, descriptor) = self.create_small(file, &folder, &name)?;
        let written = write_content(&descriptor, file, bytes, 0)
            .and_then(|()| {
                partial::settle(&folder, &partial, &descriptor, file.size, &self.wanted(file, &name))
            })
            .inspect_err(|_| discard(&folder, &partial));
        written.map_err(|errno| self.fault(file, &folder, errno))?;
        Ok(Stored { stored: bytes.len() as u64, end: Some(Finished::Stored) })
    }

    fn wanted<'a>(&self, file: &FileEntry, name: &'a [u8]) -> Final<'a> {
        // Never the bits that let a file run as somebody else.
        let mode = file.attributes.mode & 0o777 & !self.umask;
        let attributes = Attributes { mode, ..file.attributes };
        let sparse = file.attributes.is_sparse();
        Final { name, attributes, preserve_times: self.options.preserve_times, sparse }
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
        let (partial, names) = (over.partial.clone(), over.keep.as_ref().map(|keep| keep.names.clone()));
        let result = result.and_then(|stored| self.finish(file, over).map(|()| stored));
        match result {
            Ok(stored) => Ok(Stored { end: Some(Finished::Stored), ..stored }),
            Err(fault) => {
                match (&fault, &names) {
                    // The last journal is still true.
                    (Fault::Session(_), Some(_)) => {}
                    _ => self.remove(file.parent, &partial, names.as_ref()),
                }
                match fault {
                    Fault::Entry { trouble: Trouble::DigestMismatch, .. } if file.missing.is_some() => {
                        tracing::warn!(name = %file.name.escape_ascii(), "what was there of it was not of this source");
                        Ok(Stored { stored: 0, end: Some(Finished::Wrong) })
                    }
                    fault => Err(fault),
                }
            }
        }
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
        let created = match self.found.remove(&file.id).flatten().filter(|_| file.missing.is_some()) {
            Some(storing) => {
                self.open_files += 1;
                Ok(storing)
            }
            None => self.create(file),
        };
        let (storing, result) = match created {
            Ok(storing) => (Some(storing), Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        self.incoming.insert(file.id, Incoming { parent: file.parent, awaited: file.pieces, storing });
        result
    }

    fn create(&mut self, file: &FileEntry) -> Result<Storing, Fault> {
        let folder = self.folders.open(file.parent)?;
        let name = self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        self.close_oldest();
        let (partial, descriptor, keep) = self.create_partial(file, &folder, &name)?;
        self.open_files += 1;
        let digest = (self.options.digest == Digest::Blake3).then(|| TreeDigest::new(file.size));
        let sparse = file.attributes.is_sparse();
        let at_once = if sparse { AtOnce::Never } else { AtOnce::of(&descriptor, digest.is_some()) };
        let (file, last_used, part_digest, trailer) = (Some(descriptor), self.uses, None, None);
        Ok(Storing { partial, file, at_once, last_used, digest, part_digest, trailer, keep })
    }

    /// Makes the partial file of a file that lies in one block. Its name follows from the file's, so that the next
    /// session uses what a killed one has left, rather than leaving it there for ever.
    fn create_small(
        &self,
        file: &FileEntry,
        folder: &Folder,
        name: &[u8],
    ) -> Result<(Vec<u8>, OwnedFd), Fault> {
        let fault = |errno| self.fault(file, folder, errno);
        if self.options.resume != ResumeCheck::None {
            let names = keep::names(name);
            let opened = match folder.create_file(&names.partial) {
                Ok(made) if keep::lock(&made) => return Ok((names.partial, made)),
                Ok(_) => Err(NoPartial::Busy),
                Err(Errno::EEXIST) => keep::open(folder, &names.partial, true),
                Err(errno) => Err(NoPartial::System(errno)),
            };
            match opened {
                Ok(Some(left)) => {
                    keep::discard_journal(folder, &names, true);
                    nix::unistd::ftruncate(&left, 0).map_err(fault)?;
                    return Ok((names.partial, left));
                }
                Err(NoPartial::Busy) => return Err(Fault::entry(BUSY.0, BUSY.1)),
                Err(NoPartial::System(errno)) => return Err(fault(errno)),
                Ok(None) | Err(NoPartial::Foreign) => {}
            }
        }
        let partial = partial_name(&self.options.session, file);
        let descriptor = partial::create(folder, &partial, file).map_err(fault)?;
        Ok((partial, descriptor))
    }

    /// Makes the partial file: under a name of its own if it may be kept.
    fn create_partial(
        &self,
        file: &FileEntry,
        folder: &Folder,
        name: &[u8],
    ) -> Result<(Vec<u8>, OwnedFd, Option<Keep>), Fault> {
        let fault = |errno| self.fault(file, folder, errno);
        if self.options.resume != ResumeCheck::None && file.size.div_ceil(BLOCK_BYTES) >= JOURNAL_BLOCKS {
            let names = keep::names(name);
            match keep::open(folder, &names.partial, true) {
                Ok(Some(descriptor)) => {
                    // Whatever an earlier session left is not wanted, and its journal must not outlive it.
                    keep::discard_journal(folder, &names, true);
                    nix::unistd::ftruncate(&descriptor, 0).map_err(fault)?;
                    partial::reserve(&descriptor, file)
                        .inspect_err(|_| keep::discard(folder, &names))
                        .map_err(fault)?;
                    let keep = Keep::new(names.clone(), Identity::of(file), self.options.digest);
                    return Ok((names.partial, descriptor, Some(keep)));
                }
                Err(NoPartial::Busy) => return Err(Fault::entry(BUSY.0, BUSY.1)),
                Err(NoPartial::System(errno)) => return Err(fault(errno)),
                Ok(None) | Err(NoPartial::Foreign) => {}
            }
        }
        let partial = partial_name(&self.options.session, file);
        let descriptor = partial::create(folder, &partial, file).map_err(fault)?;
        Ok((partial, descriptor, None))
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
            return Ok(Stored { stored: 0, end: None });
        };
        storing.last_used = self.uses;
        storing.trailer = storing.trailer.or(piece.trailer);
        if let Some(trouble) = storing.trailer.and_then(|trailer| trailer.trouble) {
            // No use in storing the rest.
            return Err(partial::source_fault(trouble));
        }
        if let Err(errno) = storing.write(file, piece.offset, bytes) {
            let folder = self.folders.open(file.parent)?;
            return Err(self.fault(file, &folder, errno));
        }
        Ok(Stored { stored: bytes.len() as u64, end: None })
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
        // Those that are locked would lose their lock.
        let closable = storing.filter(|storing| storing.file.is_some() && storing.keep.is_none());
        let oldest = closable.min_by_key(|storing| storing.last_used);
        if let Some(storing) = oldest {
            storing.file = None;
            self.open_files -= 1;
        }
    }

    /// Checks a file of which every piece has come, and gives it its name.
    fn finish(&mut self, file: &FileEntry, stored: Storing) -> Result<(), Fault> {
        let Storing { partial, file: descriptor, digest, part_digest, trailer, keep, .. } = stored;
        if keep.is_some() {
            let written = self.journaling.wait();
            let path = || self.folders.below_destination(file.parent, &file.name);
            written.map_err(|errno| Fault::Session(DiskError::system("make durable", &path(), errno)))?;
        }
        let trailer = trailer.ok_or_else(no_trailer)?;
        // A part of no blocks has no digest: there is nothing to check then.
        let nothing = file.missing.as_ref().is_some_and(|missing| missing.blocks() == 0);
        let by_part = part_digest.is_some();
        let kind = if by_part && nothing { Digest::None } else { self.options.digest };
        let digest = part_digest.or(digest).and_then(|digest| digest.finish());
        if trailer.of_part != (by_part && trailer.digest.is_some()) {
            return Err(Fault::entry(Trouble::DigestMismatch, "the sender's digest is of another kind"));
        }
        partial::check(kind, &trailer, digest)?;
        let name = self.landing_name(file.parent, &file.name, Top::File(file.id))?;
        let folder = self.folders.open(file.parent)?;
        let descriptor = descriptor.map_or_else(|| folder.reopen_file(&partial), Ok);
        descriptor
            .and_then(|descriptor| {
                partial::settle(&folder, &partial, &descriptor, file.size, &self.wanted(file, &name))
            })
            .map_err(|errno| self.fault(file, &folder, errno))?;
        if let Some(keep) = keep.filter(|keep| keep.written) {
            keep::discard_journal(&folder, &keep.names, false);
        }
        Ok(())
    }

    fn remove(&mut self, parent: u64, partial: &[u8], kept: Option<&Names>) {
        let _ = self.journaling.wait();
        if let Ok(folder) = self.folders.open(parent) {
            match kept {
                Some(names) => keep::discard(&folder, names),
                None => discard(&folder, partial),
            }
        }
    }
}

/// Writes a piece of a file; zeros of a file with holes stay holes.
fn write_content(descriptor: &OwnedFd, file: &FileEntry, bytes: &[u8], offset: u64) -> nix::Result<()> {
    if file.attributes.is_sparse() {
        write_around_holes(descriptor, bytes, offset)
    } else {
        partial::write_at(descriptor, bytes, offset)
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
    end: Option<Finished>,
}

/// How a file has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finished {
    Stored,
    /// It was there already.
    Found,
    /// What was there of it was of another file.
    Wrong,
}

/// What came of a block.
#[derive(Default)]
struct Report {
    stored: u64,
    finished: Vec<u64>,
    found: Vec<u64>,
    wrong: Vec<u64>,
    failed: Vec<EntryFailure>,
}

impl Report {
    fn done(self, buffer: Vec<u8>) -> DiskDone {
        let Self { stored, finished, found, wrong, failed } = self;
        DiskDone::Block { buffer, stored, finished, found, wrong, failed }
    }
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
