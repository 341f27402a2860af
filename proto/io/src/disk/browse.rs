//! What a browser needs of a docroot: listings, files with a range read at any place, and files that grow to their final
//! name over several requests. All paths go through [`Docroot`]; no call here follows a link out of it.
//!
//! Not here: HTTP, permissions of a user, the choice of names.

use std::fs::File;
use std::os::fd::OwnedFd;

use haul_proto::control::Trouble;
use haul_proto::manifest::is_component;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, RenameFlags, renameat2};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::fsync;

use super::facts::{Facts, Kind};
use super::folder::Folder;
use super::{DiskError, Docroot, join};

/// Entries of one folder that are listed; more are refused rather than left out.
pub const MAX_LISTED: usize = 200_000;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, or a link to one inside.
    File,
    /// A folder, or a link to one inside.
    Folder,
    /// A device, a pipe, a socket, or a link that leads nowhere or outside.
    Other,
}

/// What is known of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What it is, links followed.
    pub kind: EntryKind,
    /// It is reached through a link.
    pub link: bool,
    /// Bytes of content.
    pub size: u64,
    /// Time of the last change of the content: seconds since 1970.
    pub modified_s: i64,
    /// Permission bits.
    pub mode: u32,
    facts: Facts,
}

impl About {
    fn new(facts: Facts, link: bool) -> Self {
        let kind = match facts.kind {
            Kind::File => EntryKind::File,
            Kind::Folder => EntryKind::Folder,
            Kind::Link | Kind::Special => EntryKind::Other,
        };
        let attributes = facts.attributes();
        Self { kind, link, size: facts.size, modified_s: attributes.modified_s, mode: facts.mode, facts }
    }

    /// Bytes that differ as soon as the content does: device, inode, size and times to the nanosecond.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{:?}", (self.facts.identity, self.size, self.facts.times()))
    }

    /// Whether the content is as it was.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.facts.same_content(&other.facts)
    }
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is.
    pub about: About,
}

/// A regular file that is open for reading.
#[derive(Debug)]
pub struct OpenFile {
    /// Its content.
    pub file: File,
    /// What was known of it when it was opened.
    pub about: About,
}

impl OpenFile {
    /// What is known of it now.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn about_now(&self) -> std::io::Result<About> {
        Ok(About::new(Facts::of(&self.file)?, false))
    }
}

impl Docroot {
    /// The same, confined to a folder in it.
    ///
    /// # Errors
    /// If there is no such folder inside.
    pub fn below(&self, path: &[u8]) -> Result<Self, DiskError> {
        self.confined(path)
    }

    /// What stands at a path.
    ///
    /// # Errors
    /// If there is nothing, or it is outside.
    pub fn about(&self, path: &[u8]) -> Result<About, DiskError> {
        self.stat(path).map(|facts| About::new(facts, false))
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// If it is none, or may not be read.
    pub fn read_file(&self, path: &[u8]) -> Result<OpenFile, DiskError> {
        let (descriptor, facts) = self.open_file(path)?;
        Ok(OpenFile { file: File::from(descriptor), about: About::new(facts, false) })
    }

    /// Whether a file could be opened for reading or a folder listed now.
    #[must_use]
    pub fn is_readable(&self, path: &[u8], kind: EntryKind) -> bool {
        match kind {
            EntryKind::File => self.open_file(path).is_ok(),
            EntryKind::Folder => self.open_folder(path).is_ok_and(|folder| folder.list().is_ok()),
            EntryKind::Other => false,
        }
    }

    /// What is in a folder, in no order.
    ///
    /// # Errors
    /// If it cannot be listed, or holds more than [`MAX_LISTED`] entries.
    pub fn entries(&self, path: &[u8]) -> Result<Vec<Entry>, DiskError> {
        let system = |errno| DiskError::system("list the folder", path, errno);
        let folder = self.open_folder(path)?;
        let mut entries = Vec::new();
        for found in folder.list().map_err(system)?.iter() {
            let found = found.map_err(system)?;
            let name = found.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if entries.len() == MAX_LISTED {
                let reason = format!("it holds more than {MAX_LISTED} entries");
                return Err(DiskError::new("list the folder", path, Trouble::Limit, reason));
            }
            // One that has vanished meanwhile is in no listing.
            let Ok(facts) = folder.stat(name) else { continue };
            let target = match facts.kind {
                Kind::Link => self.stat(&join(path, name)).ok(),
                Kind::File | Kind::Folder | Kind::Special => None,
            };
            let about = About::new(target.unwrap_or(facts), facts.kind == Kind::Link);
            entries.push(Entry { name: name.to_vec(), about });
        }
        Ok(entries)
    }

    /// Makes a folder in an existing one.
    ///
    /// # Errors
    /// If the name is taken or cannot be made.
    pub fn make_folder(&self, folder: &[u8], name: &[u8]) -> Result<(), DiskError> {
        let failed = |errno| DiskError::system("make the folder", &join(folder, name), errno);
        self.open_folder(folder)?.make_folder(name, 0o777).map_err(failed)
    }

    /// Removes a file, not what a link points to.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_file(&self, folder: &[u8], name: &[u8]) -> Result<(), DiskError> {
        let failed = |errno| DiskError::system("remove", &join(folder, name), errno);
        self.open_folder(folder)?.unlink(name).map_err(failed)
    }

