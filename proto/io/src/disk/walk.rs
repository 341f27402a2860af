//! The walk over the sources: it lists folders and files, and hands the files on to the reader. It reads no content.
//!
//! In each folder the files come first, then the folders, each in the order of their bytes; so only one folder is open
//! at a time, and what the receiver stores in one folder comes together. Links are followed as far as the docroot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use haul_proto::constants::MAX_DEPTH;
use haul_proto::control::Trouble;
use haul_proto::layout::{Extent, Layout};
use haul_proto::manifest::{Record, is_component};
use nix::dir::Dir;

use super::facts::{Facts, Kind};
use super::folder::Folder;
use super::{DiskError, Docroot, join};

/// Names of a folder that are sorted together. A larger folder comes in several such runs, so that it takes no more
/// memory.
const NAMES_SORTED: usize = 65_536;

/// A file that was listed.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Its path below the docroot.
    pub(super) path: Vec<u8>,
    /// What it was when it was listed.
    pub(super) facts: Facts,
    /// Where its content stands.
    pub(super) extent: Extent,
}

/// Nobody wants the list any more.
struct Stopped;

pub(super) struct Walker<N> {
    root: Docroot,
    records: SyncSender<Record>,
    reader: SyncSender<Listed>,
    stop: Arc<AtomicBool>,
    notify: N,
    layout: Layout,
    files: u64,
    folders: u64,
    bytes: u64,
    /// The folders that hold the one being walked; a link to one of them would never end.
    above: Vec<(u64, u64)>,
}

impl<N: Fn()> Walker<N> {
    pub(super) fn new(
        root: Docroot,
        records: SyncSender<Record>,
        reader: SyncSender<Listed>,
        stop: Arc<AtomicBool>,
        notify: N,
    ) -> Self {
        let layout = Layout::default();
        Self {
            root,
            records,
            reader,
            stop,
            notify,
            layout,
            files: 0,
            folders: 0,
            bytes: 0,
            above: Vec::new(),
        }
    }

    /// Lists everything, then ends.
    pub(super) fn run(mut self, paths: &[Vec<u8>]) {
        // Stopping early is no failure: whoever dropped the source knows why.
        let _ = paths.iter().try_for_each(|path| self.source(path)).and_then(|()| self.end());
    }

    fn end(&self) -> Result<(), Stopped> {
        self.emit(Record::End { files: self.files, folders: self.folders, bytes: self.bytes })
    }

    fn source(&mut self, path: &[u8]) -> Result<(), Stopped> {
        let facts = match self.root.stat(path) {
            Ok(facts) => facts,
            Err(error) => return self.skip(path, &error),
        };
        match (facts.kind, self.root.last_name(path)) {
            (Kind::File, Some(name)) => self.file(0, name, path.to_vec(), facts),
            (Kind::Folder, Some(name)) => self.folder(0, name, path),
            (Kind::Folder, None) => {
                match self.root.open_folder(path).and_then(|folder| Ok((list(&folder, path)?, folder))) {
                    Ok((listing, folder)) => self.children(folder, listing, (0, path), facts.identity),
                    Err(error) => self.skip(path, &error),
                }
            }
            _ => self.skip_special(path),
        }
    }

    fn folder(&mut self, parent: u64, name: Vec<u8>, path: &[u8]) -> Result<(), Stopped> {
        let opened = self.root.open_folder(path).and_then(|folder| {
            let facts = folder.facts().map_err(|errno| DiskError::system("read", path, errno))?;
            self.check_descent(path, facts.identity)?;
            // Before it is listed as a folder: one that cannot be read is a failure, not an empty folder.
            Ok((list(&folder, path)?, folder, facts))
        });
        match opened {
            Ok((listing, folder, facts)) => {
                self.folders += 1;
                self.emit(Record::Folder { parent, name, attributes: facts.attributes() })?;
                self.children(folder, listing, (self.folders, path), facts.identity)
            }
            Err(error) => self.skip(path, &error),
        }
    }

    fn check_descent(&self, path: &[u8], identity: (u64, u64)) -> Result<(), DiskError> {
        if self.above.contains(&identity) {
            let reason = "it is a symbolic link to a folder that holds it";
            return Err(DiskError::new("send", path, Trouble::WrongKind, reason));
        }
        if self.above.len() >= MAX_DEPTH as usize {
            return Err(DiskError::new("send", path, Trouble::Limit, "it is more than 256 folders deep"));
        }
        Ok(())
    }

