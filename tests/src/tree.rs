//! Files and trees to transfer: made quickly with repeatable content, and compared name by name.
//!
//! Names are bytes: everything works with names that are not UTF-8, and reports escape them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::rng::Rng;

const BLOCK: usize = 1 << 20;
/// How many differences a report names.
const REPORTED: usize = 10;

/// Writes a file of random content that follows from `seed`, making its directory.
///
/// # Panics
/// When it cannot be written, as all of this module.
pub fn make_file(path: &Path, size: u64, seed: u64) {
    let parent = path.parent().expect("a file path has a parent");
    fs::create_dir_all(parent).unwrap_or_else(|error| panic!("make {}: {error}", parent.display()));
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        let mut rng = Rng::new(seed);
        let mut block = vec![0; BLOCK.min(usize::try_from(size).unwrap_or(BLOCK))];
        let mut left = size;
        while left > 0 {
            let part = left.min(BLOCK as u64) as usize;
            rng.fill(&mut block[..part]);
            file.write_all(&block[..part])?;
            left -= part as u64;
        }
        Ok(())
    };
    write().unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
}

/// Makes `count` files of `smallest..=largest` bytes, 256 to a directory.
pub fn make_small_files(root: &Path, count: u64, smallest: u64, largest: u64, seed: u64) {
    let mut rng = Rng::new(seed);
    for n in 0..count {
        let path = root.join(format!("{:04}", n / 256)).join(format!("file-{n:06}"));
        make_file(&path, rng.range(smallest, largest), rng.next_u64());
    }
}

/// Makes a chain of `depth` directories with a file in each, the last directory staying empty.
pub fn make_nested(root: &Path, depth: usize, seed: u64) {
    let mut directory = root.to_owned();
    for level in 0..depth {
        directory.push(format!("level-{level}"));
        make_file(&directory.join("here"), level as u64 * 37, seed.wrapping_add(level as u64));
    }
    fs::create_dir_all(directory.join("empty")).expect("the tree's directory is writable");
}

/// Makes what trips up programs: empty files and directories, and names with spaces, newlines, escape
/// sequences, quotes, wildcards, a leading dash, 255 bytes, and bytes that are no UTF-8.
pub fn make_odd_names(root: &Path, seed: u64) {
    let long = [b'n'; 255];
    let names: [&[u8]; 14] = [
        b"with space",
        b" leading and trailing ",
        b"new\nline",
        b"tab\there",
        b"escape\x1b[31mred",
        b"quote'\"`",
        b"$HOME;*?[x]",
        b"-dash",
        b"back\\slash",
        b"not-utf8-\xff\xfe",
        b"latin-\xe9",
        "umlaut-ä-日本".as_bytes(),
        b"...",
        &long,
    ];
    for (n, name) in names.iter().enumerate() {
        make_file(&root.join(OsStr::from_bytes(name)), n as u64 * 501, seed.wrapping_add(n as u64));
        let directory = root.join("dirs").join(OsStr::from_bytes(name));
        make_file(&directory.join("inside"), 10, seed);
    }
    make_file(&root.join("empty-file"), 0, 0);
    fs::create_dir_all(root.join("empty-dir/also-empty")).expect("the tree's directory is writable");
}

/// What two trees must have in common besides names, kinds, sizes and content.
#[derive(Debug, Clone, Copy, Default)]
pub struct Also {
    /// Modification times of files, to the nanosecond.
    pub mtimes: bool,
    /// Permission bits of files and directories.
    pub modes: bool,
}

/// Names, kinds, sizes and content of two files or trees; the first differences, none when they agree.
#[must_use]
pub fn differences(expected: &Path, found: &Path, also: Also) -> Vec<String> {
    let (expected_entries, found_entries) = (entries(expected), entries(found));
    let mut report = Vec::new();
    for (name, entry) in &expected_entries {
        match found_entries.get(name) {
            None => report.push(format!("missing: {}", show(name))),
            Some(other) => {
                if let Some(why) = entry.differs(other, also) {
                    report.push(format!("{}: {why}", show(name)));
                } else if entry.kind == "file" {
                    let (a, b) = (expected.join_entry(name), found.join_entry(name));
                    if let Some(at) = first_difference(&a, &b) {
                        report.push(format!("{}: content differs at byte {at}", show(name)));
                    }
                }
            }
        }
        if report.len() >= REPORTED {
            break;
        }
    }
    let surplus = found_entries.keys().filter(|name| !expected_entries.contains_key(*name));
    report.extend(surplus.take(REPORTED).map(|name| format!("surplus: {}", show(name))));
    report
}

/// Fails with the first differences unless both trees are alike.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn assert_same(expected: &Path, found: &Path) {
    assert_same_also(expected, found, Also::default());
}

/// As `assert_same`, with more to compare.
///
/// # Panics
/// When they differ.
#[track_caller]
pub fn assert_same_also(expected: &Path, found: &Path, also: Also) {
    let report = differences(expected, found, also);
    assert!(
        report.is_empty(),
        "{} and {} differ:\n  {}",
        expected.display(),
        found.display(),
        report.join("\n  ")
    );
}

