//! What is kept of an unfinished file for a later session: the partial file under a name of its own, locked, and a
//! journal beside it that tells what of it is on the disk.
//!
//! A block is journaled only after it has been made durable, so a journal is true after a power cut too. That is done
//! by a thread of its own, one file at a time; a journal is written beside its predecessor and takes its name. Not
//! here: which blocks, and when.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use haul_proto::constants::BLOCK_BYTES;
use haul_proto::control::{Digest, Trouble};
use haul_proto::journal::{Identity, Journal, MAX_JOURNAL_BYTES, Subtree};
use haul_proto::range_set::RangeSet;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::uio::pread;
use nix::unistd::{fdatasync, fsync, geteuid};
use rustix::fs::{FlockOperation, flock};

use super::folder::Folder;
use super::helper::spawn;
use super::partial::write_at;
use super::tree_digest::TreeDigest;

/// So much may be lost, beside [`SHARE`], of what came since the last journal.
const BYTES: u64 = 4 << 20;
/// The same as a share of the file: one part in so many.
const SHARE: u64 = 128;
/// Slow transfers are journaled this often.
const INTERVAL: Duration = Duration::from_secs(2);

/// Names of what is kept of the file that shall have `name`. They are the same in each session.
pub(super) fn names(name: &[u8]) -> Names {
    let hash = blake3::hash(name).to_hex();
    let hash = hash.get(..24).unwrap_or_default();
    let with = |end: &str| format!(".haul-{hash}.{end}").into_bytes();
    Names { partial: with("part"), journal: with("journal"), next: with("journal-next") }
}

/// Whether a name is one of those that unfinished files have, here or in [`super::partial`].
pub(super) fn is_reserved(name: &[u8]) -> bool {
    let ends: [&[u8]; 3] = [b".part", b".journal", b".journal-next"];
    name.starts_with(b".haul-") && ends.iter().any(|end| name.ends_with(end))
}

/// See [`names`].
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) partial: Vec<u8>,
    pub(super) journal: Vec<u8>,
    next: Vec<u8>,
}

/// The account of an unfinished file.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) names: Names,
    source: Identity,
    digest: Digest,
    held: RangeSet,
    /// Bytes that came since the last journal was begun, and before.
    fresh: u64,
    journaled: u64,
    latest: Instant,
    /// Whether a journal may be there.
    pub(super) written: bool,
}

impl Keep {
    /// Of a file of which nothing is there yet.
    pub(super) fn new(names: Names, source: Identity, digest: Digest) -> Self {
        let (held, latest) = (RangeSet::new(), Instant::now());
        Self { names, source, digest, held, fresh: 0, journaled: 0, latest, written: false }
    }

    /// Bytes at `offset` were written.
    pub(super) fn on_written(&mut self, offset: u64, bytes: usize) {
        let block = offset / BLOCK_BYTES;
        if bytes > 0 {
            self.held.insert(block..block + 1);
            self.fresh += bytes as u64;
        }
    }

    /// Whether enough came to be journaled.
    pub(super) fn is_due(&self) -> bool {
        self.fresh >= BYTES + self.journaled / SHARE || self.fresh > 0 && self.latest.elapsed() >= INTERVAL
    }

    /// Whether nothing of the file is there.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What is there.
    pub(super) const fn held(&self) -> &RangeSet {
        &self.held
    }

    /// The journal as of now.
    pub(super) fn journal(&mut self, digest: Option<&TreeDigest>) -> Vec<u8> {
        self.journaled += std::mem::take(&mut self.fresh);
        self.latest = Instant::now();
        self.written = true;
        let subtrees = digest.map(TreeDigest::subtrees).unwrap_or_default();
        Journal { source: self.source, digest: self.digest, held: self.held.clone(), subtrees }.encode()
    }
}

/// Why a partial file cannot be had.
#[derive(Debug)]
pub(super) enum NoPartial {
    /// Another transfer has it.
    Busy,
    /// It is not ours, or cannot be used otherwise.
    Foreign,
    System(Errno),
}

/// Opens the partial file and locks it. None if there is none and it shall not be made.
pub(super) fn open(folder: &Folder, name: &[u8], make: bool) -> Result<Option<OwnedFd>, NoPartial> {
    // Again if it gets its final name between opening and locking.
    for _ in 0..100 {
        let file = match folder.reopen_file(name) {
            Err(Errno::ENOENT) if make => match folder.create_file(name) {
                Err(Errno::EEXIST) => continue,
                made => made.map_err(NoPartial::System)?,
            },
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EACCES | Errno::EPERM | Errno::ELOOP | Errno::ENXIO) => {
                return Err(NoPartial::Foreign);
            }
            opened => opened.map_err(NoPartial::System)?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(NoPartial::Busy),
            Err(_) => return Err(NoPartial::Foreign),
        }
        let about = fstat(&file).map_err(NoPartial::System)?;
        let named = folder.stat(name).is_ok_and(|facts| facts.identity == (about.st_dev, about.st_ino));
        match (named, is_ours(&about)) {
            (false, _) => {}
            (true, true) => return Ok(Some(file)),
            (true, false) => return Err(NoPartial::Foreign),
        }
    }
    Err(NoPartial::Busy)
}

/// Locks a partial file that has just been made. `false` if another transfer was quicker.
pub(super) fn lock(file: &OwnedFd) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive) != Err(rustix::io::Errno::WOULDBLOCK)
}

/// A plain file of this account without other names: what somebody else put there must not be written to.
fn is_ours(about: &FileStat) -> bool {
    about.st_mode & 0o170_000 == 0o100_000 && about.st_nlink == 1 && about.st_uid == geteuid().as_raw()
}

