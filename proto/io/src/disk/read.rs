//! Reads the blocks of the content in order: each file's bytes, straight into the block, then its trailer.
//!
//! A file that cannot be read as it was listed keeps its place: the missing bytes are zero and its trailer says why.
//! Not here: which files there are, and what is wanted of them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use haul_proto::constants::{BLOCK_BYTES, TRAILER_BYTES};
use haul_proto::control::{Digest, ResumeCheck, Trouble};
use haul_proto::layout::{Extent, Layout};
use haul_proto::manifest::Trailer;
use haul_proto::verdict::{Decision, Missing, Verdict, Wanted as _};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::uio::pread;

use super::at_once::AtOnce;
use super::facts::Facts;
use super::helper::Work;
use super::sparse::is_hole;
use super::tree_digest::TreeDigest;
use super::walk::Listed;
use super::{DiskError, Docroot, SourceEvent};

/// Reads one block after the other.
#[derive(Debug)]
pub(super) struct Reader {
    root: Docroot,
    digest: Digest,
    resume: ResumeCheck,
    files: Receiver<Listed>,
    /// With verdicts: what is wanted of the files, where they stand therefore, and those that are wanted in part.
    decided: Option<Receiver<Decision>>,
    layout: Layout,
    parts: Vec<Listed>,
    /// What of these is wanted whole after all, last first; known when all else has been read.
    again: Option<Vec<Listed>>,
    /// The file that the last block ended in, or that starts after it.
    current: Option<Reading>,
    next_block: u64,
    stop: Arc<AtomicBool>,
}

/// A file on its way into blocks.
#[derive(Debug)]
struct Reading {
    listed: Listed,
    /// Where what is wanted of it stands.
    extent: Extent,
    missing: Option<Missing>,
    /// Open from its first byte to its last; the facts are those of the moment it was opened.
    open: Option<OwnedFd>,
    at_once: AtOnce,
    digest: Hashing,
    trouble: Option<Trouble>,
}

/// The digest of a file on its way.
#[derive(Debug)]
enum Hashing {
    None,
    /// Of a file that is read from its start to its end.
    Whole(Box<blake3::Hasher>),
    /// Of one that is read in part.
    Tree(TreeDigest),
    /// Of the part only, whose blocks count from its start.
    Part(TreeDigest),
}

impl Work for Reader {
    /// A used buffer for the next block.
    type Request = Vec<u8>;
    type Answer = SourceEvent;

    /// A block amid a file, if its bytes are in memory.
    fn try_at_once(&mut self, mut buffer: Vec<u8>) -> Result<SourceEvent, Vec<u8>> {
        let start = self.next_block * BLOCK_BYTES;
        let Some(reading) = self.current.as_mut().filter(|reading| {
            let extent = reading.extent;
            extent.offset <= start && start + BLOCK_BYTES <= extent.offset + extent.size
        }) else {
            return Err(buffer);
        };
        buffer.resize(BLOCK_BYTES as usize, 0);
        if !reading.read_at_once(start, &mut buffer) {
            return Err(buffer);
        }
        Ok(self.block(buffer))
    }

    fn may_be_done_at_once(&self) -> bool {
        self.current.as_ref().is_some_and(|reading| reading.at_once != AtOnce::Never)
    }

    fn wait_for(&mut self, buffer: Vec<u8>) -> SourceEvent {
        let data = self.read_block(buffer);
        if data.is_empty() { SourceEvent::End { blocks: self.next_block } } else { self.block(data) }
    }
}

impl Reader {
    pub(super) fn new(
        root: Docroot,
        (digest, resume): (Digest, ResumeCheck),
        (files, decided): (Receiver<Listed>, Option<Receiver<Decision>>),
        stop: Arc<AtomicBool>,
    ) -> Self {
        let (layout, parts) = (Layout::default(), Vec::new());
        Self {
            root,
            digest,
            resume,
            files,
            decided,
            layout,
            parts,
            again: None,
            current: None,
            next_block: 0,
            stop,
        }
    }