    /// Makes a file that is to grow under a name of its own.
    ///
    /// # Errors
    /// If the name is taken, or the folder may not be written.
    pub fn begin_growing(&self, folder: &[u8], name: &[u8]) -> Result<Growing, DiskError> {
        let below = self.open_folder(folder)?;
        let failed = |errno| DiskError::system("make a file", &join(folder, name), errno);
        let descriptor = below.create_file(name).map_err(failed)?;
        Growing::new(below, join(folder, name), name, descriptor)
    }

    /// Opens such a file once more.
    ///
    /// # Errors
    /// If it is not there, or somebody else has it open: [`Trouble::PeerLost`] tells that case.
    pub fn open_growing(&self, folder: &[u8], name: &[u8]) -> Result<Growing, DiskError> {
        let below = self.open_folder(folder)?;
        let failed = |errno| DiskError::system("open", &join(folder, name), errno);
        let descriptor = below.reopen_file(name).map_err(failed)?;
        Growing::new(below, join(folder, name), name, descriptor)
    }
}

/// What to do with a final name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Leave what stands there.
    Keep,
    /// Put the new file in its place.
    Replace,
}

/// A file that grows under a name of its own, held by this process alone.
#[derive(Debug)]
pub struct Growing {
    folder: Folder,
    path: Vec<u8>,
    name: Vec<u8>,
    file: Flock<File>,
}

