//! Makes symbolic links at the receiver. A link is text: what it says is neither looked at nor followed, so it leads
//! nobody out of a docroot. Not here: links at the sender (`walk`).

use haul_proto::control::Trouble;
use haul_proto::disk::LinkEntry;
use nix::errno::Errno;

use super::facts::Kind;
use super::folder::Folder;
use super::write::Fault;

/// Puts a link at `name` in one step: what is there before is there until the link is. The inner error is the system's.
pub(super) fn make_link(
    folder: &Folder,
    name: &[u8],
    entry: &LinkEntry,
    session: &str,
    preserve_times: bool,
) -> Result<(), Result<Fault, Errno>> {
    let refuse = |trouble, reason: &str| Err(Ok(Fault::entry(trouble, reason)));
    match folder.stat(name).map(|facts| facts.kind) {
        Ok(Kind::Folder) => return refuse(Trouble::WrongKind, "a folder stands where the link should go"),
        Ok(Kind::Special) => return refuse(Trouble::WrongKind, "a device stands where the link should go"),
        Ok(Kind::File) if !entry.replaces_file => {
            let reason = "a file stands where the link should go; copy+force replaces it";
            return refuse(Trouble::WrongKind, reason);
        }
        Ok(Kind::File | Kind::Link) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(Err(errno)),
    }
    let partial = format!(".haul-{session}-link.part").into_bytes();
    folder.make_link(&partial, &entry.target).map_err(Err)?;
    let times = if preserve_times && entry.attributes.has_times() {
        folder.set_link_times(&partial, &entry.attributes)
    } else {
        Ok(())
    };
    times.and_then(|()| folder.rename(&partial, name)).map_err(|errno| {
        // One that cannot be removed either is named by the error that follows.
        let _ = folder.unlink(&partial);
        Err(errno)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use haul_proto::manifest::Attributes;

    use super::super::Docroot;
    use super::*;

    #[test]
    fn links_replace_what_their_mode_allows_and_nothing_is_followed() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir(at("root")).unwrap();
        fs::create_dir(at("root/folder")).unwrap();
        fs::write(at("outside"), "untouched").unwrap();
        let folder = Docroot::open(&at("root")).unwrap().open_folder(b"").unwrap();
        // what stands there, replaces files, made
        let table =
            [("nothing", false, true), ("link", false, true), ("file", false, false), ("file", true, true)];
        for (row, (name, replaces_file, made)) in table.into_iter().enumerate() {
            let path = at("root").join(name);
            match name {
                "link" => symlink("../outside", &path).unwrap(),
                "file" => fs::write(&path, "old").unwrap(),
                _ => {}
            }
            let attributes = Attributes { modified_s: 1_000_000, ..Attributes::default() };
            let (name, target) = (name.as_bytes().to_vec(), b"/etc/passwd".to_vec());
            let entry = LinkEntry { parent: 0, name: name.clone(), target, replaces_file, attributes };
            assert_eq!(make_link(&folder, &name, &entry, "s", true).is_ok(), made, "row {row}");
            if made {
                assert_eq!(fs::read_link(&path).unwrap().to_str(), Some("/etc/passwd"), "row {row}");
                assert_eq!(fs::symlink_metadata(&path).unwrap().mtime(), 1_000_000);
            }
        }
        let entry = LinkEntry {
            parent: 0,
            name: b"folder".to_vec(),
            target: b"x".to_vec(),
            replaces_file: true,
            attributes: Attributes::default(),
        };
        assert!(make_link(&folder, b"folder", &entry, "s", false).is_err(), "a folder is never replaced");
        assert_eq!(fs::read_to_string(at("outside")).unwrap(), "untouched");
        let names = fs::read_dir(at("root")).unwrap().count();
        assert_eq!(names, 4, "nothing is left over");
    }
}
