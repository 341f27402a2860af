//! The sending disk: one thread walks the sources and lists them, another reads the content that is not in memory.
//!
//! The walk pauses while its list is not taken or the reader is far behind, so memory is bounded whatever the size of a
//! tree. Not here: what is sent when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;

use haul_proto::constants::PENDING_FILES;
use haul_proto::control::{Digest, LinkMode, ResumeCheck, Trouble};
use haul_proto::manifest::Record;
use haul_proto::range_set::RangeSet;
use haul_proto::verdict::Decision;

use super::after::Kept;
use super::facts::Kind;
use super::helper::{Helper, spawn};
use super::read::Reader;
use super::walk::Walker;
use super::{After, DiskError, Docroot, Filter, Settled, SourceItem};

/// Records that wait to be taken.
const RECORDS_AHEAD: usize = 1024;

/// Files that were listed and wait to be read. Far more than a block holds pieces of would only cost memory.
const FILES_AHEAD: usize = 4096;

/// How sources are read.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// Digest to take of each file.
    pub digest: Digest,
    /// What is read of a file depends on [`Source::decide`].
    pub verdicts: bool,
    /// What the digest of a file that is continued covers.
    pub resume: ResumeCheck,
    /// What is left out.
    pub filter: Filter,
    /// What happens to files that are stored at the other side.
    pub after: Option<After>,
}

/// Answer to a request for a block.
#[derive(Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// A block has been read.
    Block {
        /// Its number.
        block: u64,
        /// The bytes that it uses.
        data: Vec<u8>,
    },
    /// There are only so many blocks.
    End {
        /// How many.
        blocks: u64,
    },
}

/// The sending disk of a session. Dropping it stops and joins its threads.
#[derive(Debug)]
pub struct Source {
    records: Option<Receiver<Record>>,
    reader: Option<Helper<Reader>>,
    /// Bounded by the files that were listed: each decision is about one.
    decisions: Option<Sender<Decision>>,
    stop: Arc<AtomicBool>,
    walker: Option<JoinHandle<()>>,
    kept: Option<Kept>,
}

impl Source {
    /// Starts to walk `items` below `root`. `notify` is called after each record and each event.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(
        root: Docroot,
        items: Vec<SourceItem>,
        options: SourceOptions,
        notify: impl Fn() + Send + Clone + 'static,
    ) -> Result<Self, DiskError> {
        let (record_sender, records) = sync_channel(RECORDS_AHEAD);
        // Verdicts take a round trip, so the walk must be ahead of the reader by more than that.
        let ahead = if options.verdicts { PENDING_FILES } else { FILES_AHEAD };
        let (file_sender, files) = sync_channel(ahead);
        let (decisions, decided) = options.verdicts.then(channel).unzip();
        let stop = Arc::new(AtomicBool::new(false));
        let SourceOptions { digest, filter, after, resume, .. } = options;
        let kept = after.map(|after| Kept::new(root.clone(), after));
        let ended = Arc::clone(&stop);
        let (books, outs) = (kept.clone(), (record_sender, file_sender));
        let walker = Walker::new(root.clone(), (filter, books), outs, ended, notify.clone());
        let reader = Reader::new(root, (digest, resume), (files, decided), Arc::clone(&stop));
        let reader = Helper::start("haul-read", reader, notify)?;
        let walker = Some(spawn("haul-walk", move || walker.run(&items))?);
        Ok(Self { records: Some(records), reader: Some(reader), decisions, stop, walker, kept })
    }

    /// Removes or moves the files that are stored at the other side, by their numbers, if that is wished for.
    pub fn settle(&self, stored: &RangeSet) -> Settled {
        self.kept.as_ref().map(|kept| kept.settle(stored)).unwrap_or_default()
    }

    /// What is to be read of the next file.
    pub fn decide(&mut self, decision: Decision) {
        if let Some(decisions) = &self.decisions {
            // Refused only if the reader has panicked, which the next poll tells.
            let _ = decisions.send(decision);
        }
    }

    /// The next record, if the walk has found it.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.as_ref()?.try_recv().ok()
    }

    /// Asks for the next block; a used buffer saves an allocation. Returns whether it was read at once.
    pub fn request(&mut self, buffer: Vec<u8>) -> bool {
        self.reader.as_mut().is_some_and(|reader| reader.ask(buffer))
    }

    /// The next answer, if it is there.
    ///
    /// # Errors
    /// If the reader is gone.
    pub fn poll_block(&mut self) -> Result<Option<SourceEvent>, DiskError> {
        self.reader.as_mut().map_or(Ok(None), Helper::poll)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The walker may be waiting for either of the two to take something.
        self.records = None;
        self.decisions = None;
        self.reader = None;
        if self.walker.take().is_some_and(|walker| walker.join().is_err()) {
            tracing::error!("the thread that lists files has panicked");
        }
    }
}

