//! A folder as a ZIP archive, stored without compression: its length is known before the first byte is sent, so that a
//! browser can show progress and notice an archive that was cut. After PKWARE's APPNOTE 6.3.10.
//!
//! Sizes stand in the local headers; the CRC, which is known only after the content, follows it in a data descriptor.
//! A file that changes between the plan and its turn breaks the archive off: a cut download is noticed, a wrong one not.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use crc32fast::Hasher;
use haul_io::disk::browse::{About, EntryKind, OpenFile};
use haul_io::disk::{DiskError, Docroot};

use super::body::Source;
use super::date::Moment;
use super::disposition::safe_name;
use super::listing::joined;
use super::upload::is_partial;

/// Entries and bytes of names of one archive; a larger tree is refused before anything is sent.
const MAX_ENTRIES: usize = 200_000;
const MAX_NAME_BYTES: usize = 64 << 20;
const MAX_DEPTH: usize = 128;

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// From here on a size or place needs the fields of ZIP64.
const LIMIT_32: u64 = 0xffff_ffff;
const LIMIT_16: usize = 0xffff;

/// Bit 3: a data descriptor follows; bit 11: the name is UTF-8 (APPNOTE 4.4.4).
const FLAGS: u16 = 1 << 3 | 1 << 11;
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
/// Made by Unix.
const UNIX: u16 = 3 << 8;

/// The entry that names what could not be taken along.
const LEFT_OUT: &str = "NOT IN THIS ARCHIVE.txt";

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    /// The folder cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// More than can be planned.
    #[error("the folder holds more than {MAX_ENTRIES} entries or is deeper than {MAX_DEPTH}")]
    TooLarge,
}

/// What an archive will hold, with its exact length.
#[derive(Debug)]
pub struct Plan {
    docroot: Docroot,
    items: Vec<Item>,
    length: u64,
}

#[derive(Debug)]
struct Item {
    /// In the archive.
    name: String,
    content: Content,
    size: u64,
    modified: i64,
    mode: u32,
    /// Of its local header.
    at: u64,
}

#[derive(Debug)]
enum Content {
    Folder,
    File { path: Vec<u8>, about: About },
    Text(Arc<str>),
}

impl Plan {
    /// Looks through a folder. Links to files inside are taken along as files; links to folders are not followed.
    /// What cannot be read is named in an entry of its own.
    ///
    /// # Errors
    /// If the folder itself cannot be listed, or there is too much in it.
    pub fn new(docroot: Docroot, path: &[u8], top: &str) -> Result<Self, ZipError> {
        let mut walk = Walk {
            docroot: &docroot,
            items: Vec::new(),
            names: HashSet::new(),
            bytes: 0,
            left_out: Vec::new(),
        };
        let about = docroot.about(path)?;
        let top = walk.name("", top.as_bytes());
        walk.add(Item::folder(&top, &about))?;
        walk.folder(path, &top, 0)?;
        let Walk { mut items, left_out, .. } = walk;
        if !left_out.is_empty() {
            items.push(left_out_note(&top, &left_out, about.modified_s));
        }
        let mut at = 0;
        for item in &mut items {
            item.at = at;
            at += item.local_length() + item.size;
        }
        let directory: u64 = items.iter().map(Item::central_length).sum();
        let length = at + directory + End { count: items.len(), at, length: directory }.length();
        Ok(Self { docroot, items, length })
    }

    /// Bytes of the archive.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The archive, piece by piece.
    #[must_use]
    pub fn archive(self) -> Archive {
        let checksums = Vec::with_capacity(self.items.len());
        Archive { plan: self, checksums, item: 0, open: None, central: 0, at: 0, ended: false }
    }
}

