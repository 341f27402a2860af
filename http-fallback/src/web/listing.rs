//! The content of a folder as the worker tells it to the front: found, sorted, and a page of it cut out. The front makes
//! the page for people of it.

use std::cmp::Ordering;

use haul_io::disk::browse::{About, Entry, EntryKind};
use haul_io::disk::{DiskError, Docroot};
use serde::{Deserialize, Serialize};

use super::disposition::safe_name;
use super::percent::{Query, encode_name, encode_path};
use super::upload::is_partial;

/// Entries of one page.
pub const PAGE: usize = 500;

/// Entries that a search looks at, and finds, at most.
const MAX_SEARCHED: usize = 100_000;
const MAX_FOUND: usize = 5_000;

/// Longest text that is searched for, in bytes.
const MAX_NEEDLE_BYTES: usize = 255;

/// By what a listing is sorted. Folders always come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// By name, numbers in it by value.
    #[default]
    Name,
    /// By size.
    Size,
    /// By time of change.
    Date,
}

/// What a listing is to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// By what.
    pub sort: Sort,
    /// The other way round.
    pub descending: bool,
    /// Only what has this in its name, here and below. Empty: everything here.
    pub search: String,
    /// Which page, from 0.
    pub page: usize,
}

impl View {
    /// From `?sort=size&order=desc&q=text&page=2`; what makes no sense is left at its default.
    #[must_use]
    pub fn from_query(query: &Query) -> Self {
        let search = query.bytes("q").map(String::from_utf8_lossy).unwrap_or_default();
        Self {
            sort: match query.text("sort") {
                Some("size") => Sort::Size,
                Some("date") => Sort::Date,
                _ => Sort::Name,
            },
            descending: query.text("order") == Some("desc"),
            search: search.trim().chars().take(MAX_NEEDLE_BYTES).collect(),
            page: query.text("page").and_then(|text| text.parse::<usize>().ok()).unwrap_or(1).max(1) - 1,
        }
    }

    /// The query that gives this view.
    #[must_use]
    pub fn query(&self) -> String {
        let mut parts = Vec::new();
        match self.sort {
            Sort::Name => {}
            Sort::Size => parts.push("sort=size".to_owned()),
            Sort::Date => parts.push("sort=date".to_owned()),
        }
        if self.descending {
            parts.push("order=desc".to_owned());
        }
        if !self.search.is_empty() {
            parts.push(format!("q={}", encode_name(self.search.as_bytes())));
        }
        if self.page > 0 {
            parts.push(format!("page={}", self.page + 1));
        }
        if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
    }
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The name, or in a search the path below the folder, for people.
    pub name: String,
    /// The same, percent-encoded, relative to the folder.
    pub path: String,
    /// It is a folder.
    pub folder: bool,
    /// It can be opened: no device, no link that leads outside.
    pub usable: bool,
    /// It is a symbolic link.
    pub link: bool,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// What was asked for; the page moved into what there is.
    pub view: View,
    /// Lines in all.
    pub total: usize,
    /// Bytes of all files among them.
    pub bytes: u64,
    /// The search ended before it had seen everything.
    pub cut: bool,
    /// The lines of this page.
    pub rows: Vec<Row>,
}

/// Lists a folder.
///
/// # Errors
/// If it cannot be read.
pub fn list(docroot: &Docroot, path: &[u8], mut view: View) -> Result<Listing, DiskError> {
    let (mut rows, cut) = if view.search.is_empty() {
        let entries = docroot.entries(path)?;
        (
            entries.iter().filter(|entry| !is_partial(&entry.name)).map(|entry| row(b"", entry)).collect(),
            false,
        )
    } else {
        search(docroot, path, &view.search)?
    };
    rows.sort_by(|a, b| order(&view, a, b));
    let (total, bytes) = (rows.len(), rows.iter().filter(|row| !row.folder).map(|row| row.size).sum());
    view.page = view.page.min(total.saturating_sub(1) / PAGE);
    let rows = rows.into_iter().skip(view.page * PAGE).take(PAGE).collect();
    Ok(Listing { view, total, bytes, cut, rows })
}

/// Looks through the folder and those below, the near ones first. Links to folders are not followed.
fn search(docroot: &Docroot, path: &[u8], needle: &str) -> Result<(Vec<Row>, bool), DiskError> {
    let needle = needle.to_lowercase();
    let (mut rows, mut seen) = (Vec::new(), 0);
    let mut waiting = std::collections::VecDeque::from([Vec::new()]);
    while let Some(below) = waiting.pop_front() {
        let here = joined(path, &below);
        let entries = match docroot.entries(&here) {
            Ok(entries) => entries,
            Err(error) if below.is_empty() => return Err(error),
            // Folders that may not be read hold nothing that this user could open.
            Err(_) => continue,
        };
        for entry in entries.iter().filter(|entry| !is_partial(&entry.name)) {
            seen += 1;
            if String::from_utf8_lossy(&entry.name).to_lowercase().contains(&needle) {
                rows.push(row(&below, entry));
            }
            if entry.about.kind == EntryKind::Folder && !entry.about.link {
                waiting.push_back(joined(&below, &entry.name));
            }
            if seen >= MAX_SEARCHED || rows.len() >= MAX_FOUND {
                return Ok((rows, true));
            }
        }
    }
    Ok((rows, false))
}

