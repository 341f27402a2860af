//! The folders of a transfer at the receiver: made once, opened when needed, given their modes and times at the end.

use std::collections::HashMap;
use std::sync::Arc;

use haul_proto::control::Trouble;
use haul_proto::disk::FolderEntry;
use haul_proto::manifest::Attributes;
use nix::errno::Errno;

use super::facts::Kind;
use super::folder::{Folder, set_mode, set_times};
use super::write::Fault;
use super::{DiskError, join};

/// Folders kept open; few in tests, so that they are closed and opened again.
const OPEN_FOLDERS: usize = if cfg!(test) { 3 } else { 256 };

/// Longest path that is told of a failed entry, bytes. A hundred of them fit into a message of the conversation.
const TOLD_PATH_BYTES: usize = 4096;

#[derive(Debug)]
struct Book {
    parent: u64,
    name: Vec<u8>,
    attributes: Attributes,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is there: its device and inode, and whether we made it.
    Present { identity: (u64, u64), made: bool },
    /// It could not be made; what it should hold fails too.
    Failed,
}

/// The folders of a transfer. Number 0 is the destination.
#[derive(Debug)]
pub(super) struct Folders {
    destination: Arc<Folder>,
    /// Of the destination, as it is told.
    path: Vec<u8>,
    books: Vec<Book>,
    /// Open folders and when they were last wanted.
    open: HashMap<u64, (Arc<Folder>, u64)>,
    wants: u64,
}

impl Folders {
    pub(super) fn new(destination: Folder, path: Vec<u8>) -> Self {
        Self { destination: Arc::new(destination), path, books: Vec::new(), open: HashMap::new(), wants: 0 }
    }