fn left_out_note(top: &str, left_out: &[String], modified: i64) -> Item {
    let text = format!(
        "These entries of the folder are not in the archive: they cannot be read, or are links to folders, links that\r\n\
         lead nowhere, or no files.\r\n\r\n{}\r\n",
        left_out.join("\r\n")
    );
    Item {
        name: format!("{top}{LEFT_OUT}"),
        size: text.len() as u64,
        content: Content::Text(text.into()),
        modified,
        mode: 0o644,
        at: 0,
    }
}

struct Walk<'d> {
    docroot: &'d Docroot,
    items: Vec<Item>,
    names: HashSet<String>,
    bytes: usize,
    left_out: Vec<String>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &[u8], below: &str, depth: usize) -> Result<(), ZipError> {
        let mut entries = self.docroot.entries(path)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        for entry in entries.into_iter().filter(|entry| !is_partial(&entry.name)) {
            let (here, about) = (joined(path, &entry.name), entry.about);
            let usable = !(about.link && about.kind == EntryKind::Folder);
            if !usable || !self.docroot.is_readable(&here, about.kind) {
                self.bytes += below.len() + entry.name.len();
                if self.left_out.len() >= MAX_ENTRIES || self.bytes > MAX_NAME_BYTES {
                    return Err(ZipError::TooLarge);
                }
                self.left_out.push(format!("{below}{}", safe_name(&entry.name)));
                continue;
            }
            let name = self.name(below, &entry.name);
            match about.kind {
                EntryKind::File => self.add(Item {
                    name,
                    content: Content::File { path: here, about },
                    size: about.size,
                    modified: about.modified_s,
                    mode: about.mode,
                    at: 0,
                })?,
                EntryKind::Folder if depth < MAX_DEPTH => {
                    let name = format!("{name}/");
                    self.add(Item::folder(&name, &about))?;
                    self.folder(&here, &name, depth + 1)?;
                }
                EntryKind::Folder => return Err(ZipError::TooLarge),
                EntryKind::Other => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, item: Item) -> Result<(), ZipError> {
        self.bytes += item.name.len();
        if self.items.len() >= MAX_ENTRIES || self.bytes > MAX_NAME_BYTES || item.name.len() > LIMIT_16 {
            return Err(ZipError::TooLarge);
        }
        self.items.push(item);
        Ok(())
    }

    /// A name that harms no program that unpacks: no separators, nothing that hides or reorders text, and no name twice.
    fn name(&mut self, below: &str, name: &[u8]) -> String {
        let mut safe = format!("{below}{}", safe_name(name));
        let mut number = 1;
        while !self.names.insert(safe.clone()) {
            number += 1;
            safe = format!("{below}{} ({number})", safe_name(name));
        }
        if below.is_empty() { format!("{safe}/") } else { safe }
    }
}

impl Item {
    fn folder(name: &str, about: &About) -> Self {
        Self {
            name: name.to_owned(),
            content: Content::Folder,
            size: 0,
            modified: about.modified_s,
            mode: about.mode,
            at: 0,
        }
    }

    const fn is_folder(&self) -> bool {
        matches!(self.content, Content::Folder)
    }

    const fn is_large(&self) -> bool {
        self.size >= LIMIT_32
    }

    /// Local header and data descriptor.
    fn local_length(&self) -> u64 {
        let descriptor = match (self.is_folder(), self.is_large()) {
            (true, _) => 0,
            (false, false) => 16,
            (false, true) => 24,
        };
        30 + self.name.len() as u64 + 9 + if self.is_large() { 20 } else { 0 } + descriptor
    }

    fn central_length(&self) -> u64 {
        let wide = if self.central_extra().is_empty() { 0 } else { 4 + self.central_extra().len() as u64 };
        46 + self.name.len() as u64 + 9 + wide
    }

    /// Fields of ZIP64 that the central directory needs for this one, in the order that APPNOTE 4.5.3 gives.
    fn central_extra(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        if self.is_large() {
            fields.extend([self.size.to_le_bytes(), self.size.to_le_bytes()].concat());
        }
        if self.at >= LIMIT_32 {
            fields.extend(self.at.to_le_bytes());
        }
        fields
    }

    /// The time in UTC, which the DOS fields cannot tell (Info-ZIP's extended timestamp).
    fn timestamp(&self) -> Vec<u8> {
        let seconds =
            i32::try_from(self.modified).unwrap_or(if self.modified < 0 { i32::MIN } else { i32::MAX });
        [&b"UT"[..], &5_u16.to_le_bytes(), &[1], &seconds.to_le_bytes()].concat()
    }

    /// What both headers have in common, from the version that is needed to the CRC.
    fn common(&self, wide: bool, crc: u32) -> Vec<u8> {
        let (date, time) = Moment::new(self.modified).dos();
        let version = if wide { VERSION_64 } else { VERSION };
        // A folder has no content that a descriptor would have to follow.
        let flags = if self.is_folder() { 1 << 11 } else { FLAGS };
        [version.to_le_bytes(), u16::to_le_bytes(flags), [0, 0], time.to_le_bytes(), date.to_le_bytes()]
            .concat()
            .into_iter()
            .chain(crc.to_le_bytes())
            .chain(clamped(self.size).to_le_bytes())
            .chain(clamped(self.size).to_le_bytes())
            .chain(u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_le_bytes())
            .collect()
    }

    fn local_header(&self) -> Vec<u8> {
        let mut extra = Vec::new();
        if self.is_large() {
            extra.extend([&1_u16.to_le_bytes()[..], &16_u16.to_le_bytes()].concat());
            extra.extend([self.size.to_le_bytes(), self.size.to_le_bytes()].concat());
        }
        extra.extend(self.timestamp());
        let mut header = b"PK\x03\x04".to_vec();
        header.extend(self.common(self.is_large(), 0));
        header.extend(u16::try_from(extra.len()).unwrap_or(0).to_le_bytes());
        header.extend(self.name.as_bytes());
        header.extend(extra);
        header
    }

    fn descriptor(&self, crc: u32) -> Vec<u8> {
        if self.is_folder() {
            return Vec::new();
        }
        let mut bytes = b"PK\x07\x08".to_vec();
        bytes.extend(crc.to_le_bytes());
        if self.is_large() {
            bytes.extend([self.size.to_le_bytes(), self.size.to_le_bytes()].concat());
        } else {
            bytes.extend([clamped(self.size).to_le_bytes(), clamped(self.size).to_le_bytes()].concat());
        }
        bytes
    }

    fn central_header(&self, crc: u32) -> Vec<u8> {
        let fields = self.central_extra();
        let wide = !fields.is_empty();
        let mut extra = Vec::new();
        if wide {
            extra.extend(1_u16.to_le_bytes());
            extra.extend(u16::try_from(fields.len()).unwrap_or(0).to_le_bytes());
            extra.extend(fields);
        }
        extra.extend(self.timestamp());
        let kind = if self.is_folder() { 0o040_000 } else { 0o100_000 };
        let attributes = (kind | (self.mode & 0o777)) << 16 | if self.is_folder() { 0x10 } else { 0 };
        let mut header = b"PK\x01\x02".to_vec();
        header.extend((UNIX | if wide { VERSION_64 } else { VERSION }).to_le_bytes());
        header.extend(self.common(wide, crc));
        header.extend(u16::try_from(extra.len()).unwrap_or(0).to_le_bytes());
        // No comment, the first disk, no internal attributes.
        header.extend([0; 6]);
        header.extend(attributes.to_le_bytes());
        header.extend(clamped(self.at).to_le_bytes());
        header.extend(self.name.as_bytes());
        header.extend(extra);
        header
    }
}

/// All ones tell that the ZIP64 field holds the value.
fn clamped(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The end of the central directory.
struct End {
    count: usize,
    /// Where the directory begins.
    at: u64,
    length: u64,
}

impl End {
    const fn is_wide(&self) -> bool {
        self.count >= LIMIT_16 || self.at >= LIMIT_32 || self.length >= LIMIT_32
    }

    const fn length(&self) -> u64 {
        if self.is_wide() { 56 + 20 + 22 } else { 22 }
    }

    fn record(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.is_wide() {
            let count = (self.count as u64).to_le_bytes();
            bytes.extend(b"PK\x06\x06");
            bytes.extend(44_u64.to_le_bytes());
            bytes.extend((UNIX | VERSION_64).to_le_bytes());
            bytes.extend(VERSION_64.to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend([count, count, self.length.to_le_bytes(), self.at.to_le_bytes()].concat());
            bytes.extend(b"PK\x06\x07");
            bytes.extend([0; 4]);
            bytes.extend((self.at + self.length).to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
        }
        let count = u16::try_from(self.count).unwrap_or(u16::MAX).to_le_bytes();
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0; 4]);
        bytes.extend([count, count].concat());
        bytes.extend(clamped(self.length).to_le_bytes());
        bytes.extend(clamped(self.at).to_le_bytes());
        bytes.extend([0; 2]);
        bytes
    }
}

/// An archive that is being written.
#[derive(Debug)]
pub struct Archive {
    plan: Plan,
    /// Of the items before `item`.
    checksums: Vec<u32>,
    item: usize,
    open: Option<Open>,
    /// Next entry of the central directory.
    central: usize,
    at: u64,
    ended: bool,
}

/// The content of the item that is being written.
#[derive(Debug)]
struct Open {
    file: OpenFile,
    at: u64,
    crc: Hasher,
}

impl Source for Archive {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::with_capacity(PIECE + (64 << 10));
        while piece.len() < PIECE && !self.ended {
            self.step(&mut piece)?;
        }
        self.at += piece.len() as u64;
        if self.ended && self.at != self.plan.length {
            return Err(io::Error::other("the archive is not as long as it was planned"));
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

impl Archive {
    fn step(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        if self.open.is_some() {
            return self.go_on(piece);
        }
        if let Some(item) = self.plan.items.get(self.item) {
            piece.extend(item.local_header());
            match &item.content {
                Content::Folder => self.close(piece, 0),
                Content::Text(text) => {
                    piece.extend(text.as_bytes());
                    let crc = crc32fast::hash(text.as_bytes());
                    self.close(piece, crc);
                }
                Content::File { path, about } => {
                    let file = self.plan.docroot.read_file(path).map_err(io::Error::other)?;
                    if !file.about.same_content(about) {
                        return Err(io::Error::other("a file changed since the archive was planned"));
                    }
                    self.open = Some(Open { file, at: 0, crc: Hasher::new() });
                }
            }
            return Ok(());
        }
        if let (Some(item), Some(crc)) = (self.plan.items.get(self.central), self.checksums.get(self.central))
        {
            piece.extend(item.central_header(*crc));
            self.central += 1;
            return Ok(());
        }
        let items = &self.plan.items;
        let length: u64 = items.iter().map(Item::central_length).sum();
        let at = self.at + piece.len() as u64 - length;
        piece.extend(End { count: items.len(), at, length }.record());
        self.ended = true;
        Ok(())
    }

    fn go_on(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        let (Some(open), Some(item)) = (&mut self.open, self.plan.items.get(self.item)) else {
            return Ok(());
        };
        let left = usize::try_from(item.size - open.at).unwrap_or(usize::MAX);
        let begin = piece.len();
        piece.resize(begin + left.min(PIECE.saturating_sub(begin)), 0);
        let into = piece.get_mut(begin..).unwrap_or_default();
        open.file.file.read_exact_at(into, open.at)?;
        open.crc.update(into);
        open.at += into.len() as u64;
        if open.at < item.size {
            return Ok(());
        }
        if !open.file.about.same_content(&open.file.about_now()?) {
            return Err(io::Error::other("a file changed while it was packed"));
        }
        let crc = open.crc.clone().finalize();
        self.open = None;
        self.close(piece, crc);
        Ok(())
    }

    fn close(&mut self, piece: &mut Vec<u8>, crc: u32) {
        if let Some(item) = self.plan.items.get(self.item) {
            piece.extend(item.descriptor(crc));
        }
        self.checksums.push(crc);
        self.item += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn collect(mut archive: Archive) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(piece) = archive.next()? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn tree() -> (tempfile::TempDir, Docroot) {
        let top = tempfile::tempdir().unwrap();
        let root = top.path();
        fs::create_dir_all(root.join("Größe/empty")).unwrap();
        fs::write(root.join("Größe/a.txt"), "hello").unwrap();
        fs::write(root.join("Größe/none"), "").unwrap();
        fs::write(root.join("big"), vec![7; 2 * PIECE + 3]).unwrap();
        fs::write(root.join("back\\slash"), "1").unwrap();
        fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "2").unwrap();
        fs::write(root.join("\u{fffd}"), "3").unwrap();
        symlink("big", root.join("link")).unwrap();
        symlink("Größe", root.join("loop")).unwrap();
        symlink("/etc/passwd", root.join("out")).unwrap();
        let docroot = Docroot::open(root).unwrap();
        (top, docroot)
    }

    #[test]
    fn an_archive_is_as_long_as_announced_and_unzip_finds_no_fault() {
        let (_top, docroot) = tree();
        let plan = Plan::new(docroot, b"", "results").unwrap();
        let length = plan.length();
        let bytes = collect(plan.archive()).unwrap();
        assert_eq!(bytes.len() as u64, length);
        let names: Vec<_> =
            ["results/Größe/a.txt", "results/back_slash", "results/\u{fffd} (2)", "results/link"].into();
        for name in names {
            let found = bytes.windows(name.len()).filter(|window| *window == name.as_bytes()).count();
            assert_eq!(found, 2, "{name} in a local and a central header");
        }
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("results/loop\r\nresults/out"), "what is left out is said");
        assert!(!text.contains("root:"));
        let unzip = std::process::Command::new("unzip").arg("-v").output();
        if unzip.is_ok() {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &bytes).unwrap();
            let output = std::process::Command::new("unzip").arg("-t").arg(file.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("No errors detected"), "{said}");
        }
    }

    #[test]
    fn a_change_after_the_plan_breaks_the_archive_off() {
        let (top, docroot) = tree();
        let plan = Plan::new(docroot.clone(), b"", "results").unwrap();
        fs::write(top.path().join("big"), "short").unwrap();
        assert!(collect(plan.archive()).is_err());
        let plan = Plan::new(docroot, b"", "results").unwrap();
        fs::remove_file(top.path().join("Größe/a.txt")).unwrap();
        assert!(collect(plan.archive()).is_err());
    }

    #[test]
    fn large_files_far_places_and_many_entries_have_wide_fields() {
        let item = |size, at| Item {
            name: "x".to_owned(),
            content: Content::Text("".into()),
            size,
            modified: 0,
            mode: 0o644,
            at,
        };
        for (n, (size, at, fields)) in
            [(0, 0, 0), (LIMIT_32 - 1, 0, 0), (LIMIT_32, 0, 16), (1, LIMIT_32, 8), (LIMIT_32, LIMIT_32, 24)]
                .into_iter()
                .enumerate()
        {
            let item = item(size, at);
            assert_eq!(item.central_extra().len(), fields, "row {n}");
            assert_eq!(item.central_header(1).len() as u64, item.central_length(), "row {n}");
            let local = item.local_header().len() + item.descriptor(1).len();
            assert_eq!(local as u64, item.local_length(), "row {n}");
        }
        for (count, at, length) in [(1, 1, 22), (LIMIT_16 - 1, 1, 22), (LIMIT_16, 1, 98), (1, LIMIT_32, 98)] {
            let end = End { count, at, length: 1 };
            assert_eq!((end.length(), end.record().len() as u64), (length, length));
        }
    }
}