impl Growing {
    fn new(folder: Folder, path: Vec<u8>, name: &[u8], descriptor: OwnedFd) -> Result<Self, DiskError> {
        let facts = Facts::of(&descriptor).map_err(|errno| DiskError::system("open", &path, errno))?;
        if facts.kind != Kind::File {
            return Err(DiskError::new("open", &path, Trouble::WrongKind, "it is not a regular file"));
        }
        let file =
            Flock::lock(File::from(descriptor), FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
                match errno {
                    Errno::EWOULDBLOCK => {
                        DiskError::new("open", &path, Trouble::PeerLost, "another request has it open")
                    }
                    errno => DiskError::system("open", &path, errno),
                }
            })?;
        Ok(Self { folder, path, name: name.to_vec(), file })
    }

    /// Its length so far.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn length(&self) -> Result<u64, DiskError> {
        self.file.metadata().map(|about| about.len()).map_err(|error| self.failed("measure", &error))
    }

    /// Writes at a place.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        use std::os::unix::fs::FileExt as _;
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed("write", &error))
    }

    /// Cuts what stands behind a place.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn cut(&self, length: u64) -> Result<(), DiskError> {
        self.file.set_len(length).map_err(|error| self.failed("cut", &error))
    }

    /// Makes the content durable and gives it its final name; `false` if the name is taken and to be left.
    ///
    /// # Errors
    /// If the disk refuses, or a folder stands there.
    pub fn finish(&self, name: &[u8], taken: Taken) -> Result<bool, DiskError> {
        if !is_component(name) {
            return Err(DiskError::new("name", &self.path, Trouble::WrongKind, "the name is no file name"));
        }
        self.file.sync_data().map_err(|error| self.failed("write", &error))?;
        // As a program that makes a file here would have it; the mask is the session's.
        match fchmod(&*self.file, Mode::from_bits_truncate(0o644)) {
            Ok(()) | Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            Err(errno) => return Err(DiskError::system("name", &self.path, errno)),
        }
        match self.rename(name, taken) {
            Ok(()) => {
                // The name is durable with its folder; a file system that cannot is forgiven.
                let _ = fsync(&self.folder);
                Ok(true)
            }
            Err(Errno::EEXIST) if taken == Taken::Keep => Ok(false),
            Err(errno) => Err(DiskError::system("name", &self.path, errno)),
        }
    }

    fn rename(&self, name: &[u8], taken: Taken) -> nix::Result<()> {
        if taken == Taken::Replace {
            if self.folder.stat(name).is_ok_and(|facts| matches!(facts.kind, Kind::Folder | Kind::Special)) {
                return Err(Errno::EISDIR);
            }
            return self.folder.rename(&self.name, name);
        }
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&self.folder, self.name.as_slice(), &self.folder, name, flags) {
            // Some network file systems do not know the flag: look, then rename.
            Err(Errno::EINVAL | Errno::ENOSYS) => match self.folder.stat(name) {
                Ok(_) => Err(Errno::EEXIST),
                Err(_) => self.folder.rename(&self.name, name),
            },
            result => result,
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn discard(self) -> Result<(), DiskError> {
        self.folder.unlink(&self.name).map_err(|errno| DiskError::system("remove", &self.path, errno))
    }

    /// An error about this file that is not the system's.
    #[must_use]
    pub fn refused(&self, trouble: Trouble, reason: &str) -> DiskError {
        DiskError::new("name", &self.path, trouble, reason)
    }

    fn failed(&self, action: &'static str, error: &std::io::Error) -> DiskError {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
        DiskError::system(action, &self.path, errno)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn docroot() -> (tempfile::TempDir, Docroot) {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("root/sub")).unwrap();
        fs::write(top.path().join("secret"), "outside").unwrap();
        fs::write(top.path().join("root/f"), "top").unwrap();
        fs::write(top.path().join("root/sub/f"), "below").unwrap();
        let docroot = Docroot::open(&top.path().join("root")).unwrap();
        (top, docroot)
    }

    #[test]
    fn a_listing_tells_what_links_lead_to_and_nothing_outside() {
        let (top, docroot) = docroot();
        symlink("../secret", top.path().join("root/out")).unwrap();
        symlink("sub", top.path().join("root/in")).unwrap();
        let mut entries = docroot.entries(b"").unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let seen: Vec<_> =
            entries.iter().map(|entry| (entry.name.as_slice(), entry.about.kind, entry.about.link)).collect();
        assert_eq!(
            seen,
            [
                (&b"f"[..], EntryKind::File, false),
                (b"in", EntryKind::Folder, true),
                (b"out", EntryKind::Other, true),
                (b"sub", EntryKind::Folder, false)
            ]
        );
    }

    #[test]
    fn confined_to_a_folder_nothing_above_it_is_reached() {
        let (top, docroot) = docroot();
        symlink("../f", top.path().join("root/sub/up")).unwrap();
        let below = docroot.below(b"sub").unwrap();
        let mut text = String::new();
        below.read_file(b"/f").unwrap().file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "below");
        for path in [&b"../f"[..], b"/../f", b"up", b"sub/f"] {
            assert!(below.read_file(path).is_err(), "{}", path.escape_ascii());
        }
        assert!(docroot.below(b"f").is_err(), "a file is no folder");
        assert!(docroot.below(b"..").is_err());
    }

    #[test]
    fn the_version_of_a_file_changes_with_its_content() {
        let (top, docroot) = docroot();
        let before = docroot.about(b"f").unwrap();
        assert_eq!(before.version(), docroot.about(b"f").unwrap().version());
        fs::write(top.path().join("root/f"), "longer").unwrap();
        let after = docroot.about(b"f").unwrap();
        assert_ne!(before.version(), after.version());
        assert!(!before.same_content(&after));
    }

    #[test]
    fn a_growing_file_gets_its_name_at_the_end_and_replaces_nothing_unasked() {
        let (top, docroot) = docroot();
        let growing = docroot.begin_growing(b"sub", b".part").unwrap();
        growing.write_at(b"hello", 0).unwrap();
        assert_eq!(
            docroot.open_growing(b"sub", b".part").map(drop).unwrap_err().trouble,
            Trouble::PeerLost,
            "held by one request"
        );
        drop(growing);
        let growing = docroot.open_growing(b"sub", b".part").unwrap();
        assert_eq!(growing.length().unwrap(), 5);
        growing.write_at(b" world!!", 5).unwrap();
        growing.cut(11).unwrap();
        assert!(!growing.finish(b"f", Taken::Keep).unwrap(), "the name is taken");
        assert!(growing.finish(b"../g", Taken::Replace).is_err());
        assert!(growing.finish(b"g", Taken::Keep).unwrap());
        assert_eq!(fs::read_to_string(top.path().join("root/sub/g")).unwrap(), "hello world");
        assert_eq!(fs::read_to_string(top.path().join("root/sub/f")).unwrap(), "below");
        let again = docroot.begin_growing(b"sub", b".part").unwrap();
        assert!(again.finish(b"f", Taken::Replace).unwrap());
        assert_eq!(fs::read(top.path().join("root/sub/f")).unwrap(), b"");
        let folder = docroot.begin_growing(b"", b".part").unwrap();
        assert!(folder.finish(b"sub", Taken::Replace).is_err(), "a folder is never replaced");
        folder.discard().unwrap();
        assert!(!top.path().join("root/.part").exists());
    }
}
