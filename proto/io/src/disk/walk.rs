//! The walk over the sources: it lists folders, files and links, and hands the files on to the reader. It reads no
//! content.
//!
//! In each folder the files come first, then the folders, each in the order of their bytes; so only one folder is open
//! at a time, and what the receiver stores in one folder comes together. Links that are followed are followed as far as
//! the docroot.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use haul_proto::constants::{MAX_DEPTH, MAX_LINK_TARGET_BYTES};
use haul_proto::control::{LinkMode, Trouble};
use haul_proto::layout::{Extent, Layout};
use haul_proto::manifest::{Attributes, Record, is_component};
use nix::dir::Dir;

use super::after::Kept;
use super::facts::{Facts, Kind};
use super::folder::Folder;
use super::keep::is_reserved;
use super::landing::SourceItem;
use super::{DiskError, Docroot, Filter, join};

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

/// An entry that cannot be looked at.
struct Unseen {
    error: DiskError,
    /// What is known of it if it is a link that leads nowhere.
    link: Option<Facts>,
}

/// Where the walk is.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    /// Number of the folder that holds what is looked at.
    id: u64,
    /// Its path below the docroot.
    path: &'a [u8],
    /// Its path below the destination.
    landed: &'a [u8],
}

impl Place<'_> {
    fn below(&self, name: &[u8]) -> (Vec<u8>, Vec<u8>) {
        (join(self.path, name), join(self.landed, name))
    }
}

pub(super) struct Walker<N> {
    root: Docroot,
    filter: Filter,
    /// Where it is noted what to do something about afterwards.
    kept: Option<Kept>,
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
    /// How many of them were entered through a link.
    links_above: usize,
    /// Numbers of the folders that were listed for the sake of what lands in them.
    landings: HashMap<Vec<u8>, u64>,
}

impl<N: Fn()> Walker<N> {
    pub(super) fn new(
        root: Docroot,
        (filter, kept): (Filter, Option<Kept>),
        (records, reader): (SyncSender<Record>, SyncSender<Listed>),
        stop: Arc<AtomicBool>,
        notify: N,
    ) -> Self {
        Self {
            root,
            filter,
            kept,
            records,
            reader,
            stop,
            notify,
            layout: Layout::default(),
            files: 0,
            folders: 0,
            bytes: 0,
            above: Vec::new(),
            links_above: 0,
            landings: HashMap::new(),
        }
    }

    /// Lists everything, then ends.
    pub(super) fn run(mut self, items: &[SourceItem]) {
        // Stopping early is no failure: whoever dropped the source knows why.
        let _ = items.iter().try_for_each(|item| self.source(item)).and_then(|()| self.end());
    }

    fn end(&self) -> Result<(), Stopped> {
        self.emit(Record::End { files: self.files, folders: self.folders, bytes: self.bytes })
    }

    fn source(&mut self, item: &SourceItem) -> Result<(), Stopped> {
        let path = item.path.as_slice();
        let look = if self.filter.links() == LinkMode::Follow { Docroot::stat } else { Docroot::stat_itself };
        let facts = match look(&self.root, path) {
            Ok(facts) => facts,
            Err(error) => return self.skip(path, &error),
        };
        self.links_above = usize::from(facts.kind == Kind::Folder && self.is_link(path));
        let target = item.target.clone().or_else(|| self.root.last_name(path)).unwrap_or_default();
        let split = target.iter().rposition(|&byte| byte == b'/');
        let (above, name) = match split {
            Some(slash) => (target.get(..slash), target.get(slash + 1..)),
            None => (Some(&[][..]), Some(target.as_slice())),
        };
        let (above, name) = (above.unwrap_or_default(), name.unwrap_or_default());
        match facts.kind {
            Kind::Folder if name.is_empty() => self.contents(path, facts),
            // The folder that the user names is entered whatever the rules say.
            Kind::Folder => {
                let parent = self.landing(above, item.base.as_deref())?;
                self.folder(parent, name.to_vec(), path, &target)?;
                self.note_folder(path, true);
                Ok(())
            }
            Kind::File | Kind::Link if name.is_empty() || !self.filter.takes(&target, &facts) => Ok(()),
            Kind::File => {
                let parent = self.landing(above, item.base.as_deref())?;
                self.file(parent, name.to_vec(), (path.to_vec(), &target), facts)
            }
            Kind::Link => match self.root.read_link(path) {
                Ok(_) if self.filter.links() == LinkMode::Skip => Ok(()),
                Ok(text) => {
                    let parent = self.landing(above, item.base.as_deref())?;
                    self.link(parent, name.to_vec(), (path, &target), (text, &facts))
                }
                Err(error) => self.skip(path, &error),
            },
            Kind::Special => self.special(path),
        }
    }