/// What an earlier session kept of a file of this source: the account, and the subtrees that are known.
pub(super) fn read(
    folder: &Folder,
    names: Names,
    source: Identity,
    digest: Digest,
) -> Option<(Keep, Vec<Subtree>)> {
    let file = folder.open_file(&names.journal).ok()?;
    let about = fstat(&file).ok()?;
    let size =
        u64::try_from(about.st_size).ok().filter(|&size| is_ours(&about) && size <= MAX_JOURNAL_BYTES)?;
    let mut bytes = vec![0; size as usize];
    read_at(&file, &mut bytes, 0).ok()?;
    let journal = Journal::decode(&bytes)?;
    let blocks = source.size.div_ceil(BLOCK_BYTES);
    let fits = journal.held.iter().next_back().is_none_or(|last| last.end <= blocks);
    if journal.source != source || !fits {
        return None;
    }
    let mut keep = Keep::new(names, source, digest);
    let subtrees = if journal.digest == digest { journal.subtrees } else { Vec::new() };
    keep.held = journal.held;
    keep.journaled = keep.held.iter().map(|range| (range.end - range.start) * BLOCK_BYTES).sum();
    keep.written = true;
    Some((keep, subtrees))
}

/// Fills `into` from `offset`.
pub(super) fn read_at(file: impl AsFd, mut into: &mut [u8], offset: u64) -> nix::Result<()> {
    let mut offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    while !into.is_empty() {
        match pread(&file, into, offset) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => {
                into = into.get_mut(count..).unwrap_or_default();
                offset += count as i64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Removes what is kept.
pub(super) fn discard(folder: &Folder, names: &Names) {
    discard_journal(folder, names, true);
    let _ = folder.unlink(&names.partial);
}

/// Removes the journal; durably, if the partial file goes on under its name: a journal must never tell of another one.
pub(super) fn discard_journal(folder: &Folder, names: &Names, durably: bool) {
    let removed = folder.unlink(&names.journal).is_ok();
    let _ = folder.unlink(&names.next);
    if removed && durably {
        let _ = fsync(folder);
    }
}

/// Makes the file's bytes durable, then the journal that tells of them.
pub(super) fn store(file: impl AsFd, folder: &Folder, names: &Names, journal: &[u8]) -> nix::Result<()> {
    fdatasync(file)?;
    let _ = folder.unlink(&names.next);
    let next = folder.create_file(&names.next)?;
    write_at(&next, journal, 0)?;
    fdatasync(&next)?;
    folder.rename(&names.next, &names.journal)
}

/// The thread that journals.
#[derive(Debug, Default)]
pub(super) struct Journaling {
    thread: Option<Thread>,
    away: bool,
    /// The system tells only once that bytes were lost: no journal is true after that.
    failed: Option<Errno>,
}

/// Where jobs go, where what came of them is told, and who does them.
type Thread = (SyncSender<Job>, Receiver<nix::Result<()>>, JoinHandle<()>);

#[derive(Debug)]
struct Job {
    file: OwnedFd,
    folder: Arc<Folder>,
    names: Names,
    journal: Vec<u8>,
}

impl Journaling {
    /// Whether another journal may be begun.
    ///
    /// # Errors
    /// If the last one could not be written: what is on the disk is not what was written to it.
    pub(super) fn is_free(&mut self) -> nix::Result<bool> {
        self.outcome()?;
        let Some((_, done, _)) = self.thread.as_ref().filter(|_| self.away) else {
            return Ok(true);
        };
        let result = match done.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => Err(Errno::EIO),
        };
        self.away = false;
        self.failed = result.err();
        self.outcome().map(|()| true)
    }

    /// Waits for the journal that is being written.
    pub(super) fn wait(&mut self) -> nix::Result<()> {
        if let Some((_, done, _)) = self.thread.as_ref().filter(|_| self.away) {
            self.failed = done.recv().unwrap_or(Err(Errno::EIO)).err();
            self.away = false;
        }
        self.outcome()
    }

    fn outcome(&self) -> nix::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Begins a journal.
    pub(super) fn begin(
        &mut self,
        file: &OwnedFd,
        folder: Arc<Folder>,
        names: Names,
        journal: Vec<u8>,
    ) -> nix::Result<()> {
        let file = file.try_clone().map_err(|_| Errno::EMFILE)?;
        if self.thread.is_none() {
            let (jobs, job_receiver) = sync_channel::<Job>(1);
            let (done_sender, done) = sync_channel(1);
            let run = move || {
                for Job { file, folder, names, journal } in job_receiver {
                    if done_sender.send(store(&file, &folder, &names, &journal)).is_err() {
                        return;
                    }
                }
            };
            let thread = spawn("haul-journal", run).map_err(|_| Errno::EAGAIN)?;
            self.thread = Some((jobs, done, thread));
        }
        let job = Job { file, folder, names, journal };
        self.away = self.thread.as_ref().is_some_and(|(jobs, ..)| jobs.send(job).is_ok());
        Ok(())
    }
}

impl Drop for Journaling {
    fn drop(&mut self) {
        if let Some((jobs, done, thread)) = self.thread.take() {
            drop(jobs);
            drop(done);
            if thread.join().is_err() {
                tracing::error!("the thread that writes journals has panicked");
            }
        }
    }
}

/// Why another transfer's file is left alone.
pub(super) const BUSY: (Trouble, &str) =
    (Trouble::Busy, "another transfer is writing this file; try again when it has ended");
