//! Tests of both ends together: what a [`Source`] reads is handed to a [`Sink`] block by block, in any order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use haul_proto::constants::BLOCK_BYTES;
use haul_proto::control::{Digest, Trouble};
use haul_proto::disk::{BlockWrite, DiskDone, DiskRequest, EntryFailure, FileEntry, FilePiece, FolderEntry};
use haul_proto::layout::{Extent, Layout};
use haul_proto::manifest::{Record, Trailer};
use tempfile::{TempDir, tempdir};

use super::{DiskError, Docroot, Sink, SinkOptions, Source, SourceEvent, SourceOptions, resolve_destination};

const B: usize = BLOCK_BYTES as usize;
const SESSION: &str = "0123456789abcdef";

/// Everything that a source has to send, as it would arrive.
#[derive(Default)]
struct Sent {
    folders: Vec<FolderEntry>,
    files: Vec<(Extent, Arc<FileEntry>)>,
    blocks: Vec<(u64, Vec<u8>)>,
}

fn wakeable() -> (impl Fn() + Send + Clone + 'static, Receiver<()>) {
    let (wake, woken) = channel();
    (move || wake.send(()).unwrap_or_default(), woken)
}

fn read_all(root: &Path, paths: &[&[u8]]) -> Sent {
    let docroot = Docroot::open(root).unwrap();
    let paths = paths.iter().map(|path| path.to_vec().into()).collect();
    let (wake, woken) = wakeable();
    let mut source = Source::start(docroot, paths, SourceOptions::default(), wake).unwrap();
    let (mut sent, mut layout, mut ended) = (Sent::default(), Layout::default(), false);
    source.request(Vec::new());
    loop {
        let before = (sent.blocks.len(), ended);
        while let Some(record) = source.poll_record() {
            match record {
                Record::Folder { parent, name, attributes } => {
                    let id = sent.folders.len() as u64 + 1;
                    sent.folders.push(FolderEntry { id, parent, name, attributes });
                }
                Record::File { parent, name, size, attributes } => {
                    let extent = layout.push(size).unwrap();
                    let pieces = (extent.end() - 1) / BLOCK_BYTES - extent.offset / BLOCK_BYTES + 1;
                    let id = sent.files.len() as u64;
                    let file = FileEntry { id, parent, name, size, attributes, missing: None, pieces };
                    sent.files.push((extent, Arc::new(file)));
                }
                Record::Link { name, .. } => panic!("a link: {}", name.escape_ascii()),
                Record::Skipped { path, message, .. } => panic!("{}: {message}", path.escape_ascii()),
                Record::End { .. } => ended = true,
            }
        }
        match source.poll_block().unwrap() {
            Some(SourceEvent::Block { block, data }) => {
                source.request(Vec::new());
                sent.blocks.push((block, data));
            }
            Some(SourceEvent::End { blocks }) if ended => {
                assert_eq!(blocks, sent.blocks.len() as u64);
                return sent;
            }
            Some(SourceEvent::End { .. }) => panic!("the content ended before the manifest"),
            None if before == (sent.blocks.len(), ended) => woken.recv().unwrap(),
            None => {}
        }
    }
}

impl Sent {
    /// What the receiver would ask of the disk for a block.
    fn request(&self, block: u64, data: &[u8]) -> DiskRequest {
        let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
        let here = self.files.iter().filter(|(extent, _)| extent.offset < end && extent.end() > start);
        let pieces = here.map(|(extent, file)| {
            let (first, last) =
                (extent.offset.clamp(start, end), (extent.offset + extent.size).clamp(start, end));
            let trailer = (start..end).contains(&extent.trailer);
            FilePiece {
                file: Arc::clone(file),
                bytes: (first - start) as usize..(last - start) as usize,
                offset: first - extent.offset,
                trailer: trailer
                    .then(|| Trailer::decode(&data[(extent.trailer - start) as usize..]).unwrap()),
            }
        });
        DiskRequest::Block(BlockWrite { block, data: data.to_vec(), pieces: pieces.collect() })
    }

    fn shuffle(&mut self, seed: u64) {
        let mut state = seed;
        for at in (1..self.blocks.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            self.blocks.swap(at, (state >> 33) as usize % (at + 1));
        }
    }
}

/// What a sink made of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stored {
    files: u64,
    bytes: u64,
    stored: u64,
    failures: BTreeMap<String, Trouble>,
}

struct Storing {
    sink: Sink,
    woken: Receiver<()>,
    result: Stored,
}

