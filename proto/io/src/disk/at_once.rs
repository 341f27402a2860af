//! Reading and writing without waiting for a device: as far as the file system can do that, or tell that it cannot.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;

use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

/// How a file is reached without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtOnce {
    /// It lies in memory.
    Always,
    /// The kernel refuses rather than waits: `RWF_NOWAIT` of preadv2(2), for pages in the page cache. Of the common file
    /// systems all do so for reading; XFS and Btrfs also for writing.
    IfAsked,
    /// The kernel cannot tell.
    Never,
}

impl AtOnce {
    /// Asks the file system. What is also digested is left to another thread where there are cores for one.
    pub(super) fn of(file: &OwnedFd, digested: bool) -> Self {
        if digested && !has_few_cores() {
            return Self::Never;
        }
        match fstatfs(file) {
            Ok(about) if about.filesystem_type() == TMPFS_MAGIC => Self::Always,
            Ok(_) => Self::IfAsked,
            Err(_) => Self::Never,
        }
    }

    fn flags(self) -> Option<ReadWriteFlags> {
        match self {
            Self::Always => Some(ReadWriteFlags::empty()),
            Self::IfAsked => Some(ReadWriteFlags::NOWAIT),
            Self::Never => None,
        }
    }

    /// Fills `into` from `offset`. Whatever hinders it, waiting or an error, is for the one who may wait to find out.
    pub(super) fn read(&mut self, file: &OwnedFd, into: &mut [u8], offset: u64) -> bool {
        let Some(flags) = self.flags() else {
            return false;
        };
        let wanted = into.len();
        let result = preadv2(file, &mut [IoSliceMut::new(into)], offset, flags);
        self.is_done(result, wanted)
    }

    /// Writes all of `bytes` at `offset`, else perhaps a part.
    pub(super) fn write(&mut self, file: &OwnedFd, bytes: &[u8], offset: u64) -> bool {
        let Some(flags) = self.flags() else {
            return false;
        };
        let result = pwritev2(file, &[IoSlice::new(bytes)], offset, flags);
        self.is_done(result, bytes.len())
    }

    fn is_done(&mut self, result: Result<usize, Errno>, wanted: usize) -> bool {
        if let Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) = result {
            *self = Self::Never;
        }
        result == Ok(wanted)
    }
}

/// Whether another thread would only take the place of this one.
fn has_few_cores() -> bool {
    std::thread::available_parallelism().map_or(true, |cores| cores.get() <= 2)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;

    fn file(folder: &str) -> OwnedFd {
        let mut file = tempfile::tempfile_in(folder).unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        File::into(file)
    }

    #[test]
    fn files_in_memory_are_read_and_written_at_once() {
        let file = file("/dev/shm");
        let mut at_once = AtOnce::of(&file, false);
        assert_eq!(at_once, AtOnce::Always);
        assert!(at_once.write(&file, &[8; 1000], 99_500));
        let mut bytes = [0; 1000];
        assert!(at_once.read(&file, &mut bytes, 99_400));
        assert_eq!((bytes[99], bytes[100], bytes[999]), (7, 8, 8));
        assert!(!at_once.read(&file, &mut bytes, 100_000), "cut short");
    }

    #[test]
    fn what_the_kernel_cannot_tell_is_not_tried_again() {
        let file = file("/dev/shm");
        // tmpfs does not know RWF_NOWAIT.
        let mut at_once = AtOnce::IfAsked;
        assert!(!at_once.read(&file, &mut [0; 10], 0));
        assert_eq!(at_once, AtOnce::Never);
        assert!(!at_once.write(&file, &[1], 0));
        let mut bytes = [0];
        assert!(AtOnce::Always.read(&file, &mut bytes, 0));
        assert_eq!(bytes, [7]);
    }
}
