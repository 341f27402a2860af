//! A file on its way: stored under a partial name, checked, and given its final name when it is whole.

use std::os::fd::{AsFd, OwnedFd};

use haul_proto::control::{Digest, Trouble};
use haul_proto::disk::FileEntry;
use haul_proto::manifest::{Attributes, Trailer};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::fstat;
use nix::sys::uio::pwrite;
use nix::unistd::{fdatasync, ftruncate};

use super::facts::Kind;
use super::folder::{Folder, set_mode, set_times};
use super::write::Fault;

/// Files from this size get their room before the data comes and are made durable one by one, bytes.
const LARGE_FILE: u64 = 1 << 20;

/// What a file is to become.
#[derive(Debug)]
pub(super) struct Final<'a> {
    pub(super) name: &'a [u8],
    /// With the mode it shall have.
    pub(super) attributes: Attributes,
    pub(super) preserve_times: bool,
    /// It may end with a hole.
    pub(super) sparse: bool,
}

/// Name of the partial file.
pub(super) fn partial_name(session: &str, file: &FileEntry) -> Vec<u8> {
    format!(".haul-{session}-{}.part", file.id).into_bytes()
}

/// Makes the partial file and reserves its room, so that a full disk is known before the data flows.
pub(super) fn create(folder: &Folder, name: &[u8], file: &FileEntry) -> nix::Result<OwnedFd> {
    let descriptor = folder.create_file(name)?;
    match reserve(&descriptor, file) {
        Ok(()) => Ok(descriptor),
        Err(errno) => {
            let _ = folder.unlink(name);
            Err(errno)
        }
    }
}

/// Reserves the room of a large file. One with holes needs less, nobody knows how much.
pub(super) fn reserve(descriptor: &OwnedFd, file: &FileEntry) -> nix::Result<()> {
    if file.size < LARGE_FILE || file.attributes.is_sparse() {
        return Ok(());
    }
    let length = i64::try_from(file.size).map_err(|_| Errno::EFBIG)?;
    loop {
        match fallocate(descriptor, FallocateFlags::empty(), 0, length) {
            Err(Errno::EINTR) => {}
            Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_at(file: impl AsFd, mut bytes: &[u8], offset: u64) -> nix::Result<()> {
    let mut offset = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    while !bytes.is_empty() {
        match pwrite(&file, bytes, offset) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                offset += count as i64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Whether the content is what the sender meant.
pub(super) fn check(kind: Digest, trailer: &Trailer, digest: Option<[u8; 32]>) -> Result<(), Fault> {
    if let Some(trouble) = trailer.trouble {
        return Err(source_fault(trouble));
    }
    match (kind, trailer.digest) {
        (Digest::None, _) => Ok(()),
        (Digest::Blake3, None) => Err(Fault::entry(Trouble::DigestMismatch, "the sender told no digest")),
        (Digest::Blake3, sent) if sent == digest => Ok(()),
        (Digest::Blake3, _) => {
            let message = "what arrived is not what was read: the digests differ";
            Err(Fault::entry(Trouble::DigestMismatch, message))
        }
    }
}

/// The sender's trouble with a file, in words.
pub(super) fn source_fault(trouble: Trouble) -> Fault {
    let message = match trouble {
        Trouble::SourceChanged => "the source changed while it was sent",
        Trouble::NotFound => "the source has vanished",
        Trouble::PermissionDenied => "the sender is not permitted to read it",
        Trouble::Disk => "the sender's disk failed",
        _ => "the sender could not read it",
    };
    Fault::entry(trouble, message)
}

/// Settles the partial file and gives it its final name. `EISDIR` and `EEXIST` say what stands there.
pub(super) fn settle(
    folder: &Folder,
    partial: &[u8],
    file: &OwnedFd,
    size: u64,
    wanted: &Final<'_>,
) -> nix::Result<()> {
    match folder.stat(wanted.name).map(|facts| facts.kind) {
        Ok(Kind::Folder) => return Err(Errno::EISDIR),
        Ok(Kind::Special) => return Err(Errno::EEXIST),
        // A link is replaced, never followed.
        Ok(Kind::File | Kind::Link) | Err(_) => {}
    }
    if wanted.sparse {
        ftruncate(file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)?;
    }
    set_mode(file, wanted.attributes.mode)?;
    if wanted.preserve_times {
        set_times(file, &wanted.attributes)?;
    }
    if size >= LARGE_FILE {
        // Small ones are made durable together, at the end.
        fdatasync(file)?;
    }
    // Nothing gets the final name but what was checked.
    let about = fstat(file)?;
    if folder.stat(partial)?.identity != (about.st_dev, about.st_ino) {
        return Err(Errno::ESTALE);
    }
    folder.rename(partial, wanted.name)
}