    const fn block(&mut self, data: Vec<u8>) -> SourceEvent {
        let block = self.next_block;
        self.next_block += 1;
        SourceEvent::Block { block, data }
    }

    /// The bytes that the next block uses; none if there is no further block.
    fn read_block(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        let start = self.next_block * BLOCK_BYTES;
        // The whole length at once, and cut at the end: a buffer that comes back full is not cleared again.
        buffer.resize(BLOCK_BYTES as usize, 0);
        let mut used = 0;
        while used < buffer.len() {
            let Some(mut reading) = self.current(used > 0) else {
                break;
            };
            let taken = reading.fill(start, used, &mut buffer);
            if taken.bytes == 0 {
                // The file, or its trailer, starts at the next boundary.
                break;
            }
            used += taken.bytes;
            if taken.whole {
                self.current = None;
            }
        }
        buffer.truncate(used);
        buffer
    }

    /// The file whose bytes come next; waits for the walk to tell it, and for the receiver's verdict. With a block
    /// that has been begun it does not wait for what may depend on the end of that block.
    fn current(&mut self, begun: bool) -> Option<OpenOn<'_>> {
        if self.current.is_none() {
            let (listed, missing, extent) = self.next_file(begun)?;
            let digest = self.hashing(&missing, listed.facts.size);
            let at_once = AtOnce::Never;
            self.current =
                Some(Reading { listed, extent, missing, open: None, at_once, digest, trouble: None });
        }
        let stop = &self.stop;
        self.current.as_mut().map(|reading| OpenOn { root: &self.root, stop, reading })
    }

    fn next_file(&mut self, begun: bool) -> Option<(Listed, Option<Missing>, Extent)> {
        let Some(decided) = &self.decided else {
            let listed = self.files.recv().ok()?;
            let extent = listed.extent;
            return Some((listed, None, extent));
        };
        while let Ok(listed) = self.files.recv() {
            // Not told any more if the session ends.
            let Decision::File(verdict) = decided.recv().ok()? else { return None };
            let missing = match verdict {
                Verdict::Skip => continue,
                Verdict::All => None,
                Verdict::Part(missing) => {
                    self.parts.push(listed.clone());
                    Some(missing)
                }
            };
            let extent = self.layout.push(missing.wanted_bytes(listed.facts.size))?;
            return Some((listed, missing, extent));
        }
        // Once it is known which files come again, they follow one another as the first ones do.
        if self.again.is_none() && (begun || self.parts.is_empty()) {
            return None;
        }
        self.next_again()
    }

    /// The next of the files that were read in part and are wanted whole after all.
    fn next_again(&mut self) -> Option<(Listed, Option<Missing>, Extent)> {
        if self.again.is_none() {
            let Ok(Decision::Again(places)) = self.decided.as_ref()?.recv() else { return None };
            self.layout.break_block();
            let mut parts: Vec<Option<Listed>> =
                std::mem::take(&mut self.parts).into_iter().map(Some).collect();
            let place = |at: u64| parts.get_mut(usize::try_from(at).ok()?)?.take();
            self.again = Some(places.into_iter().rev().filter_map(place).collect());
        }
        let listed = self.again.as_mut()?.pop()?;
        let extent = self.layout.push(listed.facts.size)?;
        Some((listed, None, extent))
    }

    fn hashing(&self, missing: &Option<Missing>, size: u64) -> Hashing {
        if !Trailer::wants(self.digest) {
            return Hashing::None;
        }
        match missing {
            None => Hashing::Whole(Box::default()),
            Some(missing) if self.resume == ResumeCheck::Attributes => {
                Hashing::Part(TreeDigest::of_part(missing.blocks()))
            }
            Some(_) => Hashing::Tree(TreeDigest::new(size)),
        }
    }
}

struct Taken {
    bytes: usize,
    whole: bool,
}

/// A file and where to open it.
struct OpenOn<'a> {
    root: &'a Docroot,
    stop: &'a AtomicBool,
    reading: &'a mut Reading,
}