impl Storing {
    fn start(root: &Path, destination: &str, preserve_times: bool) -> Self {
        let docroot = Docroot::open(root).unwrap();
        let destination = resolve_destination(&docroot, destination.as_bytes(), false, 1).unwrap();
        let session = SESSION.to_owned();
        let options =
            SinkOptions { session, preserve_times, digest: Digest::Blake3, ..SinkOptions::default() };
        let (wake, woken) = wakeable();
        Self { sink: Sink::start(destination, options, wake).unwrap(), woken, result: Stored::default() }
    }

    fn request(&mut self, request: DiskRequest) -> Result<DiskDone, DiskError> {
        self.sink.submit(request);
        loop {
            match self.sink.poll()? {
                Some(done) => return Ok(done),
                None => self.woken.recv().unwrap(),
            }
        }
    }

    fn fail(&mut self, failure: &EntryFailure) {
        let path = failure.path.escape_ascii().to_string();
        assert_eq!(self.result.failures.insert(path, failure.trouble), None, "told twice: {failure:?}");
    }

    fn store(&mut self, sent: &Sent) -> Result<(), DiskError> {
        for folder in &sent.folders {
            match self.request(DiskRequest::Folder(folder.clone()))? {
                DiskDone::Folder => {}
                DiskDone::FolderFailed(failure) => self.fail(&failure),
                done => panic!("{done:?}"),
            }
        }
        for (block, data) in &sent.blocks {
            match self.request(sent.request(*block, data))? {
                DiskDone::Block { buffer, stored, finished, failed, .. } => {
                    assert_eq!(buffer.len(), data.len());
                    self.result.stored += stored;
                    self.result.files += finished.len() as u64;
                    self.result.bytes += finished.iter().sum::<u64>();
                    failed.iter().for_each(|failure| self.fail(failure));
                }
                done => panic!("{done:?}"),
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Stored {
        assert!(matches!(self.request(DiskRequest::Finish).unwrap(), DiskDone::Finished));
        std::mem::take(&mut self.result)
    }
}

fn transfer(sent: &Sent, root: &Path, destination: &str) -> Stored {
    let mut storing = Storing::start(root, destination, true);
    storing.store(sent).unwrap();
    storing.finish()
}

/// Two empty folders: one to send from, one to receive into.
fn folders() -> (TempDir, TempDir) {
    (tempdir().unwrap(), tempdir().unwrap())
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Paths with what they hold, mode and time of modification.
fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, (Option<blake3::Hash>, u32, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let content = about.is_file().then(|| blake3::hash(&fs::read(&path).unwrap()));
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            found.insert(name, (content, about.mode() & 0o7777, about.mtime(), about.mtime_nsec()));
            if about.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_tree_arrives_as_it_was_sent() {
    let (from, to) = folders();
    let top = from.path().join("tree");
    for folder in ["a/b/c/d/e", "empty", "many", "read-only"] {
        fs::create_dir_all(top.join(folder)).unwrap();
    }
    fs::create_dir(top.join(std::ffi::OsStr::from_bytes(b"not \xff text\n"))).unwrap();
    for (number, size) in [0, 1, 1023, B - 41, B - 40, B - 39, B, B + 1, 5 * B + 7].into_iter().enumerate() {
        for folder in ["a", "a/b/c", "read-only"] {
            fs::write(top.join(folder).join(format!("f{number}")), noise(size)).unwrap();
        }
    }
    for number in 0..300 {
        fs::write(top.join("many").join(number.to_string()), noise(41 * number)).unwrap();
    }
    fs::write(top.join(std::ffi::OsStr::from_bytes(b"a/b/c/d/e/\x01\xfe")), "x").unwrap();
    fs::File::create(top.join("a/old"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH - Duration::new(5, 7))
        .unwrap();
    set_mode(&top.join("a/f1"), 0o400);
    set_mode(&top.join("a/f2"), 0o4700);
    set_mode(&top.join("read-only"), 0o500);
    let mut sent = read_all(from.path(), &[b"tree"]);
    let mut expected = snapshot(from.path());
    expected.get_mut(&b"tree/a/f2"[..]).unwrap().1 = 0o700;
    for seed in 0..3 {
        let root = to.path().join(seed.to_string());
        fs::create_dir(&root).unwrap();
        sent.shuffle(seed);
        let stored = transfer(&sent, &root, "");
        let bytes = sent.files.iter().map(|(_, file)| file.size).sum();
        let files = sent.files.len() as u64;
        assert_eq!(stored, Stored { files, bytes, stored: bytes, failures: BTreeMap::new() });
        assert!(snapshot(&root) == expected, "seed {seed}");
    }
}

#[test]
fn content_that_was_spoilt_on_the_way_leaves_nothing() {
    let (from, to) = folders();
    fs::write(from.path().join("a-large"), noise(2 * B + 5)).unwrap();
    fs::write(from.path().join("b-small"), noise(500)).unwrap();
    fs::write(from.path().join("c-good"), noise(500)).unwrap();
    let mut sent = read_all(from.path(), &[b"/"]);
    sent.blocks[1].1[7] ^= 1;
    let small = (sent.files[1].0.offset % BLOCK_BYTES) as usize;
    let last = sent.blocks.len() - 1;
    sent.blocks[last].1[small] ^= 1;
    for seed in 0..4 {
        sent.shuffle(seed);
        let stored = transfer(&sent, to.path(), "");
        let mismatch = Trouble::DigestMismatch;
        let failures = [("a-large".to_owned(), mismatch), ("b-small".to_owned(), mismatch)];
        assert_eq!(stored.failures, BTreeMap::from(failures));
        assert_eq!((stored.files, stored.bytes), (1, 500));
        assert_eq!(snapshot(to.path()).into_keys().collect::<Vec<_>>(), [b"c-good"]);
    }
}

#[test]
fn a_source_that_changed_replaces_nothing() {
    let (from, to) = folders();
    for name in ["large", "small"] {
        fs::write(to.path().join(name), "old").unwrap();
    }
    fs::write(from.path().join("large"), noise(3 * B)).unwrap();
    fs::write(from.path().join("small"), noise(3)).unwrap();
    let mut sent = read_all(from.path(), &[b"/"]);
    let trailer = Trailer { trouble: Some(Trouble::SourceChanged), ..Trailer::whole(None) }.encode();
    for (extent, _) in &sent.files {
        let at = (extent.trailer % BLOCK_BYTES) as usize;
        sent.blocks[(extent.trailer / BLOCK_BYTES) as usize].1[at..at + 40].copy_from_slice(&trailer);
    }
    for seed in 0..4 {
        sent.shuffle(seed);
        let stored = transfer(&sent, to.path(), "");
        assert_eq!(stored.failures.into_values().collect::<Vec<_>>(), [Trouble::SourceChanged; 2]);
        assert!(["large", "small"].iter().all(|name| fs::read(to.path().join(name)).unwrap() == b"old"));
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 2);
    }
}

#[test]
fn a_session_that_is_given_up_leaves_no_partial_files() {
    let (from, to) = folders();
    for number in 0..6 {
        fs::write(from.path().join(number.to_string()), noise(8 * B)).unwrap();
    }
    let mut sent = read_all(from.path(), &[b"/"]);
    sent.blocks.retain(|(block, _)| block % 3 == 1);
    let mut storing = Storing::start(to.path(), "", false);
    storing.store(&sent).unwrap();
    let partial = fs::metadata(to.path().join(format!(".haul-{SESSION}-5.part"))).unwrap();
    assert_eq!((partial.mode() & 0o7777, partial.size()), (0o600, 8 * BLOCK_BYTES), "its room is taken");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 6);
    drop(storing);
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn what_stands_at_the_destination_is_replaced_or_refused_but_never_followed() {
    let (from, to) = folders();
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("kept"), "kept").unwrap();
    for folder in ["folder-link", "folder-file", "folder-there"] {
        fs::create_dir(from.path().join(folder)).unwrap();
        fs::write(from.path().join(folder).join("f"), "new").unwrap();
        fs::write(from.path().join(folder).join("large"), noise(B)).unwrap();
    }
    for name in ["is-file", "is-folder", "is-link", "is-pipe"] {
        fs::write(from.path().join(name), "new").unwrap();
    }
    let at = |name: &str| to.path().join(name);
    symlink(outside.path(), at("folder-link")).unwrap();
    fs::write(at("folder-file"), "old").unwrap();
    fs::create_dir(at("folder-there")).unwrap();
    set_mode(&at("folder-there"), 0o770);
    fs::write(at("is-file"), "old").unwrap();
    fs::create_dir(at("is-folder")).unwrap();
    symlink(outside.path().join("kept"), at("is-link")).unwrap();
    nix::unistd::mkfifo(&at("is-pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let stored = transfer(&read_all(from.path(), &[b"/"]), to.path(), "");
    let wrong = Trouble::WrongKind;
    let failures = [
        ("folder-file", wrong),
        ("folder-file/f", wrong),
        ("folder-file/large", wrong),
        ("folder-link", Trouble::OutsideDocroot),
        ("folder-link/f", wrong),
        ("folder-link/large", wrong),
        ("is-folder", wrong),
        ("is-pipe", wrong),
    ];
    assert_eq!(stored.failures, failures.map(|(path, trouble)| (path.to_owned(), trouble)).into());
    assert_eq!(fs::read(at("is-file")).unwrap(), b"new");
    assert!(fs::symlink_metadata(at("is-link")).unwrap().is_file());
    assert_eq!(fs::read(at("folder-there/f")).unwrap(), b"new");
    assert_eq!(fs::metadata(at("folder-there")).unwrap().mode() & 0o777, 0o770, "not ours to change");
    assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_single_source_takes_the_name_of_an_absent_destination() {
    let (from, to) = folders();
    fs::create_dir(from.path().join("d")).unwrap();
    fs::write(from.path().join("d/f"), noise(B)).unwrap();
    fs::write(from.path().join("d/g"), "g").unwrap();
    assert_eq!(transfer(&read_all(from.path(), &[b"d/f"]), to.path(), "file").failures, BTreeMap::new());
    assert_eq!(transfer(&read_all(from.path(), &[b"d"]), to.path(), "tree").failures, BTreeMap::new());
    let names: Vec<_> = snapshot(to.path()).into_keys().collect();
    assert_eq!(names, [&b"file"[..], b"tree", b"tree/f", b"tree/g"]);
    fs::create_dir(from.path().join("e")).unwrap();
    fs::write(from.path().join("e/f"), "f").unwrap();
    let stored = transfer(&read_all(from.path(), &[b"d", b"e", b"d/g"]), to.path(), "one");
    assert_eq!(stored.failures.keys().collect::<Vec<_>>(), ["e", "e/f", "g"]);
    assert!(stored.failures.values().all(|&trouble| trouble == Trouble::WrongKind));
    assert_eq!((stored.files, fs::read_dir(to.path().join("one")).unwrap().count()), (2, 2));
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 3);
}

#[test]
fn a_folder_that_is_replaced_during_the_transfer_gets_nothing() {
    let (from, to) = folders();
    let outside = tempdir().unwrap();
    fs::create_dir_all(from.path().join("d/e")).unwrap();
    fs::write(from.path().join("d/e/f"), "x").unwrap();
    // More folders than are kept open, so that d/e is opened again.
    for number in 0..8 {
        fs::create_dir(from.path().join(format!("z{number}"))).unwrap();
    }
    let sent = read_all(from.path(), &[b"/"]);
    let (folders, blocks) = (sent.folders.clone(), sent.blocks.clone());
    let mut storing = Storing::start(to.path(), "", false);
    storing.store(&Sent { folders, ..Sent::default() }).unwrap();
    fs::rename(to.path().join("d/e"), to.path().join("d/moved")).unwrap();
    symlink(outside.path(), to.path().join("d/e")).unwrap();
    storing.store(&Sent { blocks, folders: Vec::new(), files: sent.files }).unwrap();
    assert_eq!(storing.result.failures, [("d/e/f".to_owned(), Trouble::OutsideDocroot)].into());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// A file system of one mebibyte, while it lives.
struct Tiny(TempDir);

impl Tiny {
    fn mount() -> Option<Self> {
        let folder = tempdir().unwrap();
        let mounted = nix::unistd::geteuid().is_root()
            && std::process::Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
                .arg(folder.path())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: only root can mount a small file system");
        }
        mounted.then(|| Self(folder))
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_ends_the_session_and_is_told_before_the_data_flows() {
    let Some(tiny) = Tiny::mount() else { return };
    let from = tempdir().unwrap();
    fs::write(from.path().join("large"), noise(8 * B)).unwrap();
    let mut sent = read_all(from.path(), &[b"large"]);
    sent.blocks.truncate(1);
    let mut storing = Storing::start(tiny.0.path(), "", false);
    let error = storing.store(&sent).unwrap_err();
    assert_eq!(error.trouble, Trouble::DiskFull);
    let text = error.to_string();
    assert!(
        text.starts_with("cannot write large: No space left on device (2097152 bytes are needed"),
        "{text}"
    );
    assert!(storing.request(DiskRequest::Finish).is_err(), "nothing follows");
    drop(storing);
    assert_eq!(fs::read_dir(tiny.0.path()).unwrap().count(), 0);
}

#[test]
fn a_disk_that_small_files_fill_keeps_the_whole_ones_only() {
    let Some(tiny) = Tiny::mount() else { return };
    let from = tempdir().unwrap();
    for number in 0..20 {
        fs::write(from.path().join(number.to_string()), noise(100_000)).unwrap();
    }
    let error = Storing::start(tiny.0.path(), "", false).store(&read_all(from.path(), &[b"/"])).unwrap_err();
    assert_eq!(error.trouble, Trouble::DiskFull);
    let kept = snapshot(tiny.0.path());
    assert!(!kept.is_empty());
    assert!(kept.values().all(|(content, ..)| *content == Some(blake3::hash(&noise(100_000)))));
}
