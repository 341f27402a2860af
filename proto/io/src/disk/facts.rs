//! What the system says of an entry.

use std::os::fd::AsFd;

use haul_proto::manifest::Attributes;
use nix::sys::stat::{FileStat, SFlag, fstat};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    /// Devices, pipes, sockets.
    Special,
}

/// What is known of an entry. Two equal ones mean that nothing was changed between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    pub(super) size: u64,
    pub(super) mode: u32,
    /// A file that takes less room than its size: it has holes, or is compressed.
    pub(super) sparse: bool,
    modified: (i64, u32),
    accessed: (i64, u32),
    changed: (i64, u32),
}

impl Facts {
    pub(super) fn of(descriptor: impl AsFd) -> nix::Result<Self> {
        fstat(descriptor).map(|stat| Self::from(&stat))
    }

    pub(super) const fn attributes(&self) -> Attributes {
        Attributes {
            mode: self.mode | if self.sparse { Attributes::SPARSE } else { 0 },
            modified_s: self.modified.0,
            modified_ns: self.modified.1,
            accessed_s: self.accessed.0,
            accessed_ns: self.accessed.1,
        }
    }

    /// Times of the last change of content and of anything, for a version of the content.
    pub(super) const fn times(&self) -> ((i64, u32), (i64, u32)) {
        (self.modified, self.changed)
    }

    /// Whether the content is as it was. The time of last access may differ: reading moves it.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        let all = |facts: &Self| (facts.kind, facts.identity, facts.size, facts.modified, facts.changed);
        all(self) == all(other)
    }
}

impl From<&FileStat> for Facts {
    fn from(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Folder,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Special,
        };
        let nanoseconds =
            |value: i64| u32::try_from(value).ok().filter(|&value| value < 1_000_000_000).unwrap_or(0);
        Self {
            kind,
            identity: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            sparse: kind == Kind::File && stat.st_blocks.saturating_mul(512) < stat.st_size,
            modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
            accessed: (stat.st_atime, nanoseconds(stat.st_atime_nsec)),
            changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        }
    }
}
