//! What happens to sources that are stored at the other side: they are removed, or moved. Only what is still what was
//! sent is touched, and nothing through a link. Not here: how it is known what is stored.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use haul_proto::control::Trouble;
use haul_proto::disk::EntryFailure;
use haul_proto::range_set::RangeSet;
use nix::errno::Errno;

use super::facts::{Facts, Kind};
use super::folder::Folder;
use super::{DiskError, Docroot, join};

/// What is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After {
    /// Files are moved below this folder, to where they land at the destination; none removes them.
    pub move_to: Option<Vec<u8>>,
    /// Folders that are empty then are removed, but for the sources themselves.
    pub remove_empty_folders: bool,
    /// Sources that are empty folders then are removed.
    pub remove_empty_sources: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// Files that were removed or moved.
    pub files: u64,
    /// What could not be.
    pub failures: Vec<EntryFailure>,
}

#[derive(Debug)]
struct KeptFile {
    path: Box<[u8]>,
    /// Where it landed; kept only if it is needed.
    landed: Box<[u8]>,
    /// Hash of where it landed.
    landing: u64,
    facts: Facts,
    /// It was reached through a link to a folder.
    through_link: bool,
}

#[derive(Debug, Default)]
struct Books {
    /// By number. A tree of a million files takes some 150 MB here, which only this wish costs.
    files: Vec<KeptFile>,
    /// In the order in which they were left: what is below comes first.
    folders: Vec<(Box<[u8]>, bool)>,
    /// How many entries landed under one name, by its hash: only the last of them is there.
    landings: HashMap<u64, u32>,
}

/// The files of a walk, noted for afterwards. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    root: Docroot,
    after: After,
    books: Arc<Mutex<Books>>,
}

impl Kept {
    pub(super) fn new(root: Docroot, after: After) -> Self {
        Self { root, after, books: Arc::default() }
    }

    /// The next file of the manifest.
    pub(super) fn file(&self, path: &[u8], landed: &[u8], facts: Facts, through_link: bool) {
        let landing = self.lands(landed);
        let landed = if self.after.move_to.is_some() { landed } else { b"" };
        let file = KeptFile { path: path.into(), landed: landed.into(), landing, facts, through_link };
        self.books.lock().unwrap_or_else(PoisonError::into_inner).files.push(file);
    }

    /// An entry that is no folder lands there. Returns the hash of it.
    pub(super) fn lands(&self, landed: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        landed.hash(&mut hasher);
        let landing = hasher.finish();
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        *books.landings.entry(landing).or_default() += 1;
        landing
    }

    /// A folder whose content has been walked; the user named it, or a folder above it.
    pub(super) fn folder(&self, path: &[u8], named: bool) {
        let wanted = if named { self.after.remove_empty_sources } else { self.after.remove_empty_folders };
        if wanted || (self.after.remove_empty_sources && !named) {
            self.books.lock().unwrap_or_else(PoisonError::into_inner).folders.push((path.into(), named));
        }
    }

    /// Does what is wished for to the files of these numbers.
    pub(super) fn settle(&self, stored: &RangeSet) -> Settled {
        let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = Settled::default();
        let mut open: Option<(Box<[u8]>, Folder)> = None;
        for (number, file) in books.files.iter().enumerate() {
            if !stored.contains_all(number as u64..number as u64 + 1) {
                continue;
            }
            let alone = books.landings.get(&file.landing).is_none_or(|&count| count <= 1);
            match self.settle_file(file, alone, &mut open) {
                Ok(()) => settled.files += 1,
                Err(error) => {
                    let (trouble, message) =
                        (error.trouble, format!("it was sent; {}", error.without_path()));
                    settled.failures.push(EntryFailure { path: file.path.to_vec(), trouble, message });
                }
            }
        }
        for (path, _) in &books.folders {
            // One that is not empty stays, and so does one that is not ours to remove.
            if let Err(error) = self.remove_if_empty(path) {
                tracing::debug!(%error, "a folder stays");
            }
        }
        settled
    }

    fn settle_file(
        &self,
        file: &KeptFile,
        alone: bool,
        open: &mut Option<(Box<[u8]>, Folder)>,
    ) -> Result<(), DiskError> {
        let action = if self.after.move_to.is_some() { "move" } else { "remove" };
        let refuse = |reason: &str| Err(DiskError::new(action, &file.path, Trouble::SourceChanged, reason));
        if !alone {
            return refuse("another source landed under the same name");
        }
        if file.through_link {
            return refuse("it was reached through a symbolic link");
        }
        let (above, name) = split(&file.path);
        if open.as_ref().is_none_or(|(path, _)| **path != *above) {
            *open = Some((above.into(), self.root.open_folder(above)?));
        }
        let Some((_, folder)) = open else { return Ok(()) };
        let system = |errno| DiskError::system(action, &file.path, errno);
        let facts = folder.stat(name).map_err(system)?;
        if facts.kind == Kind::Link {
            return refuse("it is a symbolic link, and what it points to was sent");
        }
        if !facts.same_content(&file.facts) {
            return refuse("it has changed since");
        }
        match &self.after.move_to {
            None => folder.unlink(name).map_err(system),
            Some(to) => self.move_file(file, (folder, name), to),
        }
    }

