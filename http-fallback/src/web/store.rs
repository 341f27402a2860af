//! A small file of the server's own that always is whole: written beside, made durable, renamed. For what must survive a
//! restart: who is signed in, and which links are shared.

use std::fs::{File, OpenOptions, rename};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// The file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// A file of this name in a folder that only its owner may write.
    #[must_use]
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name) }
    }

    /// What was written last; the default if nothing was.
    ///
    /// # Errors
    /// If it cannot be read, others could have, or it is not what we wrote: then it must not be overwritten unseen.
    pub fn load<T: DeserializeOwned + Default>(&self) -> io::Result<T> {
        let file = match OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.mode() & 0o077 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can read it; run chmod 600"));
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        serde_json::from_slice(&bytes).map_err(io::Error::from)
    }

    /// Puts this in its place.
    ///
    /// # Errors
    /// If the disk refuses; what was there is still there.
    pub fn save<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(value)?;
        let beside = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        rename(&beside, &self.path)?;
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        File::open(folder)?.sync_all()
    }

    /// For messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_broken_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "x.json");
        assert_eq!(store.load::<Vec<u32>>().unwrap(), Vec::<u32>::new());
        store.save(&vec![1, 2]).unwrap();
        store.save(&vec![3]).unwrap();
        assert_eq!(store.load::<Vec<u32>>().unwrap(), [3]);
        assert_eq!(store.path().metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::write(store.path(), "[1, 2").unwrap();
        assert!(store.load::<Vec<u32>>().is_err());
    }
}
