//! A file system in memory for all programs alike, and memory that is kept warm for what they write.
//!
//! It lies in a mount namespace of this process, so it goes with the last process of the benchmark, however
//! that ends.
//!
//! A virtual machine gives memory that it has freed back to its host, and touching it again costs up to six
//! times as much as the copying. Whoever ran after a long pause would pay for that. So the volume holds a
//! ballast of nearly all that is free; as much of it as a copy needs is freed just before each run and filled
//! again after it.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::BenchError;
use super::machine::first_number;
use super::options::Pages;

/// Memory that stays free for the programs themselves.
const SPARE_BYTES: u64 = 512 << 20;
const BLOCK_BYTES: usize = 1 << 20;

/// A mounted tmpfs; unmounted on drop.
#[derive(Debug)]
pub(super) struct Volume {
    directory: TempDir,
    ballast_bytes: u64,
}

/// Gives this process mounts of its own. Must be called before it has a second thread.
///
/// # Errors
/// Without root.
pub(super) fn own_mounts() -> Result<(), BenchError> {
    if !geteuid().is_root() {
        return Err(BenchError::Environment {
            what: "mount a tmpfs".to_owned(),
            why: "only root can; start as root, or measure only `ceiling`".to_owned(),
        });
    }
    let cannot = |errno: nix::Error| BenchError::io("make a mount namespace")(errno.into());
    unshare(CloneFlags::CLONE_NEWNS).map_err(cannot)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).map_err(cannot)
}

/// Unmounts what this process has mounted, before a sudden end.
pub(super) fn unmount_all() {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix())) {
        let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(entry.path());
    }
}

fn prefix() -> String {
    format!("haul-bench-{}-", std::process::id())
}

/// What a volume is to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Bytes of the sources.
    pub(super) source: u64,
    /// Bytes of the copies that are there at a time.
    pub(super) copy: u64,
    /// Bytes that the programs themselves may need.
    pub(super) programs: u64,
}

impl Room {
    /// For single large files: the programs need little, and the ballast takes the rest.
    pub(super) const fn for_files(source: u64, copy: u64) -> Self {
        Self { source, copy, programs: 1 << 30 }
    }

    /// For what takes memory beside the bytes of files: a ballast of one copy.
    pub(super) const fn for_trees(source: u64, copy: u64) -> Self {
        Self { source, copy, programs: u64::MAX / 2 }
    }
}

impl Volume {
    /// Mounts one.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub(super) fn mount(pages: Pages, room: Room) -> Result<Self, BenchError> {
        let least = room.source + room.copy + SPARE_BYTES;
        let available = first_number("/proc/meminfo", "MemAvailable:") * 1024;
        if available < least + SPARE_BYTES {
            let mib = |bytes: u64| bytes >> 20;
            return Err(BenchError::Environment {
                what: format!("keep {} MiB of files in memory", mib(least)),
                why: format!("{} MiB are available; free some, or choose a smaller --size", mib(available)),
            });
        }
        let ballast_bytes = available.saturating_sub(room.source + room.programs).max(room.copy);
        let bytes = room.source + ballast_bytes + SPARE_BYTES;
        let directory = TempDir::with_prefix(prefix()).map_err(BenchError::io("make a mount point"))?;
        let huge = if pages == Pages::Huge { "always" } else { "never" };
        let data = format!("mode=755,size={bytes},huge={huge}");
        mount(Some("haul-bench"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(data.as_str()))
            .map_err(|errno| BenchError::io(format!("mount a tmpfs with {data}"))(errno.into()))?;
        let volume = Self { directory, ballast_bytes };
        // The mount's mode is that of its root; our own folders must bear a strict umask.
        for name in ["here", "there"] {
            let path = volume.path().join(name);
            fs::create_dir(&path).map_err(BenchError::io("make a folder"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .map_err(BenchError::io("open a folder"))?;
        }
        volume.refill().map_err(BenchError::io("fill the ballast"))?;
        Ok(volume)
    }

    /// Frees memory for a copy of `bytes`.
    ///
    /// # Errors
    /// When the ballast cannot be cut.
    pub(super) fn release(&self, bytes: u64) -> io::Result<()> {
        self.ballast()?.set_len(self.ballast_bytes.saturating_sub(bytes))
    }

    /// Takes all memory that is not needed.
    ///
    /// # Errors
    /// When a copy is still there.
    pub(super) fn refill(&self) -> io::Result<()> {
        let mut ballast = self.ballast()?;
        let mut left = self.ballast_bytes.saturating_sub(ballast.seek(SeekFrom::End(0))?);
        let block = vec![0; BLOCK_BYTES];
        while left > 0 {
            let part = left.min(BLOCK_BYTES as u64);
            ballast.write_all(&block[..part as usize])?;
            left -= part;
        }
        Ok(())
    }

    /// Its root.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn ballast(&self) -> io::Result<File> {
        File::options().write(true).create(true).truncate(false).open(self.path().join("ballast"))
    }

    /// Where clients have their files.
    #[must_use]
    pub(super) fn here(&self) -> PathBuf {
        self.path().join("here")
    }

    /// Where the other programs' servers have theirs.
    #[must_use]
    pub(super) fn there(&self) -> PathBuf {
        self.path().join("there")
    }
}

#[cfg(test)]
impl Volume {
    /// A folder without a file system of its own.
    pub(super) fn unmounted(ballast_bytes: u64) -> Self {
        Self { directory: TempDir::new().expect("there is a folder for temporary files"), ballast_bytes }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Processes that are still ending may hold it; it goes with them.
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_released_and_taken_back() {
        let volume = Volume::unmounted(5 << 20);
        let length = || fs::metadata(volume.path().join("ballast")).unwrap().len();
        volume.refill().unwrap();
        assert_eq!(length(), 5 << 20);
        volume.release((3 << 20) + 5).unwrap();
        assert_eq!(length(), (2 << 20) - 5);
        volume.refill().unwrap();
        assert_eq!(length(), 5 << 20);
        volume.release(6 << 20).unwrap();
        assert_eq!(length(), 0);
    }
}