    /// The docroot itself, or the base: what is in it lands at the destination.
    fn contents(&mut self, path: &[u8], facts: Facts) -> Result<(), Stopped> {
        match self.root.open_folder(path).and_then(|folder| Ok((list(&folder, path)?, folder))) {
            Ok((listing, folder)) => {
                self.children(folder, listing, Place { id: 0, path, landed: b"" }, facts.identity)
            }
            Err(error) => self.skip(path, &error),
        }
    }

    /// The number of the folder at `landed`, which is listed with those above it if it has not been yet. Below a base
    /// they are what they are there; otherwise the source knows nothing about them.
    fn landing(&mut self, landed: &[u8], base: Option<&[u8]>) -> Result<u64, Stopped> {
        if landed.is_empty() {
            return Ok(0);
        }
        if let Some(&id) = self.landings.get(landed) {
            return Ok(id);
        }
        let mut parent = 0;
        let ends = landed.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut start = 0;
        for end in ends.chain([landed.len()]) {
            let (so_far, name) = (landed.get(..end), landed.get(start..end));
            let (so_far, name) = (so_far.unwrap_or_default(), name.unwrap_or_default());
            start = end + 1;
            parent = match self.landings.get(so_far) {
                Some(&id) => id,
                None => self.land(parent, name, so_far, base)?,
            };
        }
        Ok(parent)
    }

    fn land(&mut self, parent: u64, name: &[u8], landed: &[u8], base: Option<&[u8]>) -> Result<u64, Stopped> {
        let real = base.and_then(|base| self.root.stat(&join(base, landed)).ok());
        let attributes = real.map_or(Attributes::UNTOLD, |facts| facts.attributes());
        self.folders += 1;
        self.emit(Record::Folder { parent, name: name.to_vec(), attributes })?;
        self.landings.insert(landed.to_vec(), self.folders);
        Ok(self.folders)
    }

    fn folder(&mut self, parent: u64, name: Vec<u8>, path: &[u8], landed: &[u8]) -> Result<(), Stopped> {
        let opened = self.root.open_folder(path).and_then(|folder| {
            let facts = folder.facts().map_err(|errno| DiskError::system("read", path, errno))?;
            self.check_descent(path, landed, facts.identity)?;
            // Before it is listed as a folder: one that cannot be read is a failure, not an empty folder.
            Ok((list(&folder, path)?, folder, facts))
        });
        match opened {
            Ok((listing, folder, facts)) => {
                self.folders += 1;
                let id = self.folders;
                self.emit(Record::Folder { parent, name, attributes: facts.attributes() })?;
                self.children(folder, listing, Place { id, path, landed }, facts.identity)
            }
            Err(error) => self.skip(path, &error),
        }
    }

    fn check_descent(&self, path: &[u8], landed: &[u8], identity: (u64, u64)) -> Result<(), DiskError> {
        if self.above.contains(&identity) {
            let reason = "it is a symbolic link to a folder that holds it";
            return Err(DiskError::new("send", path, Trouble::WrongKind, reason));
        }
        if landed.iter().filter(|&&byte| byte == b'/').count() >= MAX_DEPTH as usize {
            return Err(DiskError::new("send", path, Trouble::Limit, "it is more than 256 folders deep"));
        }
        Ok(())
    }

    fn children(
        &mut self,
        folder: Folder,
        listing: Dir,
        place: Place<'_>,
        identity: (u64, u64),
    ) -> Result<(), Stopped> {
        let mut below = Vec::new();
        self.entries(&folder, listing, place, &mut below)?;
        drop(folder);
        below.sort_unstable();
        self.above.push(identity);
        for name in below {
            let (path, landed) = place.below(&name);
            let link = usize::from(self.is_link(&path));
            self.links_above += link;
            self.folder(place.id, name, &path, &landed)?;
            self.note_folder(&path, false);
            self.links_above -= link;
        }
        self.above.pop();
        Ok(())
    }

    fn entries(
        &mut self,
        folder: &Folder,
        listing: Dir,
        place: Place<'_>,
        below: &mut Vec<Vec<u8>>,
    ) -> Result<(), Stopped> {
        let mut names = Vec::new();
        for entry in listing {
            match entry {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => names.push(entry.file_name().to_bytes().to_vec()),
                Err(errno) => {
                    self.skip(place.path, &DiskError::system("read", place.path, errno))?;
                    break;
                }
            }
            if names.len() == NAMES_SORTED {
                self.run_of_names(folder, &mut names, place, below)?;
            }
        }
        self.run_of_names(folder, &mut names, place, below)
    }

