//! A server and a folder of the client's, between which a test copies in either direction with the same words.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::scratch;
use super::{Client, Server, ServerOptions};

/// Which way the data goes, named from the client's chair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
}

/// Both ways.
pub const WAYS: [Way; 2] = [Way::Up, Way::Down];

/// A running server and a folder here.
#[derive(Debug)]
pub struct Pair {
    /// The server; its docroot is the far folder.
    pub server: Server,
    here: TempDir,
}

impl Pair {
    /// Starts the server.
    #[must_use]
    pub fn start(options: ServerOptions) -> Self {
        Self { server: Server::start(options), here: scratch() }
    }

    /// The client's folder.
    #[must_use]
    pub fn here(&self) -> &Path {
        self.here.path()
    }

    /// The folder that sources of this way are in.
    #[must_use]
    pub fn from(&self, way: Way) -> PathBuf {
        if way == Way::Up { self.here().to_owned() } else { self.server.docroot() }
    }

    /// The folder that destinations of this way are in.
    #[must_use]
    pub fn to(&self, way: Way) -> PathBuf {
        if way == Way::Up { self.server.docroot() } else { self.here().to_owned() }
    }

    /// `haul --json SOURCE... DESTINATION`, all paths below the two folders; options may follow.
    #[must_use]
    pub fn copy<S: AsRef<Path>>(&self, way: Way, sources: &[S], destination: &str) -> Client {
        let mut client = self.server.client().arg("--json");
        for source in sources {
            client = client.arg(match way {
                Way::Up => self.below_here(source.as_ref()),
                Way::Down => self.remote(source.as_ref()),
            });
        }
        client.arg(match way {
            Way::Up => self.remote(Path::new(destination)),
            Way::Down => self.below_here(Path::new(destination)),
        })
    }

    fn remote(&self, path: &Path) -> OsString {
        let mut operand = OsString::from(self.server.destination(""));
        operand.push(path);
        operand
    }

    /// Keeps a slash at the end, which says "folder".
    fn below_here(&self, path: &Path) -> OsString {
        let mut operand = self.here().as_os_str().to_owned();
        if !path.as_os_str().as_bytes().is_empty() {
            operand.push("/");
            operand.push(path);
        }
        operand
    }
}
