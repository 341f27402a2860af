//! Where sources land: under their own names, under targets that the user gives, or where they stand below a base.
//!
//! It looks at names only. Not here: what stands at the destination.

use haul_proto::constants::MAX_DEPTH;
use haul_proto::control::{PathText, Trouble};
use haul_proto::manifest::is_component;

use super::{DiskError, Docroot};

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceItem {
    /// Its path below the docroot.
    pub path: Vec<u8>,
    /// Its path below the destination, of components with one slash between them; empty for a folder whose content
    /// lands there; none for its own name.
    pub(super) target: Option<Vec<u8>>,
    /// The folder that the target is counted from at the source.
    pub(super) base: Option<Vec<u8>>,
}

impl From<Vec<u8>> for SourceItem {
    fn from(path: Vec<u8>) -> Self {
        Self { path, target: None, base: None }
    }
}

impl SourceItem {
    /// A source that lands at `target`, whatever its own name is.
    ///
    /// # Errors
    /// If the target is no path below the destination.
    pub fn to(path: Vec<u8>, target: &[u8]) -> Result<Self, DiskError> {
        let refuse = |trouble, reason: &str| Err(DiskError::new("write to", target, trouble, reason));
        let names = target.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
        let names: Vec<&[u8]> = names.collect();
        if names.is_empty() {
            return refuse(
                Trouble::WrongKind,
                "it names nothing; give the name under which the source lands",
            );
        }
        if names.contains(&&b".."[..]) {
            return refuse(Trouble::OutsideDocroot, "a target below the destination must not hold ..");
        }
        if names.len() > MAX_DEPTH as usize || !names.iter().all(|name| is_component(name)) {
            return refuse(Trouble::Limit, "a name in it is too long, or it is too deep");
        }
        Ok(Self { path, target: Some(names.join(&b'/')), base: None })
    }

    /// A source that keeps the folders between `base` and itself.
    ///
    /// # Errors
    /// If it is not below the base.
    pub fn below(root: &Docroot, path: Vec<u8>, base: &[u8]) -> Result<Self, DiskError> {
        let (names, above) = (root.names(&path), root.names(base));
        let Some(rest) = names.strip_prefix(above.as_slice()) else {
            let reason = format!("it is not below the base of the sources, {}", super::shown(base));
            return Err(DiskError::new("send", &path, Trouble::NotFound, reason));
        };
        Ok(Self { path, target: Some(rest.join(&b'/')), base: Some(base.to_vec()) })
    }

    /// All sources of a transfer: with a target each, below one base, or neither.
    ///
    /// # Errors
    /// If one of them has no place, or there is not one target for each.
    pub fn list(
        root: &Docroot,
        paths: Vec<Vec<u8>>,
        targets: &[PathText],
        base: Option<&[u8]>,
    ) -> Result<Vec<Self>, DiskError> {
        if let Some(base) = base {
            return paths.into_iter().map(|path| Self::below(root, path, base)).collect();
        }
        if targets.is_empty() {
            return Ok(paths.into_iter().map(Self::from).collect());
        }
        if targets.len() != paths.len() {
            let reason = "there is not one target for each source";
            return Err(DiskError::new("send", b"", Trouble::Protocol, reason));
        }
        paths.into_iter().zip(targets).map(|(path, target)| Self::to(path, target.as_bytes())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_paths_below_the_destination() {
        let to =
            |target: &str| SourceItem::to(b"s".to_vec(), target.as_bytes()).map(|item| item.target.unwrap());
        for (target, landed) in [("a", "a"), ("/a//b/", "a/b"), ("./a/./b", "a/b")] {
            assert_eq!(to(target).unwrap(), landed.as_bytes(), "{target}");
        }
        for (target, trouble) in [
            ("", Trouble::WrongKind),
            ("/", Trouble::WrongKind),
            ("a/../../b", Trouble::OutsideDocroot),
            (&"x".repeat(256), Trouble::Limit),
            (&"a/".repeat(257), Trouble::Limit),
        ] {
            assert_eq!(to(target).unwrap_err().trouble, trouble, "{target}");
        }
    }

    #[test]
    fn sources_keep_their_folders_below_the_base() {
        let top = tempfile::tempdir().unwrap();
        let root = Docroot::open(top.path()).unwrap();
        let below = |path: &str, base: &str| {
            let item = SourceItem::below(&root, path.as_bytes().to_vec(), base.as_bytes());
            item.map(|item| String::from_utf8(item.target.unwrap()).unwrap()).map_err(|error| error.trouble)
        };
        for (path, base, landed) in [
            ("a/b/c", "a", "b/c"),
            ("/a/b/c/", "a/b/", "c"),
            ("a/b", "/a/b", ""),
            ("a/x/../b/c", "a/b", "c"),
            ("a/b", "/", "a/b"),
        ] {
            assert_eq!(below(path, base).as_deref(), Ok(landed), "{path} below {base}");
        }
        for (path, base) in [("a/b", "a/c"), ("ab/c", "a"), ("a", "a/b")] {
            assert_eq!(below(path, base), Err(Trouble::NotFound), "{path} below {base}");
        }
    }

    #[test]
    fn each_source_needs_a_target_if_one_has() {
        let top = tempfile::tempdir().unwrap();
        let root = Docroot::open(top.path()).unwrap();
        let paths = vec![b"a".to_vec(), b"b".to_vec()];
        let list = |targets: &[PathText]| SourceItem::list(&root, paths.clone(), targets, None);
        assert_eq!(list(&[]).unwrap().len(), 2);
        assert!(list(&[PathText::new(*b"x")]).is_err());
        assert!(list(&[PathText::new(*b"x"), PathText::new(*b"y")]).is_ok());
    }
}
