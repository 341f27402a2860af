//! Starts the real `hauld` and `haul` for scenarios, and ends them again.
//!
//! It knows their command lines and configuration as a user does, and nothing of their insides. All
//! waiting polls with a deadline; everything a process said is shown when something fails.

mod client;
mod deadline;
mod pair;
mod process;
mod server;

use std::path::{Path, PathBuf};

pub use client::{Client, Outcome, Running};
pub use pair::{Pair, WAYS, Way};
pub use process::{children_of, wait_until};
pub use server::{Account, Server, ServerOptions, USER, has_ipv6_loopback, make_key};

/// Where the program built with this test executable is.
///
/// # Panics
/// When it has not been built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let mut directory = own.parent().expect("a program is in a directory");
    if directory.ends_with("deps") {
        directory = directory.parent().expect("deps is in the profile's directory");
    }
    let path = directory.join(name);
    assert!(path.is_file(), "{} is missing: run ./tests/all, which builds it", path.display());
    path
}

/// A directory for one test, in memory where there is `/dev/shm`; others may pass through it.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    scratch_in(&if memory.is_dir() { memory } else { std::env::temp_dir() })
}

/// As `scratch`, in a place of the caller's.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn scratch_in(parent: &Path) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::Builder::new()
        .prefix("haul-test-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in(parent)
        .unwrap_or_else(|error| panic!("make a directory in {}: {error}", parent.display()));
    // The creation mode passes the umask, which may be strict.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("our own directory's mode can be set");
    directory
}