impl OpenOn<'_> {
    /// Puts what belongs into the block at `start` behind the `used` bytes of the buffer.
    fn fill(&mut self, start: u64, used: usize, buffer: &mut [u8]) -> Taken {
        let extent = self.reading.extent;
        let (end, position) = (start + BLOCK_BYTES, start + used as u64);
        let mut bytes = 0;
        let content_end = extent.offset + extent.size;
        if extent.offset <= position && position < content_end {
            bytes = (content_end.min(end) - position) as usize;
            if let Some(into) = buffer.get_mut(used..used + bytes) {
                let offset = self.reading.missing.file_offset(position - extent.offset);
                self.content(offset, into);
            }
        }
        let at = used + bytes;
        let whole = extent.trailer == start + at as u64 && at < buffer.len();
        if whole && let Some(into) = buffer.get_mut(at..at + TRAILER_BYTES as usize) {
            into.copy_from_slice(&self.finish().encode());
            bytes += TRAILER_BYTES as usize;
        }
        Taken { bytes, whole }
    }

    fn content(&mut self, offset: u64, into: &mut [u8]) {
        let opened = match self.reading.trouble {
            Some(trouble) => Err(trouble),
            None => self.open(),
        };
        match opened.and_then(|()| self.reading.read(offset, into)) {
            Ok(()) => self.reading.digest(offset, into),
            Err(trouble) => {
                self.reading.trouble = Some(trouble);
                into.fill(0);
            }
        }
    }

    fn open(&mut self) -> Result<(), Trouble> {
        if self.reading.open.is_some() {
            return Ok(());
        }
        let listed = &self.reading.listed;
        let (file, facts) = self.root.open_file(&listed.path).map_err(|error| told(&error))?;
        if !facts.same_content(&listed.facts) {
            tracing::debug!(path = %listed.path.escape_ascii(), "changed since it was listed");
            return Err(Trouble::SourceChanged);
        }
        if listed.facts.size > BLOCK_BYTES {
            // Only a hint.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
            if !facts.sparse {
                self.reading.at_once = AtOnce::of(&file, !matches!(self.reading.digest, Hashing::None));
            }
        }
        self.reading.open = Some(file);
        Ok(())
    }

    fn finish(&mut self) -> Trailer {
        // An empty file has not been opened yet; whether it may be read is told by opening it.
        let outcome = match self.reading.trouble {
            Some(trouble) => Err(trouble),
            None => self.open().and_then(|()| self.digest_held()).and_then(|()| self.reading.check()),
        };
        match (outcome, &self.reading.digest) {
            (Err(trouble), _) => Trailer { trouble: Some(trouble), ..Trailer::whole(None) },
            (Ok(()), Hashing::None) => Trailer::whole(None),
            (Ok(()), Hashing::Whole(hasher)) => Trailer::whole(Some(*hasher.finalize().as_bytes())),
            (Ok(()), Hashing::Tree(digest)) => Trailer::whole(digest.finish()),
            (Ok(()), Hashing::Part(digest)) => Trailer::part(digest.finish()),
        }
    }

    /// Reads what the receiver holds already, for the digest of the whole.
    fn digest_held(&mut self) -> Result<(), Trouble> {
        let (Hashing::Tree(_), Some(missing)) = (&self.reading.digest, &self.reading.missing) else {
            return Ok(());
        };
        let size = self.reading.listed.facts.size;
        let held: Vec<_> = missing.held(size.div_ceil(BLOCK_BYTES)).collect();
        let mut buffer = vec![0; BLOCK_BYTES as usize];
        for block in held.into_iter().flatten() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Trouble::Interrupted);
            }
            let offset = block * BLOCK_BYTES;
            let bytes = (size - offset).min(BLOCK_BYTES) as usize;
            let into = buffer.get_mut(..bytes).unwrap_or_default();
            self.reading.read(offset, into)?;
            self.reading.digest(offset, into);
        }
        Ok(())
    }
}

