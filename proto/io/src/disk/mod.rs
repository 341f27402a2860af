//! Files on both ends of a transfer: blocking calls on a few threads of their own.
//!
//! [`Docroot`] is the only code that resolves a path which came from the wire. [`Source`] walks and reads what is sent;
//! [`Sink`] stores what is received, and no file stands under its final name before it is whole and its digest agrees.
//! Not here: when to read or write (the machines of [`haul_proto`] decide), sockets, settings.

mod after;
mod at_once;
pub mod browse;
mod destination;
mod docroot;
mod facts;
mod filter;
mod folder;
mod folders;
mod helper;
mod judge;
mod keep;
mod landing;
mod link;
mod partial;
mod pattern;
mod read;
#[cfg(test)]
mod round_trip;
mod sink;
mod source;
mod sparse;
mod tree_digest;
mod walk;
mod write;

pub use after::{After, Settled};
pub use destination::{Destination, resolve_destination, resolve_renamed};
pub use docroot::Docroot;
pub use filter::Filter;
pub use landing::SourceItem;
pub use sink::{Sink, SinkOptions};
pub use source::{Source, SourceEvent, SourceOptions, check_sources};

use haul_proto::control::Trouble;
use nix::errno::Errno;

/// The disk refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} {}: {reason}", shown(.path))]
pub struct DiskError {
    /// On what, as the one who asked knows it.
    pub path: Vec<u8>,
    /// Kind of trouble.
    pub trouble: Trouble,
    /// What was to be done: the verb of the sentence.
    pub action: &'static str,
    /// Why it was not.
    pub reason: String,
    /// The system's word for it, if the system refused.
    pub errno: Option<Errno>,
}

impl DiskError {
    pub(super) fn new(
        action: &'static str,
        path: &[u8],
        trouble: Trouble,
        reason: impl Into<String>,
    ) -> Self {
        Self { path: path.to_vec(), trouble, action, reason: reason.into(), errno: None }
    }

    pub(super) fn system(action: &'static str, path: &[u8], errno: Errno) -> Self {
        let trouble = trouble_of(errno);
        Self { path: path.to_vec(), trouble, action, reason: errno.desc().to_owned(), errno: Some(errno) }
    }

    /// The sentence without the path, for places that tell the path beside it.
    #[must_use]
    pub fn without_path(&self) -> String {
        format!("cannot {}: {}", self.action, self.reason)
    }
}

/// The kind of trouble that an error of the system means.
const fn trouble_of(errno: Errno) -> Trouble {
    match errno {
        Errno::ENOENT => Trouble::NotFound,
        Errno::EACCES | Errno::EPERM => Trouble::PermissionDenied,
        Errno::ENOSPC | Errno::EDQUOT => Trouble::DiskFull,
        Errno::EXDEV | Errno::ELOOP => Trouble::OutsideDocroot,
        Errno::ENOTDIR | Errno::EISDIR | Errno::EEXIST | Errno::ENOTEMPTY => Trouble::WrongKind,
        Errno::ENAMETOOLONG | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Trouble::Limit,
        _ => Trouble::Disk,
    }
}

/// A path for people: what is no text or would move the cursor is replaced.
fn shown(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let text = String::from_utf8_lossy(path);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `path` and `name` below it. An empty path is the folder where paths start.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let separator: &[u8] = if path.is_empty() || path.ends_with(b"/") { b"" } else { b"/" };
    [path, separator, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sentences() {
        let full = DiskError::system("write", b"/x/\x1by", Errno::ENOSPC);
        assert_eq!(full.to_string(), "cannot write /x/\u{fffd}y: No space left on device");
        assert_eq!(full.trouble, Trouble::DiskFull);
        assert_eq!(full.without_path(), "cannot write: No space left on device");
    }

    #[test]
    fn names_are_joined_with_one_slash() {
        for (path, joined) in
            [(&b""[..], &b"n"[..]), (b"/", b"/n"), (b"a", b"a/n"), (b"a/", b"a/n"), (b".", b"./n")]
        {
            assert_eq!(join(path, b"n"), joined);
        }
    }
}