/// Checks, before a transfer, that each source is there and can be read.
///
/// # Errors
/// The first source that is not.
pub fn check_sources(root: &Docroot, paths: &[Vec<u8>], links: LinkMode) -> Result<(), DiskError> {
    let look = if links == LinkMode::Follow { Docroot::stat } else { Docroot::stat_itself };
    paths.iter().try_for_each(|path| match look(root, path)?.kind {
        Kind::File => root.open_file(path).map(drop),
        Kind::Folder => {
            root.open_folder(path)?.list().map(drop).map_err(|errno| DiskError::system("read", path, errno))
        }
        Kind::Link => Ok(()),
        Kind::Special => {
            Err(DiskError::new("send", path, Trouble::WrongKind, "it is neither a file nor a folder"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;

    use haul_proto::control::{PathText, Selection};

    use super::*;

    fn walk(root: &std::path::Path, paths: &[&str]) -> Vec<Record> {
        let items = paths.iter().map(|path| path.as_bytes().to_vec().into()).collect();
        walk_items(root, items, SourceOptions::default())
    }

    fn walk_items(root: &std::path::Path, items: Vec<SourceItem>, options: SourceOptions) -> Vec<Record> {
        let docroot = Docroot::open(root).unwrap();
        let (wake, woken) = channel();
        let wake = move || wake.send(()).unwrap_or_default();
        let mut source = Source::start(docroot, items, options, wake).unwrap();
        let mut records = Vec::new();
        while !matches!(records.last(), Some(Record::End { .. })) {
            match source.poll_record() {
                Some(record) => records.push(record),
                None => woken.recv().unwrap(),
            }
        }
        records
    }

    fn told(records: &[Record]) -> Vec<String> {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let line = |record: &Record| match record {
            Record::Folder { parent, name, .. } => format!("{parent} {}/", text(name)),
            Record::File { parent, name, size, .. } => format!("{parent} {} {size}", text(name)),
            Record::Link { parent, name, target, .. } => {
                format!("{parent} {} -> {}", text(name), text(target))
            }
            Record::Skipped { path, trouble, .. } => format!("skipped {} {trouble:?}", text(path)),
            Record::End { files, folders, bytes } => format!("end {files} {folders} {bytes}"),
        };
        records.iter().map(line).collect()
    }

    #[test]
    fn trees_are_listed_in_order_and_checkable() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("t/b/c")).unwrap();
        fs::create_dir_all(top.path().join("t/a")).unwrap();
        for (name, text) in
            [("t/z", "z"), ("t/b/y", "yy"), ("t/b/c/x", "xxx"), ("t/a/w", ""), ("alone", "1234")]
        {
            fs::write(top.path().join(name), text).unwrap();
        }
        symlink("../alone", top.path().join("t/link")).unwrap();
        symlink("..", top.path().join("t/b/loop")).unwrap();
        symlink("nowhere", top.path().join("t/b/dangling")).unwrap();
        symlink("/etc/passwd", top.path().join("t/b/escape")).unwrap();
        nix::unistd::mkfifo(&top.path().join("t/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let records = walk(top.path(), &["t/", "alone", "absent", "../up"]);
        assert_eq!(
            told(&records),
            [
                "0 t/",
                "1 link 4",
                "skipped t/pipe WrongKind",
                "1 z 1",
                "1 a/",
                "2 w 0",
                "1 b/",
                "skipped t/b/dangling NotFound",
                "skipped t/b/escape OutsideDocroot",
                "3 y 2",
                "3 c/",
                "4 x 3",
                "skipped t/b/loop WrongKind",
                "0 alone 4",
                "skipped absent NotFound",
                "skipped ../up OutsideDocroot",
                "end 6 4 14",
            ]
        );
        let mut check = haul_proto::manifest::TreeCheck::default();
        records.iter().for_each(|record| check.handle_record(record).unwrap());
    }

    fn with(selection: &Selection) -> SourceOptions {
        SourceOptions { filter: Filter::new(selection).unwrap(), ..SourceOptions::default() }
    }

    #[test]
    fn links_are_followed_copied_or_skipped() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("t/d")).unwrap();
        fs::write(top.path().join("t/f"), "1").unwrap();
        symlink("f", top.path().join("t/l")).unwrap();
        symlink("/etc", top.path().join("t/out")).unwrap();
        symlink("..", top.path().join("t/d/up")).unwrap();
        symlink("t/f", top.path().join("top")).unwrap();
        let links: &[&str] =
            &["0 t/", "1 f 1", "1 l -> f", "1 out -> /etc", "1 d/", "2 up -> ..", "0 top -> t/f"];
        let table: [(LinkMode, Vec<&str>); 3] = [
            (
                LinkMode::Follow,
                vec![
                    "0 t/",
                    "1 f 1",
                    "1 l 1",
                    "skipped t/out OutsideDocroot",
                    "1 d/",
                    "skipped t/d/up WrongKind",
                    "0 top 1",
                ],
            ),
            (LinkMode::Copy, links.to_vec()),
            (LinkMode::Skip, vec!["0 t/", "1 f 1", "1 d/"]),
        ];
        for (mode, expected) in table {
            let options = with(&Selection { symbolic_links: mode, ..Selection::default() });
            let items = vec![b"t".to_vec().into(), b"top".to_vec().into()];
            let mut lines = told(&walk_items(top.path(), items, options));
            lines.pop();
            assert_eq!(lines, expected, "{mode:?}");
        }
    }

    #[test]
    fn what_rules_leave_out_is_not_listed_and_folders_left_out_are_not_entered() {
        let top = tempfile::tempdir().unwrap();
        for name in ["t/a.tmp", "t/b", "t/logs/c", "t/x/logs", "top.tmp"] {
            fs::create_dir_all(top.path().join(name).parent().unwrap()).unwrap();
            fs::write(top.path().join(name), "").unwrap();
        }
        symlink("nowhere", top.path().join("t/dangling.tmp")).unwrap();
        let rules = |rules: &[&str]| {
            let filters = rules.iter().map(|rule| PathText::new(rule.as_bytes())).collect();
            with(&Selection { filters, ..Selection::default() })
        };
        let items = || vec![b"t".to_vec().into(), b"top.tmp".to_vec().into()];
        let lines = told(&walk_items(top.path(), items(), rules(&["-*.tmp", "-logs/"])));
        assert_eq!(lines, ["0 t/", "1 b 0", "1 x/", "2 logs 0", "end 2 2 0"]);
        let lines = told(&walk_items(top.path(), items(), rules(&["-*"])));
        assert_eq!(
            lines,
            ["0 t/", "end 0 1 0"],
            "the folder that was named is entered, whatever the rules say"
        );
    }

    #[test]
    fn sources_land_at_their_targets_in_folders_that_are_listed_once() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        for name in ["a/b/c/f", "a/b/g", "h"] {
            fs::write(top.path().join(name), "").unwrap();
        }
        let docroot = Docroot::open(top.path()).unwrap();
        let to = |path: &str, target: &str| SourceItem::to(path.into(), target.as_bytes()).unwrap();
        let pairs = vec![to("h", "x/y/1"), to("a/b/g", "x/y/2"), to("h", "x/3"), to("a/b", "z/renamed")];
        assert_eq!(
            told(&walk_items(top.path(), pairs, SourceOptions::default())),
            [
                "0 x/",
                "1 y/",
                "2 1 0",
                "2 2 0",
                "1 3 0",
                "0 z/",
                "3 renamed/",
                "4 g 0",
                "4 c/",
                "5 f 0",
                "end 5 5 0"
            ]
        );
        let below = |path: &str| SourceItem::below(&docroot, path.into(), b"a").unwrap();
        let records =
            walk_items(top.path(), vec![below("a/b/c/f"), below("a/b/g")], SourceOptions::default());
        assert_eq!(told(&records), ["0 b/", "1 c/", "2 f 0", "1 g 0", "end 2 2 0"]);
        let Record::Folder { attributes, .. } = records[0] else { panic!("a folder") };
        assert!(attributes.has_times(), "folders below the base are what they are there");
    }

    #[test]
    fn the_docroot_itself_has_no_name() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("d")).unwrap();
        fs::write(top.path().join("f"), "1").unwrap();
        for path in ["", ".", "/", "d/.."] {
            assert_eq!(told(&walk(top.path(), &[path])), ["0 f 1", "0 d/", "end 1 1 1"], "{path}");
        }
        assert_eq!(told(&walk(top.path(), &[])), ["end 0 0 0"]);
    }

    #[test]
    fn folders_below_the_deepest_are_skipped() {
        let top = tempfile::tempdir().unwrap();
        let path = "d/".repeat(256);
        fs::create_dir_all(top.path().join(&path)).unwrap();
        fs::create_dir(top.path().join(path + "e")).unwrap();
        let records = walk(top.path(), &["d"]);
        assert!(matches!(records.last(), Some(Record::End { folders: 256, .. })));
        assert!(matches!(&records[256], Record::Skipped { trouble: Trouble::Limit, .. }));
    }

    #[test]
    fn a_walk_that_nobody_follows_pauses_and_stops_at_once() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..RECORDS_AHEAD + 200 {
            fs::write(top.path().join(number.to_string()), "").unwrap();
        }
        let docroot = Docroot::open(top.path()).unwrap();
        let (wake, woken) = channel();
        let wake = move || wake.send(()).unwrap_or_default();
        let source =
            Source::start(docroot, vec![b"/".to_vec().into()], SourceOptions::default(), wake).unwrap();
        for _ in 0..RECORDS_AHEAD {
            woken.recv().unwrap();
        }
        drop(source);
        assert_eq!(woken.iter().count(), 0, "it had paused, and its threads are gone");
    }

    #[test]
    fn sources_are_checked_before_a_transfer() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "").unwrap();
        nix::unistd::mkfifo(&top.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let check = |path: &str| {
            check_sources(&docroot, &[b"f".to_vec(), path.as_bytes().to_vec()], LinkMode::Follow)
        };
        assert_eq!(check("."), Ok(()));
        assert_eq!(check("x").unwrap_err().to_string(), "cannot find x: No such file or directory");
        assert_eq!(check("..").unwrap_err().trouble, Trouble::OutsideDocroot);
        assert_eq!(check("pipe").unwrap_err().trouble, Trouble::WrongKind);
    }
}
