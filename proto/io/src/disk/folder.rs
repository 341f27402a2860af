//! An open folder, and the calls on one name in it. No call here follows a link or leaves the folder.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use haul_proto::manifest::{Attributes, is_component};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, readlinkat, renameat, renameat2};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstatat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::facts::Facts;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

impl From<OwnedFd> for Folder {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Folder {
    /// What is known of the folder itself.
    pub(super) fn facts(&self) -> nix::Result<Facts> {
        Facts::of(&self.0)
    }

    /// What stands under `name`.
    pub(super) fn stat(&self, name: &[u8]) -> nix::Result<Facts> {
        fstatat(&self.0, checked(name)?, AtFlags::AT_SYMLINK_NOFOLLOW).map(|stat| Facts::from(&stat))
    }

    /// A listing; independent of others.
    pub(super) fn list(&self) -> nix::Result<Dir> {
        Dir::openat(&self.0, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// The text of a link.
    pub(super) fn read_link(&self, name: &[u8]) -> nix::Result<Vec<u8>> {
        readlinkat(&self.0, checked(name)?).map(OsStringExt::into_vec)
    }

    /// Makes a link in this one.
    pub(super) fn make_link(&self, name: &[u8], text: &[u8]) -> nix::Result<()> {
        symlinkat(text, &self.0, checked(name)?)
    }

    /// Sets the times of a link itself. File systems without them are forgiven.
    pub(super) fn set_link_times(&self, name: &[u8], attributes: &Attributes) -> nix::Result<()> {
        let (accessed, modified) = times(attributes);
        let name = checked(name)?;
        match utimensat(&self.0, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink) {
            Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(()),
            result => result,
        }
    }

    /// Opens a folder in this one.
    pub(super) fn open_folder(&self, name: &[u8]) -> nix::Result<Self> {
        let open = |access| {
            let flags = access | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(&self.0, checked(name)?, flags, Mode::empty()).map(Self)
        };
        match open(OFlag::O_RDONLY) {
            Err(Errno::EACCES) => open(OFlag::O_PATH),
            result => result,
        }
    }

    /// Makes a folder in this one.
    pub(super) fn make_folder(&self, name: &[u8], mode: u32) -> nix::Result<()> {
        mkdirat(&self.0, checked(name)?, Mode::from_bits_truncate(mode))
    }

    /// Makes a file in this one that nobody else can open yet.
    pub(super) fn create_file(&self, name: &[u8]) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.0, checked(name)?, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Opens a file that [`create_file`](Self::create_file) made, once more.
    pub(super) fn reopen_file(&self, name: &[u8]) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(&self.0, checked(name)?, flags, Mode::empty())
    }

    /// Opens a file for reading.
    pub(super) fn open_file(&self, name: &[u8]) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(&self.0, checked(name)?, flags, Mode::empty())
    }

    /// Gives a file its final name; what stands there is replaced.
    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> nix::Result<()> {
        renameat(&self.0, checked(from)?, &self.0, checked(to)?)
    }

    /// Moves a file into another folder; what stands there is not replaced.
    pub(super) fn move_to(&self, from: &[u8], folder: &Self, to: &[u8]) -> nix::Result<()> {
        renameat2(&self.0, checked(from)?, &folder.0, checked(to)?, RenameFlags::RENAME_NOREPLACE)
    }

    /// Removes an empty folder.
    pub(super) fn remove_folder(&self, name: &[u8]) -> nix::Result<()> {
        unlinkat(&self.0, checked(name)?, UnlinkatFlags::RemoveDir)
    }

    /// Removes a file.
    pub(super) fn unlink(&self, name: &[u8]) -> nix::Result<()> {
        unlinkat(&self.0, checked(name)?, UnlinkatFlags::NoRemoveDir)
    }
}

fn checked(name: &[u8]) -> nix::Result<&[u8]> {
    if is_component(name) { Ok(name) } else { Err(Errno::EINVAL) }
}

/// Sets the mode of an open file or folder. File systems without modes are forgiven.
pub(super) fn set_mode(descriptor: impl AsFd, mode: u32) -> nix::Result<()> {
    match fchmod(descriptor, Mode::from_bits_truncate(mode)) {
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        result => result,
    }
}

fn times(attributes: &Attributes) -> (TimeSpec, TimeSpec) {
    (
        TimeSpec::new(attributes.accessed_s, attributes.accessed_ns.into()),
        TimeSpec::new(attributes.modified_s, attributes.modified_ns.into()),
    )
}

/// Sets the times of an open file or folder. File systems without them are forgiven.
pub(super) fn set_times(descriptor: impl AsFd, attributes: &Attributes) -> nix::Result<()> {
    let (accessed, modified) = times(attributes);
    match futimens(descriptor, &accessed, &modified) {
        Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::Docroot;
    use super::*;

    #[test]
    fn no_call_follows_a_link_or_takes_more_than_a_name() {
        let top = tempfile::tempdir().unwrap();
        let folder = Docroot::open(top.path()).unwrap().open_folder(b"").unwrap();
        symlink("/tmp", top.path().join("link")).unwrap();
        assert!(folder.open_folder(b"link").is_err());
        assert_eq!(folder.create_file(b"link").unwrap_err(), Errno::EEXIST);
        assert!(folder.reopen_file(b"link").is_err());
        for name in [&b"."[..], b"..", b"a/b", b"", b"/"] {
            assert_eq!(folder.open_folder(name).unwrap_err(), Errno::EINVAL);
            assert_eq!(folder.make_folder(name, 0o700).unwrap_err(), Errno::EINVAL);
            assert_eq!(folder.create_file(name).unwrap_err(), Errno::EINVAL);
            assert_eq!(folder.rename(b"link", name).unwrap_err(), Errno::EINVAL);
            assert_eq!(folder.unlink(name).unwrap_err(), Errno::EINVAL);
        }
    }
}