    fn move_file(
        &self,
        file: &KeptFile,
        (folder, name): (&Folder, &[u8]),
        to: &[u8],
    ) -> Result<(), DiskError> {
        let landed = join(to, &file.landed);
        let (above, new_name) = split(&landed);
        let target = self.root.make_folders(above)?;
        folder.move_to(name, &target, new_name).map_err(|errno| {
            let error = DiskError::system("move", &file.path, errno);
            let reason = match errno {
                Errno::EXDEV => "the folder to move to is on another file system",
                Errno::EEXIST => "a file of its name is in the folder to move to already",
                _ => return error,
            };
            DiskError { reason: reason.to_owned(), ..error }
        })
    }

    fn remove_if_empty(&self, path: &[u8]) -> Result<(), DiskError> {
        let (above, name) = split(path);
        let folder = self.root.open_folder(above)?;
        folder.remove_folder(name).map_err(|errno| DiskError::system("remove", path, errno))
    }
}

/// The folder and the name in it.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(0) => (b"/", path.get(1..).unwrap_or_default()),
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn kept(root: &std::path::Path, after: After, files: &[&str]) -> Kept {
        let root = Docroot::open(root).unwrap();
        let kept = Kept::new(root.clone(), after);
        for path in files {
            kept.file(path.as_bytes(), path.as_bytes(), root.stat(path.as_bytes()).unwrap(), false);
        }
        kept
    }

    fn all(count: u64) -> RangeSet {
        let mut set = RangeSet::new();
        set.insert(0..count);
        set
    }

    const REMOVE: After = After { move_to: None, remove_empty_folders: true, remove_empty_sources: false };

    #[test]
    fn only_what_is_stored_and_unchanged_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir_all(at("t/empty")).unwrap();
        for name in ["t/stored", "t/failed", "t/changed", "t/empty/f", "t/real"] {
            fs::write(at(name), name).unwrap();
        }
        symlink("real", at("t/link")).unwrap();
        let kept = kept(top.path(), REMOVE, &["t/stored", "t/changed", "t/empty/f", "t/link", "t/failed"]);
        kept.folder(b"t/empty", false);
        kept.folder(b"t", true);
        fs::write(at("t/changed"), "something else").unwrap();
        let settled = kept.settle(&all(4));
        assert_eq!(settled.files, 2);
        let paths: Vec<_> = settled.failures.iter().map(|failure| failure.path.as_slice()).collect();
        assert_eq!(paths, [&b"t/changed"[..], b"t/link"]);
        for (name, there) in [
            ("t/stored", false),
            ("t/empty", false),
            ("t", true),
            ("t/failed", true),
            ("t/changed", true),
            ("t/link", true),
            ("t/real", true),
        ] {
            assert_eq!(at(name).exists(), there, "{name}");
        }
    }

    #[test]
    fn of_sources_that_landed_under_one_name_none_is_removed() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("a"), "a").unwrap();
        let kept = kept(top.path(), REMOVE, &["a"]);
        kept.lands(b"a");
        let settled = kept.settle(&all(1));
        assert!(settled.failures[0].message.contains("another source"), "{settled:?}");
        assert!(top.path().join("a").exists());
    }

    #[test]
    fn files_move_to_where_they_landed_and_replace_nothing() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        for name in ["t/d/a", "t/b", "done/t/b"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), name).unwrap();
        }
        let after = After { move_to: Some(b"done".to_vec()), ..REMOVE };
        let settled = kept(top.path(), after, &["t/d/a", "t/b"]).settle(&all(2));
        assert_eq!((settled.files, settled.failures.len()), (1, 1));
        assert!(settled.failures[0].message.contains("of its name is in the folder"));
        assert_eq!(fs::read_to_string(at("done/t/d/a")).unwrap(), "t/d/a");
        assert_eq!(fs::read_to_string(at("done/t/b")).unwrap(), "done/t/b");
        assert!(at("t/b").exists() && !at("t/d/a").exists());
    }

    #[test]
    fn paths_are_split_before_their_last_name() {
        for (path, above, name) in [("a", "", "a"), ("/a", "/", "a"), ("a/b/", "a", "b"), ("/a/b", "/a", "b")]
        {
            assert_eq!(split(path.as_bytes()), (above.as_bytes(), name.as_bytes()), "{path}");
        }
    }
}
