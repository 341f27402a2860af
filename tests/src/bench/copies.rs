//! Files that are copied, and the copies: made room for, checked against their source, removed.

use std::fs;
use std::path::{Path, PathBuf};

use super::BenchError;
use super::volume::Volume;
use crate::tree::{Also, differences, make_file};

/// Makes a random file in every folder of `folders`, in memory only once.
///
/// # Errors
/// When it cannot be linked.
pub(super) fn make_source(name: &str, bytes: u64, folders: &[&Path]) -> Result<(), BenchError> {
    let Some((first, others)) = folders.split_first() else { return Ok(()) };
    make_file(&first.join(name), bytes, bytes);
    for folder in others {
        fs::hard_link(first.join(name), folder.join(name)).map_err(BenchError::io(format!("link {name}")))?;
    }
    Ok(())
}

/// Makes a tree again whose files are those of another, in memory only once.
///
/// # Errors
/// When it cannot be linked.
pub(super) fn link_tree(tree: &Path, other: &Path) -> Result<(), BenchError> {
    let link = || -> std::io::Result<()> {
        let mut pending = vec![PathBuf::new()];
        while let Some(folder) = pending.pop() {
            fs::create_dir_all(other.join(&folder))?;
            for entry in fs::read_dir(tree.join(&folder))? {
                let entry = entry?;
                let name = folder.join(entry.file_name());
                if entry.file_type()?.is_dir() {
                    pending.push(name);
                } else {
                    fs::hard_link(entry.path(), other.join(&name))?;
                }
            }
        }
        Ok(())
    };
    link().map_err(BenchError::io(format!("link {}", tree.display())))
}

/// A copy that a command is to make.
#[derive(Debug)]
pub(super) struct CopyJob<'a> {
    /// File or tree.
    pub(super) source: PathBuf,
    /// Where it is to be.
    pub(super) target: PathBuf,
    volume: &'a Volume,
    bytes: u64,
    compared: bool,
}

impl<'a> CopyJob<'a> {
    /// Not made yet; both places are on the volume.
    #[must_use]
    pub(super) fn new(volume: &'a Volume, bytes: u64, source: PathBuf, target: PathBuf) -> Self {
        Self { source, target, volume, bytes, compared: false }
    }

    /// Runs what makes it, with room prepared before, and checks and removes it afterwards.
    ///
    /// # Errors
    /// Why it failed, or how the copy differs.
    pub(super) fn make<T>(&mut self, run: impl FnOnce(&Self) -> Result<T, String>) -> Result<T, String> {
        self.clear();
        // Files of a tree take more memory than they have bytes.
        let room = if self.source.is_dir() { u64::MAX } else { self.bytes };
        let prepared = match self.target.parent() {
            Some(folder) => fs::create_dir_all(folder).and_then(|()| self.volume.release(room)),
            None => Ok(()),
        };
        prepared.map_err(|error| format!("make room for it: {error}"))?;
        let outcome = run(self);
        // What a failed run has left must go too.
        let checked = if outcome.is_ok() { self.check() } else { Ok(()) };
        self.clear();
        self.volume.refill().map_err(|error| format!("take its room back: {error}"))?;
        outcome.and_then(|outcome| checked.map(|()| outcome))
    }

    fn clear(&self) {
        let _ = fs::remove_file(&self.target);
        let _ = fs::remove_dir_all(&self.target);
    }

    /// Trees are compared every time byte by byte; of a file the first time every byte, later the size.
    fn check(&mut self) -> Result<(), String> {
        let size = |path: &Path| fs::metadata(path).map(|metadata| metadata.len()).map_err(|e| e.to_string());
        if !self.target.exists() {
            return Err("nothing arrived".to_owned());
        }
        if self.source.is_file() && self.compared {
            let (sent, arrived) = (size(&self.source)?, size(&self.target)?);
            return if sent == arrived { Ok(()) } else { Err(format!("{arrived} of {sent} bytes arrived")) };
        }
        let report = differences(&self.source, &self.target, Also::default());
        self.compared = report.is_empty();
        report.into_iter().next().map_or(Ok(()), |line| Err(format!("the copy differs: {line}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_copies_are_found_and_all_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let volume = Volume::unmounted(20_000);
        make_source("a", 5000, &[home.path()]).unwrap();
        let mut copy = CopyJob::new(&volume, 5000, at("a"), at("b"));
        assert_eq!(copy.make(|_| Ok(())).unwrap_err(), "nothing arrived");
        let wrong = copy.make(|copy| {
            make_file(&copy.target, 5000, 1);
            Ok(())
        });
        assert!(wrong.unwrap_err().contains("differs"));
        let failed: Result<(), String> = copy.make(|copy| {
            make_file(&copy.target, 5000, 1);
            Err("no".to_owned())
        });
        assert_eq!(failed.unwrap_err(), "no");
        assert!(!at("b").exists());
        copy.make(|copy| fs::copy(&copy.source, &copy.target).map_err(|error| error.to_string())).unwrap();
        let short = copy.make(|copy| {
            make_file(&copy.target, 4999, 5000);
            Ok(())
        });
        assert_eq!(short.unwrap_err(), "4999 of 5000 bytes arrived");
    }
}