/// `path` and `name` below it.
pub(super) fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] =
        if path.is_empty() || path.ends_with(b"/") || name.is_empty() { b"" } else { b"/" };
    [path, separator, name].concat()
}

fn row(below: &[u8], entry: &Entry) -> Row {
    let About { kind, link, size, modified_s, .. } = entry.about;
    let path = joined(below, &entry.name);
    let shown: Vec<String> = path.split(|&byte| byte == b'/').map(safe_name).collect();
    Row {
        name: shown.join("/"),
        path: encode_path(&path),
        folder: kind == EntryKind::Folder,
        usable: kind != EntryKind::Other,
        link,
        size: if kind == EntryKind::File { size } else { 0 },
        modified: modified_s,
    }
}

fn order(view: &View, a: &Row, b: &Row) -> Ordering {
    let by_name = || natural(&a.name, &b.name);
    let wanted = match view.sort {
        Sort::Name => by_name(),
        Sort::Size => a.size.cmp(&b.size).then_with(by_name),
        Sort::Date => a.modified.cmp(&b.modified).then_with(by_name),
    };
    b.folder.cmp(&a.folder).then(if view.descending { wanted.reverse() } else { wanted })
}

/// As people sort: without regard to case, numbers by their value.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.chars().peekable(), b.chars().peekable());
    loop {
        let (Some(&x), Some(&y)) = (left.peek(), right.peek()) else {
            return left.peek().is_some().cmp(&right.peek().is_some()).then_with(|| a.cmp(b));
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            match digits(&mut left).cmp(&digits(&mut right)) {
                Ordering::Equal => continue,
                unequal => return unequal,
            }
        }
        match x.to_lowercase().cmp(y.to_lowercase()) {
            Ordering::Equal => {
                left.next();
                right.next();
            }
            unequal => return unequal,
        }
    }
}

/// A number without leading zeros, by length first: as large as it likes.
fn digits(text: &mut std::iter::Peekable<std::str::Chars<'_>>) -> (usize, String) {
    let mut number = String::new();
    while let Some(digit) = text.next_if(char::is_ascii_digit) {
        if !number.is_empty() || digit != '0' {
            number.push(digit);
        }
    }
    (number.len(), number)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(listing: &Listing) -> Vec<&str> {
        listing.rows.iter().map(|row| row.name.as_str()).collect()
    }

    fn view(query: &str) -> View {
        View::from_query(&Query::parse(query))
    }

    #[test]
    fn folders_come_first_and_numbers_count() {
        let top = tempfile::tempdir().unwrap();
        for (name, size) in [("run10", 1), ("run9", 2), ("Run1", 3), ("ümlaut", 4), ("a", 5)] {
            fs::write(top.path().join(name), vec![0; size]).unwrap();
        }
        fs::create_dir(top.path().join("z")).unwrap();
        fs::write(top.path().join(".haul-0123456789abcdef0123456789abcdef.part"), "hidden").unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let list = |query: &str| list(&docroot, b"", view(query)).unwrap();
        assert_eq!(names(&list("")), ["z", "a", "Run1", "run9", "run10", "ümlaut"]);
        assert_eq!(names(&list("order=desc")), ["z", "ümlaut", "run10", "run9", "Run1", "a"]);
        assert_eq!(names(&list("sort=size")), ["z", "run10", "run9", "Run1", "ümlaut", "a"]);
        assert_eq!((list("").total, list("").bytes), (6, 15));
    }

    #[test]
    fn a_search_finds_names_below_without_regard_to_case() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("2026/Reads")).unwrap();
        fs::write(top.path().join("2026/Reads/a#1.FASTQ"), "x").unwrap();
        fs::write(top.path().join("fastq.txt"), "x").unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let found = list(&docroot, b"", view("q=fastq")).unwrap();
        assert_eq!(names(&found), ["2026/Reads/a#1.FASTQ", "fastq.txt"]);
        assert_eq!(found.rows[0].path, "2026/Reads/a%231.FASTQ");
        assert!(!found.cut);
        assert!(list(&docroot, b"2026", view("q=nothing")).unwrap().rows.is_empty());
    }

    #[test]
    fn long_folders_come_in_pages_and_a_page_too_far_is_the_last() {
        let top = tempfile::tempdir().unwrap();
        for n in 0..PAGE + 1 {
            fs::write(top.path().join(n.to_string()), "").unwrap();
        }
        let docroot = Docroot::open(top.path()).unwrap();
        let first = list(&docroot, b"", view("")).unwrap();
        assert_eq!((first.rows.len(), first.total, first.rows[2].name.as_str()), (PAGE, PAGE + 1, "2"));
        let far = list(&docroot, b"", view("page=99")).unwrap();
        assert_eq!((far.view.page, names(&far)), (1, vec!["500"]));
    }

    #[test]
    fn a_view_survives_its_query() {
        for query in ["", "?sort=size&order=desc", "?q=a%20b%26c&page=3", "?sort=date"] {
            assert_eq!(view(query.trim_start_matches('?')).query(), query);
        }
    }
}