impl Reading {
    /// Reads from `position` of the content, without waiting.
    fn read_at_once(&mut self, position: u64, into: &mut [u8]) -> bool {
        let (Some(file), None) = (&self.open, self.trouble) else {
            return false;
        };
        let offset = self.missing.file_offset(position - self.extent.offset);
        let done = self.at_once.read(file, into, offset);
        if done {
            self.digest(offset, into);
        }
        done
    }

    fn digest(&mut self, offset: u64, bytes: &[u8]) {
        match &mut self.digest {
            Hashing::None => {}
            Hashing::Whole(hasher) => drop(hasher.update(bytes)),
            Hashing::Tree(digest) => digest.update(offset, bytes),
            Hashing::Part(digest) => {
                let place =
                    self.missing.as_ref().and_then(|missing| missing.position_of(offset / BLOCK_BYTES));
                if let Some(place) = place {
                    digest.add(place, TreeDigest::value(offset, bytes));
                }
            }
        }
    }

    fn read(&self, offset: u64, mut into: &mut [u8]) -> Result<(), Trouble> {
        let file = self.open.as_ref().ok_or(Trouble::Internal)?;
        // One that has become shorter is found out at its end.
        if self.listed.facts.sparse && is_hole(file, offset, into.len() as u64) {
            into.fill(0);
            return Ok(());
        }
        let mut offset = i64::try_from(offset).map_err(|_| Trouble::Internal)?;
        while !into.is_empty() {
            match pread(file, into, offset) {
                Ok(0) => return Err(Trouble::SourceChanged),
                Ok(count) => {
                    into = into.get_mut(count..).unwrap_or_default();
                    offset += count as i64;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(told(&DiskError::system("read", &self.listed.path, errno))),
            }
        }
        Ok(())
    }

    /// Whether the file is still what it was when it was listed.
    fn check(&self) -> Result<(), Trouble> {
        let file = self.open.as_ref().ok_or(Trouble::Internal)?;
        let facts =
            Facts::of(file).map_err(|errno| told(&DiskError::system("read", &self.listed.path, errno)))?;
        if facts.same_content(&self.listed.facts) { Ok(()) } else { Err(Trouble::SourceChanged) }
    }
}

/// The receiver hears only the kind of trouble, so the words are logged here.
fn told(error: &DiskError) -> Trouble {
    tracing::info!(%error, "a source failed");
    error.trouble
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::mpsc::channel;

    use haul_proto::manifest::Record;

    use super::super::{Source, SourceOptions};
    use super::*;

    struct Run {
        source: Source,
        woken: Receiver<()>,
    }

    impl Run {
        fn start(root: &Path, digest: Digest) -> Self {
            let (wake, woken) = channel();
            let docroot = Docroot::open(root).unwrap();
            let wake = move || wake.send(()).unwrap_or_default();
            let options = SourceOptions { digest, ..SourceOptions::default() };
            Self { source: Source::start(docroot, vec![b"/".to_vec().into()], options, wake).unwrap(), woken }
        }

        fn record(&mut self) -> Record {
            loop {
                match self.source.poll_record() {
                    Some(record) => return record,
                    None => self.woken.recv().unwrap(),
                }
            }
        }

        fn block(&mut self, buffer: Vec<u8>) -> SourceEvent {
            self.source.request(buffer);
            loop {
                match self.source.poll_block().unwrap() {
                    Some(event) => return event,
                    None => self.woken.recv().unwrap(),
                }
            }
        }

        fn data(&mut self) -> Vec<u8> {
            match self.block(Vec::new()) {
                SourceEvent::Block { data, .. } => data,
                end @ SourceEvent::End { .. } => panic!("{end:?}"),
            }
        }
    }

    const B: usize = BLOCK_BYTES as usize;

    #[test]
    fn blocks_are_what_the_layout_says() {
        let top = tempfile::tempdir().unwrap();
        let sizes = [0, 100, B - 40, B - 39, 5, 2 * B + 7, B, 1];
        let content = |number: usize| vec![b'a' + number as u8; sizes[number]];
        for number in 0..sizes.len() {
            fs::write(top.path().join(number.to_string()), content(number)).unwrap();
        }
        let mut layout = Layout::default();
        let extents: Vec<_> = sizes.iter().map(|&size| layout.push(size as u64).unwrap()).collect();
        layout.finish();
        let mut run = Run::start(top.path(), Digest::Blake3);
        let mut all = Vec::new();
        for block in 0..layout.settled_blocks() {
            let SourceEvent::Block { data, .. } = run.block(vec![0xee; B]) else { panic!("end") };
            assert_eq!(data.len() as u64, layout.used(block).unwrap(), "block {block}");
            assert!(data.capacity() == B);
            all.extend_from_slice(&data);
            all.resize((block as usize + 1) * B, 0);
        }
        let blocks = layout.settled_blocks();
        assert_eq!(run.block(Vec::new()), SourceEvent::End { blocks });
        for (number, extent) in extents.iter().enumerate() {
            let (offset, trailer) = (extent.offset as usize, extent.trailer as usize);
            assert!(all[offset..offset + sizes[number]] == content(number), "file {number}");
            let digest = Some(*blake3::hash(&content(number)).as_bytes());
            assert_eq!(Trailer::decode(&all[trailer..]), Some(Trailer::whole(digest)), "file {number}");
        }
    }

    #[test]
    fn nothing_to_send_is_an_end_at_once() {
        let top = tempfile::tempdir().unwrap();
        let mut run = Run::start(top.path(), Digest::None);
        assert_eq!(run.record(), Record::End { files: 0, folders: 0, bytes: 0 });
        assert_eq!(run.block(Vec::new()), SourceEvent::End { blocks: 0 });
    }

    #[test]
    fn files_that_change_after_they_were_listed_are_told() {
        let top = tempfile::tempdir().unwrap();
        let file = |name: &str| top.path().join(name);
        for name in ["a-shrinks", "b-grows", "c-vanishes", "d-stays", "e-is-touched"] {
            fs::write(file(name), [b'x'; 1000]).unwrap();
        }
        let mut run = Run::start(top.path(), Digest::Blake3);
        while !matches!(run.record(), Record::End { .. }) {}
        fs::write(file("a-shrinks"), "x").unwrap();
        fs::write(file("b-grows"), [b'x'; 1001]).unwrap();
        fs::remove_file(file("c-vanishes")).unwrap();
        let touched = fs::File::options().write(true).open(file("e-is-touched")).unwrap();
        touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let data = run.data();
        assert_eq!(data.len(), 5 * 1040);
        let troubles: Vec<_> =
            data.chunks(1040).map(|part| Trailer::decode(&part[1000..]).unwrap().trouble).collect();
        let changed = Some(Trouble::SourceChanged);
        assert_eq!(troubles, [changed, changed, Some(Trouble::NotFound), None, changed]);
        assert!(data[..1000].iter().all(|&byte| byte == 0), "what cannot be trusted is not sent");
    }

    #[test]
    fn a_file_that_shrinks_or_grows_while_it_is_read_is_told() {
        for new_size in [B as u64 + 5, 4 * B as u64] {
            let top = tempfile::tempdir().unwrap();
            fs::write(top.path().join("f"), vec![b'x'; 3 * B]).unwrap();
            let mut run = Run::start(top.path(), Digest::Blake3);
            assert!(run.data() == vec![b'x'; B]);
            fs::File::options().write(true).open(top.path().join("f")).unwrap().set_len(new_size).unwrap();
            assert_eq!(run.data().len(), B);
            assert_eq!(run.data().len(), B);
            let trailer = Trailer::decode(&run.data()).unwrap();
            assert_eq!(trailer.trouble, Some(Trouble::SourceChanged));
        }
    }

    #[test]
    fn without_a_digest_none_is_taken() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        let data = Run::start(top.path(), Digest::None).data();
        assert_eq!(Trailer::decode(&data[1..]), Some(Trailer::whole(None)));
    }
}