    fn children(
        &mut self,
        folder: Folder,
        listing: Dir,
        (id, path): (u64, &[u8]),
        identity: (u64, u64),
    ) -> Result<(), Stopped> {
        let mut below = Vec::new();
        self.entries(&folder, listing, (id, path), &mut below)?;
        drop(folder);
        below.sort_unstable();
        // The docroot without a name is not a level of the manifest.
        if id > 0 {
            self.above.push(identity);
        }
        for name in below {
            let path = join(path, &name);
            self.folder(id, name, &path)?;
        }
        if id > 0 {
            self.above.pop();
        }
        Ok(())
    }

    fn entries(
        &mut self,
        folder: &Folder,
        listing: Dir,
        (id, path): (u64, &[u8]),
        below: &mut Vec<Vec<u8>>,
    ) -> Result<(), Stopped> {
        let mut names = Vec::new();
        for entry in listing {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => names.push(entry.file_name().to_bytes().to_vec()),
                Err(errno) => {
                    self.skip(path, &DiskError::system("read", path, errno))?;
                    break;
                }
            }
            if names.len() == NAMES_SORTED {
                self.run_of_names(folder, &mut names, (id, path), below)?;
            }
        }
        self.run_of_names(folder, &mut names, (id, path), below)
    }

    fn run_of_names(
        &mut self,
        folder: &Folder,
        names: &mut Vec<Vec<u8>>,
        (id, path): (u64, &[u8]),
        below: &mut Vec<Vec<u8>>,
    ) -> Result<(), Stopped> {
        names.sort_unstable();
        for name in names.drain(..) {
            let path = join(path, &name);
            match self.look(folder, &name, &path) {
                Ok(facts) => match facts.kind {
                    Kind::File => self.file(id, name, path, facts)?,
                    Kind::Folder => below.push(name),
                    Kind::Link | Kind::Special => self.skip_special(&path)?,
                },
                Err(error) => self.skip(&path, &error)?,
            }
        }
        Ok(())
    }

    /// What the entry is; a link is followed.
    fn look(&self, folder: &Folder, name: &[u8], path: &[u8]) -> Result<Facts, DiskError> {
        if !is_component(name) {
            return Err(DiskError::new("send", path, Trouble::Limit, "its name exceeds 255 bytes"));
        }
        match folder.stat(name) {
            Ok(Facts { kind: Kind::Link, .. }) => self.root.stat(path),
            Ok(facts) => Ok(facts),
            Err(errno) => Err(DiskError::system("read", path, errno)),
        }
    }

    fn file(&mut self, parent: u64, name: Vec<u8>, path: Vec<u8>, facts: Facts) -> Result<(), Stopped> {
        let Some(extent) = self.layout.push(facts.size) else {
            let reason = "one transfer carries at most 2^48 bytes";
            return self.skip(&path, &DiskError::new("send", &path, Trouble::Limit, reason));
        };
        // Only the reader and the other side ask where blocks end.
        self.layout.forget_below(self.layout.settled_blocks());
        self.files += 1;
        self.bytes += facts.size;
        let record = Record::File { parent, name, size: facts.size, attributes: facts.attributes() };
        self.reader.send(Listed { path, facts, extent }).map_err(|_| Stopped)?;
        self.emit(record)
    }

    fn skip_special(&self, path: &[u8]) -> Result<(), Stopped> {
        self.skip(
            path,
            &DiskError::new("send", path, Trouble::WrongKind, "it is neither a file nor a folder"),
        )
    }

    fn skip(&self, path: &[u8], error: &DiskError) -> Result<(), Stopped> {
        self.emit(Record::Skipped {
            path: path.to_vec(),
            trouble: error.trouble,
            message: error.without_path(),
        })
    }

    fn emit(&self, record: Record) -> Result<(), Stopped> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Stopped);
        }
        self.records.send(record).map_err(|_| Stopped)?;
        (self.notify)();
        Ok(())
    }
}

fn list(folder: &Folder, path: &[u8]) -> Result<Dir, DiskError> {
    folder.list().map_err(|errno| DiskError::system("read", path, errno))
}