    fn run_of_names(
        &mut self,
        folder: &Folder,
        names: &mut Vec<Vec<u8>>,
        place: Place<'_>,
        below: &mut Vec<Vec<u8>>,
    ) -> Result<(), Stopped> {
        names.sort_unstable();
        for name in names.drain(..) {
            if is_reserved(&name) {
                tracing::debug!(name = %name.escape_ascii(), "left out: it belongs to an unfinished file");
                continue;
            }
            let (path, landed) = place.below(&name);
            let facts = match self.look(folder, &name, &path) {
                Ok(facts) => facts,
                // What the rules leave out anyway is no failure.
                Err(unseen) if unseen.link.is_some_and(|link| !self.filter.takes(&landed, &link)) => continue,
                Err(unseen) => {
                    self.skip(&path, &unseen.error)?;
                    continue;
                }
            };
            if !self.filter.takes(&landed, &facts) {
                continue;
            }
            match facts.kind {
                Kind::File => self.file(place.id, name, (path, &landed), facts)?,
                Kind::Folder => below.push(name),
                Kind::Link if self.filter.links() == LinkMode::Skip => {}
                Kind::Link => match folder.read_link(&name) {
                    Ok(text) => self.link(place.id, name, (&path, &landed), (text, &facts))?,
                    Err(errno) => self.skip(&path, &DiskError::system("read the link", &path, errno))?,
                },
                Kind::Special => self.special(&path)?,
            }
        }
        Ok(())
    }

    /// What the entry is; a link is followed if links are.
    fn look(&self, folder: &Folder, name: &[u8], path: &[u8]) -> Result<Facts, Box<Unseen>> {
        if !is_component(name) {
            let error = DiskError::new("send", path, Trouble::Limit, "its name exceeds 255 bytes");
            return Err(Box::new(Unseen { error, link: None }));
        }
        match folder.stat(name) {
            Ok(facts) if facts.kind == Kind::Link && self.filter.links() == LinkMode::Follow => {
                self.root.stat(path).map_err(|error| Box::new(Unseen { error, link: Some(facts) }))
            }
            Ok(facts) => Ok(facts),
            Err(errno) => {
                let error = DiskError::system("read", path, errno);
                Err(Box::new(Unseen { error, link: None }))
            }
        }
    }

    /// Whether a folder is entered through a link, as far as that matters.
    fn is_link(&self, path: &[u8]) -> bool {
        self.kept.is_some()
            && self.filter.links() == LinkMode::Follow
            && self.root.stat_itself(path).is_ok_and(|facts| facts.kind == Kind::Link)
    }

    fn note_folder(&self, path: &[u8], named: bool) {
        if let Some(kept) = self.kept.as_ref().filter(|_| self.links_above == 0) {
            kept.folder(path, named);
        }
    }

    fn file(
        &mut self,
        parent: u64,
        name: Vec<u8>,
        (path, landed): (Vec<u8>, &[u8]),
        facts: Facts,
    ) -> Result<(), Stopped> {
        let Some(extent) = self.layout.push(facts.size) else {
            let reason = "one transfer carries at most 2^48 bytes";
            return self.skip(&path, &DiskError::new("send", &path, Trouble::Limit, reason));
        };
        // Only the reader and the other side ask where blocks end.
        self.layout.forget_below(self.layout.settled_blocks());
        self.files += 1;
        self.bytes += facts.size;
        if let Some(kept) = &self.kept {
            kept.file(&path, landed, facts, self.links_above > 0);
        }
        let record = Record::File { parent, name, size: facts.size, attributes: facts.attributes() };
        self.reader.send(Listed { path, facts, extent }).map_err(|_| Stopped)?;
        self.emit(record)
    }

    fn link(
        &self,
        parent: u64,
        name: Vec<u8>,
        (path, landed): (&[u8], &[u8]),
        (target, facts): (Vec<u8>, &Facts),
    ) -> Result<(), Stopped> {
        if target.len() > MAX_LINK_TARGET_BYTES {
            let reason = "the link's text exceeds 3700 bytes";
            return self.skip(path, &DiskError::new("send", path, Trouble::Limit, reason));
        }
        if let Some(kept) = &self.kept {
            kept.lands(landed);
        }
        let replaces_file = self.filter.links() == LinkMode::CopyForce;
        self.emit(Record::Link { parent, name, target, replaces_file, attributes: facts.attributes() })
    }

    fn special(&self, path: &[u8]) -> Result<(), Stopped> {
        if self.filter.skips_special() {
            return Ok(());
        }
        let reason = "it is a device, a pipe or a socket, neither a file nor a folder";
        self.skip(path, &DiskError::new("send", path, Trouble::WrongKind, reason))
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
