//! A first look at local paths, so that a hopeless run ends before anything is dialled.
//!
//! The answers may be stale when the transfer comes to the paths; it checks again. Not here: opening, reading, making.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use haul_proto::control::LinkMode;
use nix::unistd::{AccessFlags, access};

use crate::config::local_error;
use crate::error::ClientError;

/// Checks that a source exists and may be read; a link that is not followed need only exist.
///
/// # Errors
/// If it does not, with the path.
pub fn check_source(path: &Path, links: LinkMode) -> Result<(), ClientError> {
    let itself = fs::symlink_metadata(path).map_err(|error| local_error(path, error))?;
    if itself.is_symlink() && links != LinkMode::Follow {
        return Ok(());
    }
    let metadata = fs::metadata(path).map_err(|error| local_error(path, error))?;
    let needed = if metadata.is_dir() { AccessFlags::R_OK | AccessFlags::X_OK } else { AccessFlags::R_OK };
    check_access(path, needed)
}

/// Checks that a destination can take what comes: into an existing folder, or under a new name in an existing folder,
/// or into a folder to be made (`create`).
///
/// # Errors
/// If it cannot, with the way out.
pub fn check_destination(path: &Path, several: bool, create: bool) -> Result<(), ClientError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => check_access(path, AccessFlags::W_OK | AccessFlags::X_OK),
        Ok(_) if several || create => {
            Err(wrong(path, "not a folder", "several sources and -d need a folder"))
        }
        Ok(_) => check_access(&parent(path), AccessFlags::W_OK | AccessFlags::X_OK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_absent(path, several, create),
        Err(error) => Err(local_error(path, error)),
    }
}

fn check_absent(path: &Path, several: bool, create: bool) -> Result<(), ClientError> {
    use std::os::unix::ffi::OsStrExt;
    if create {
        // The nearest folder that exists has to take the new ones.
        let existing = path.ancestors().skip(1).find(|folder| folder.is_dir());
        return check_access(
            existing.unwrap_or_else(|| Path::new(".")),
            AccessFlags::W_OK | AccessFlags::X_OK,
        );
    }
    if several || path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(wrong(path, "no such folder", "make it, or add -d to have it made"));
    }
    let folder = parent(path);
    match fs::metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => check_access(&folder, AccessFlags::W_OK | AccessFlags::X_OK),
        Ok(_) => Err(wrong(&folder, "not a folder", "give another destination")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(wrong(&folder, "no such folder", "make it, or add -d to have it made"))
        }
        Err(error) => Err(local_error(&folder, error)),
    }
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn check_access(path: &Path, needed: AccessFlags) -> Result<(), ClientError> {
    access(path, needed).map_err(|errno| local_error(path, errno.into()))
}

fn wrong(path: &Path, message: &'static str, remedy: &'static str) -> ClientError {
    ClientError::LocalPath { path: path.to_owned(), message, remedy, source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_follow_the_table_of_ascp() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), b"").unwrap();
        // name, several sources, -d, fine
        for (n, (name, several, create, fine)) in [
            ("dir", false, false, true),
            ("dir", true, false, true),
            ("file", false, false, true),
            ("file", true, false, false),
            ("file", false, true, false),
            ("new", false, false, true),
            ("new", true, false, false),
            ("new", true, true, true),
            ("new/", false, false, false),
            ("no/such", false, false, false),
            ("no/such/deep", false, true, true),
            ("file/below", false, false, false),
        ]
        .into_iter()
        .enumerate()
        {
            let result = check_destination(&at(name), several, create);
            assert_eq!(result.is_ok(), fine, "row {n}: {name}: {result:?}");
        }
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = check_source(Path::new("/no/such\u{1b}file"), LinkMode::Follow).unwrap_err();
        assert_eq!(error.to_string(), "no such file or folder: /no/such\\u{1b}file");
        assert_eq!(error.exit_status(), crate::exit_status::ExitStatus::Path);
    }
}
