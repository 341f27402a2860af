//! Where received entries land, by the rules that scp and ascp users know. Not here: storing them.

use haul_proto::control::Trouble;
use haul_proto::manifest::is_component;

use super::facts::Kind;
use super::folder::Folder;
use super::keep;
use super::{DiskError, Docroot};

/// Where received entries land.
#[derive(Debug)]
pub struct Destination {
    pub(super) folder: Folder,
    /// New name of the single entry at the top.
    pub(super) rename: Option<Vec<u8>>,
    /// The folder, as it is told.
    pub(super) path: Vec<u8>,
}

impl Destination {
    /// Whether a single source gets the destination's last name.
    #[must_use]
    pub const fn renames(&self) -> bool {
        self.rename.is_some()
    }

    /// Whether something can be there already of sources that will have these names, or of an earlier attempt at them.
    /// Without names: whether anything is there.
    #[must_use]
    pub fn may_hold<'a>(&self, names: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let is_there = |name: &[u8]| {
            self.folder.stat(name).is_ok() || self.folder.stat(&keep::names(name).journal).is_ok()
        };
        if let Some(rename) = &self.rename {
            return is_there(rename);
        }
        let mut names = names.into_iter().peekable();
        if names.peek().is_some() {
            return names.any(is_there);
        }
        let dots = |name: &[u8]| name == b"." || name == b"..";
        self.folder.list().map_or(true, |listing| {
            listing.into_iter().map_while(Result::ok).any(|entry| !dots(entry.file_name().to_bytes()))
        })
    }
}

const ACTION: &str = "write to";

/// Finds out where `source_count` sources land.
///
/// | `destination` is | with `create` | without |
/// |---|---|---|
/// | a folder | entries land in it | entries land in it |
/// | absent | it is made, entries land in it | a single source gets this name; several are refused |
/// | a file | refused | a single source replaces it; several are refused |
///
/// A trailing slash says that it must be a folder.
///
/// # Errors
/// If the sources cannot land there; the message says what to do.
pub fn resolve_destination(
    docroot: &Docroot,
    destination: &[u8],
    create: bool,
    source_count: u32,
) -> Result<Destination, DiskError> {
    let refuse = |trouble, reason: &str| Err(DiskError::new(ACTION, destination, trouble, reason));
    let must_be_folder = source_count != 1 || destination.ends_with(b"/");
    match docroot.stat(destination).map(|facts| facts.kind) {
        Ok(Kind::Folder) => {
            let folder = docroot.open_folder(destination)?;
            Ok(Destination { folder, rename: None, path: destination.to_vec() })
        }
        Ok(Kind::File) if create || must_be_folder => {
            refuse(Trouble::WrongKind, "it is a file, and a folder is needed; name another destination")
        }
        Ok(Kind::File) => beside(docroot, destination),
        Ok(Kind::Link | Kind::Special) => refuse(Trouble::WrongKind, "it is neither a file nor a folder"),
        Err(error) if error.trouble != Trouble::NotFound => Err(error),
        Err(_) if create => {
            let folder = docroot.make_folders(destination)?;
            Ok(Destination { folder, rename: None, path: destination.to_vec() })
        }
        Err(_) if must_be_folder => refuse(Trouble::NotFound, "there is no such folder; -d makes it"),
        Err(_) => beside(docroot, destination),
    }
}

/// Where a single source lands that got the destination's name in an earlier attempt: whatever stands there now is what
/// that attempt has left.
///
/// # Errors
/// If the folder that holds it is gone.
pub fn resolve_renamed(docroot: &Docroot, destination: &[u8]) -> Result<Destination, DiskError> {
    beside(docroot, destination)
}

/// The single source gets the last name of the path, in a folder that must be there.
fn beside(docroot: &Docroot, destination: &[u8]) -> Result<Destination, DiskError> {
    let split = destination.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (above, name) = destination.split_at_checked(split).unwrap_or_default();
    let refuse = |trouble, reason: &str| Err(DiskError::new(ACTION, destination, trouble, reason));
    if !is_component(name) {
        return refuse(Trouble::NotFound, "there is no such folder");
    }
    match docroot.open_folder(above) {
        Ok(folder) => Ok(Destination { folder, rename: Some(name.to_vec()), path: above.to_vec() }),
        Err(error) if error.trouble == Trouble::NotFound => {
            refuse(Trouble::NotFound, "the folder that should hold it does not exist; -d makes it")
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn sources_land_where_the_table_says() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("folder/in")).unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        symlink("folder", top.path().join("link")).unwrap();
        symlink("/etc", top.path().join("escape")).unwrap();
        nix::unistd::mkfifo(&top.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let docroot = Docroot::open(top.path()).unwrap();
        let resolve = |path: &str, create, count| {
            resolve_destination(&docroot, path.as_bytes(), create, count)
                .map(|destination| destination.rename.map(|name| String::from_utf8(name).unwrap()))
                .map_err(|error| error.trouble)
        };
        let named = |name: &str| Ok(Some(name.to_owned()));
        let not_found = Err(Trouble::NotFound);
        let wrong_kind = Err(Trouble::WrongKind);
        let table = [
            ("", false, 1, Ok(None)),
            ("/", false, 5, Ok(None)),
            ("folder", false, 1, Ok(None)),
            ("folder/", false, 2, Ok(None)),
            ("/link", true, 2, Ok(None)),
            ("new", false, 1, named("new")),
            ("folder/new", false, 1, named("new")),
            ("new", false, 2, not_found.clone()),
            ("new", false, 0, not_found.clone()),
            ("new/", false, 1, not_found.clone()),
            ("new/name", false, 1, not_found.clone()),
            ("new/..", false, 1, not_found),
            ("file", false, 1, named("file")),
            ("file", false, 2, wrong_kind.clone()),
            ("file/", false, 1, wrong_kind.clone()),
            ("file", true, 1, wrong_kind.clone()),
            ("file/x", true, 1, wrong_kind.clone()),
            ("pipe", false, 1, wrong_kind),
            ("../x", true, 1, Err(Trouble::OutsideDocroot)),
            ("escape/x", true, 1, Err(Trouble::OutsideDocroot)),
            ("escape", false, 1, Err(Trouble::OutsideDocroot)),
            ("made/deep", true, 1, Ok(None)),
            ("made/deep", false, 2, Ok(None)),
        ];
        for (row, (path, create, count, expected)) in table.into_iter().enumerate() {
            assert_eq!(resolve(path, create, count), expected, "row {row}: {path}");
        }
        let error = resolve_destination(&docroot, b"new", false, 2).unwrap_err();
        assert_eq!(error.to_string(), "cannot write to new: there is no such folder; -d makes it");
    }
}