    /// Makes a folder, or takes the one that is there.
    /// Without a name it is only entered in the books, so that numbers stay right.
    pub(super) fn make(
        &mut self,
        entry: &FolderEntry,
        name: Result<Vec<u8>, Fault>,
        umask: u32,
    ) -> Result<(), Fault> {
        let FolderEntry { parent, attributes, .. } = *entry;
        let attributes = Attributes { mode: attributes.mode & 0o777 & !umask, ..attributes };
        let booked = name.as_ref().unwrap_or(&entry.name).clone();
        self.books.push(Book { parent, name: booked, attributes, state: State::Failed });
        let name = &name?;
        if entry.id != self.books.len() as u64 {
            return Err(Fault::entry(Trouble::Internal, "folders came out of order"));
        }
        let above = self.open(parent)?;
        let fault = |folders: &Self, errno| {
            Fault::system("make the folder", &folders.full_path(entry.id), errno, &above, None)
        };
        let made = match above.make_folder(name, 0o700 | attributes.mode) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(fault(self, errno)),
        };
        let folder = open_real(&above, name)
            .map_err(|fault_or| fault_or.unwrap_or_else(|errno| fault(self, errno)))?;
        let identity = folder.facts().map_err(|errno| fault(self, errno))?.identity;
        if let Some(book) = self.books.last_mut() {
            book.state = State::Present { identity, made };
        }
        self.keep(entry.id, Arc::new(folder));
        Ok(())
    }

    /// A folder by its number, open.
    pub(super) fn open(&mut self, id: u64) -> Result<Arc<Folder>, Fault> {
        self.wants += 1;
        let mut missing = Vec::new();
        let mut at = id;
        let mut folder = loop {
            if at == 0 {
                break Arc::clone(&self.destination);
            }
            if let Some((folder, wanted)) = self.open.get_mut(&at) {
                *wanted = self.wants;
                break Arc::clone(folder);
            }
            missing.push(at);
            // Parents have smaller numbers, so this ends.
            at = self.book(at).map_or(0, |book| book.parent.min(at - 1));
        };
        for id in missing.into_iter().rev() {
            folder = Arc::new(self.reopen(&folder, id)?);
            self.keep(id, Arc::clone(&folder));
        }
        Ok(folder)
    }

    fn reopen(&self, above: &Folder, id: u64) -> Result<Folder, Fault> {
        let Some(Book { name, state: State::Present { identity, .. }, .. }) = self.book(id) else {
            return Err(Fault::entry(Trouble::WrongKind, "the folder that should hold it could not be made"));
        };
        let fault = |errno| Fault::system("open the folder", &self.full_path(id), errno, above, None);
        let folder = open_real(above, name).map_err(|fault_or| fault_or.unwrap_or_else(fault))?;
        if folder.facts().map_err(fault)?.identity == *identity {
            Ok(folder)
        } else {
            Err(Fault::entry(Trouble::WrongKind, "the folder that should hold it was replaced meanwhile"))
        }
    }

    fn keep(&mut self, id: u64, folder: Arc<Folder>) {
        if self.open.len() >= OPEN_FOLDERS {
            let oldest = self.open.iter().min_by_key(|(_, (_, wanted))| *wanted).map(|(&id, _)| id);
            if let Some(oldest) = oldest {
                self.open.remove(&oldest);
            }
        }
        self.open.insert(id, (folder, self.wants));
    }

    fn book(&self, id: u64) -> Option<&Book> {
        self.books.get(usize::try_from(id.checked_sub(1)?).ok()?)
    }

    /// The path of an entry below the destination; a very long one loses its start.
    pub(super) fn path_of(&self, parent: u64, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut bytes = name.len();
        let mut at = parent;
        while let Some(book) = self.book(at).filter(|_| bytes < TOLD_PATH_BYTES) {
            names.push(&book.name);
            bytes += book.name.len() + 1;
            at = book.parent.min(at - 1);
        }
        names.reverse();
        let path = names.join(&b'/');
        path.get(path.len().saturating_sub(TOLD_PATH_BYTES)..).unwrap_or_default().to_vec()
    }

    fn full_path(&self, id: u64) -> Vec<u8> {
        self.book(id).map_or_else(Vec::new, |book| self.below_destination(book.parent, &book.name))
    }

    /// The path of an entry with the destination, for errors that end the session.
    pub(super) fn below_destination(&self, parent: u64, name: &[u8]) -> Vec<u8> {
        join(&self.path, &self.path_of(parent, name))
    }

    /// Gives folders their modes and times, deepest first, and makes everything durable.
    pub(super) fn finish(&mut self, preserve_times: bool) -> Result<(), DiskError> {
        // A folder's number is larger than those of the folders that hold it.
        for id in (1..=self.books.len() as u64).rev() {
            match self.settle(id, preserve_times) {
                Err(Fault::Session(error)) => return Err(error),
                Err(Fault::Entry { message, .. }) => {
                    let path = self.full_path(id);
                    tracing::warn!(path = %path.escape_ascii(), message, "mode and times of a folder are not set");
                }
                Ok(()) => {}
            }
        }
        self.open.clear();
        match nix::unistd::syncfs(&*self.destination) {
            // A folder that may be entered but not listed cannot be synced through.
            Ok(()) | Err(Errno::EBADF | Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(DiskError::system("make durable what was written to", &self.path, errno)),
        }
    }

    fn settle(&mut self, id: u64, preserve_times: bool) -> Result<(), Fault> {
        let Some(&Book { attributes, state: State::Present { made, .. }, .. }) = self.book(id) else {
            return Ok(());
        };
        let preserve_times = preserve_times && attributes.has_times();
        if !made && !preserve_times {
            return Ok(());
        }
        let folder = self.open(id)?;
        let fault = |errno| Fault::system("settle the folder", &self.full_path(id), errno, &folder, None);
        if made {
            // A folder may inherit its group and that bit; both are the destination's wish.
            let inherited = folder.facts().map_err(fault)?.mode & 0o2000;
            set_mode(&*folder, attributes.mode | inherited).map_err(fault)?;
        }
        match set_times(&*folder, &attributes) {
            _ if !preserve_times => Ok(()),
            Err(Errno::EBADF) => Ok(()),
            result => result.map_err(fault),
        }
    }
}

/// Opens a folder that is neither a link nor anything else. The inner error is the system's.
fn open_real(above: &Folder, name: &[u8]) -> Result<Folder, Result<Fault, Errno>> {
    let refuse = |trouble, reason: &str| Err(Ok(Fault::entry(trouble, reason)));
    match above.stat(name).map_err(Err)?.kind {
        Kind::Folder => above.open_folder(name).map_err(Err),
        Kind::Link => refuse(Trouble::OutsideDocroot, "a symbolic link stands where a folder is needed"),
        Kind::File | Kind::Special => refuse(Trouble::WrongKind, "a file stands where a folder is needed"),
    }
}