/// Fails when a partial file or journal of a transfer is left: names that start with `.haul-` and end in
/// `.part`, or anything else that starts with `.haul-`.
///
/// # Panics
/// When there is one.
#[track_caller]
pub fn assert_no_partials(root: &Path) {
    let left = partials(root);
    assert!(
        left.is_empty(),
        "left in {}: {}",
        root.display(),
        left.iter().map(|p| show(p)).collect::<Vec<_>>().join(", ")
    );
}

/// Partial files and journals under `root`.
#[must_use]
pub fn partials(root: &Path) -> Vec<PathBuf> {
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".haul-"));
    entries(root).into_keys().filter(ours).collect()
}

/// Sum of the sizes of all files under `root`.
#[must_use]
pub fn total_bytes(root: &Path) -> u64 {
    entries(root).values().filter(|entry| entry.kind == "file").map(|entry| entry.size).sum()
}

struct Entry {
    kind: &'static str,
    size: u64,
    mtime: (i64, i64),
    mode: u32,
    target: Option<PathBuf>,
}

impl Entry {
    fn read(path: &Path) -> Self {
        let metadata =
            fs::symlink_metadata(path).unwrap_or_else(|error| panic!("stat {}: {error}", path.display()));
        let kind = match metadata.file_type() {
            kind if kind.is_file() => "file",
            kind if kind.is_dir() => "directory",
            kind if kind.is_symlink() => "symlink",
            kind if kind.is_fifo() => "fifo",
            kind if kind.is_socket() => "socket",
            _ => "device",
        };
        Self {
            kind,
            size: if kind == "file" { metadata.len() } else { 0 },
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            mode: metadata.mode() & 0o7777,
            target: fs::read_link(path).ok(),
        }
    }

    fn differs(&self, other: &Self, also: Also) -> Option<String> {
        if self.kind != other.kind {
            return Some(format!("expected a {}, found a {}", self.kind, other.kind));
        }
        if self.size != other.size {
            return Some(format!("expected {} bytes, found {}", self.size, other.size));
        }
        if self.target != other.target {
            return Some(format!("expected a link to {:?}, found {:?}", self.target, other.target));
        }
        if also.mtimes && self.kind == "file" && self.mtime != other.mtime {
            return Some(format!("expected mtime {:?}, found {:?}", self.mtime, other.mtime));
        }
        (also.modes && self.kind != "symlink" && self.mode != other.mode)
            .then(|| format!("expected mode {:o}, found {:o}", self.mode, other.mode))
    }
}

/// Everything under `root` by relative name; a root that is a file is the one entry with the empty name.
fn entries(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    if !root.is_dir() {
        found.insert(PathBuf::new(), Entry::read(root));
        return found;
    }
    while let Some(directory) = pending.pop() {
        let path = root.join_entry(&directory);
        let listing = fs::read_dir(&path).unwrap_or_else(|error| panic!("list {}: {error}", path.display()));
        for item in listing {
            let name = directory.join(item.expect("a listing goes on").file_name());
            let entry = Entry::read(&root.join(&name));
            if entry.kind == "directory" {
                pending.push(name.clone());
            }
            found.insert(name, entry);
        }
    }
    found
}

trait JoinEntry {
    fn join_entry(&self, name: &Path) -> PathBuf;
}

impl JoinEntry for Path {
    /// Joins without the slash that an empty name would add, which a file would not bear.
    fn join_entry(&self, name: &Path) -> PathBuf {
        if name.as_os_str().is_empty() { self.to_owned() } else { self.join(name) }
    }
}

fn first_difference(a: &Path, b: &Path) -> Option<u64> {
    let open =
        |path: &Path| File::open(path).unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let (mut file_a, mut file_b) = (open(a), open(b));
    let (mut block_a, mut block_b) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    loop {
        let (part_a, part_b) = (read_block(&mut file_a, &mut block_a), read_block(&mut file_b, &mut block_b));
        if block_a[..part_a] != block_b[..part_b] {
            let same = block_a[..part_a].iter().zip(&block_b[..part_b]).take_while(|(x, y)| x == y).count();
            return Some(at + same as u64);
        }
        if part_a == 0 {
            return None;
        }
        at += part_a as u64;
    }
}

fn read_block(file: &mut File, block: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < block.len() {
        match file.read(&mut block[filled..]).expect("a file can be read") {
            0 => break,
            part => filled += part,
        }
    }
    filled
}

fn show(path: &Path) -> String {
    format!("\"{}\"", path.as_os_str().as_bytes().escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_trees_agree_and_every_kind_of_difference_is_named() {
        let home = tempfile::tempdir().unwrap();
        let (a, b) = (home.path().join("a"), home.path().join("b"));
        for root in [&a, &b] {
            make_odd_names(root, 1);
            make_nested(root, 5, 2);
            make_small_files(root, 300, 0, 3000, 3);
        }
        assert_same(&a, &b);
        assert_no_partials(&b);
        assert!(total_bytes(&a) > 300_000);

        fs::remove_file(b.join("empty-file")).unwrap();
        make_file(&b.join("-dash"), 7 * 501, 99);
        make_file(&b.join("extra"), 1, 1);
        make_file(&b.join(".haul-x.part"), 1, 1);
        let report = differences(&a, &b, Also::default());
        assert_eq!(report.len(), 4, "{report:?}");
        assert!(report.iter().any(|line| line.contains("\"-dash\": content differs")), "{report:?}");
        assert_eq!(partials(&b), [PathBuf::from(".haul-x.part")]);
    }
}
