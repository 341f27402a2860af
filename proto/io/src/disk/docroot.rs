//! The folder below which a session may touch files: the only code that resolves a path which came from the wire.
//!
//! Every path goes to the kernel in one `openat2` call, so there is no moment between a check and a use. Paths are
//! bytes. A leading `/` means the docroot; so do "" and ".".

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use haul_proto::constants::{MAX_DEPTH, MAX_NAME_BYTES};
use haul_proto::control::Trouble;
use haul_proto::manifest::is_component;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::Mode;

use super::DiskError;
use super::facts::{Facts, Kind};
use super::folder::Folder;

/// Longest path that is resolved, bytes: PATH_MAX of Linux, less its NUL.
const MAX_PATH_BYTES: usize = 4095;

/// A rename anywhere in the system makes a walk over `..` fail with EAGAIN; so often it is tried again.
const TRIES: usize = 64;

/// The folder below which a session may touch files. Clones share it.
#[derive(Debug, Clone)]
pub struct Docroot {
    root: Arc<OwnedFd>,
    resolve: ResolveFlag,
    /// Where paths without a leading slash start.
    start: Vec<u8>,
}

impl Docroot {
    /// Confines a session to `folder`.
    ///
    /// # Errors
    /// If it is no folder or cannot be entered.
    pub fn open(folder: &Path) -> Result<Self, DiskError> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        Self::at(folder, resolve, Vec::new())
    }

    /// Confines a session to nothing: for the paths that a user gives on the own machine. Paths without a leading slash
    /// start in the working directory.
    ///
    /// # Errors
    /// If there is no working directory any more.
    pub fn whole_system() -> Result<Self, DiskError> {
        let start = std::env::current_dir().map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            DiskError::system("find the working directory", b".", errno)
        })?;
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        Self::at(Path::new("/"), resolve, start.as_os_str().as_bytes().to_vec())
    }

    fn at(folder: &Path, resolve: ResolveFlag, start: Vec<u8>) -> Result<Self, DiskError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(folder, flags, Mode::empty())
            .map_err(|errno| DiskError::system("open the folder", folder.as_os_str().as_bytes(), errno))?;
        Ok(Self { root: Arc::new(root), resolve, start })
    }

    /// The same, confined to the folder at `path`.
    pub(super) fn confined(&self, path: &[u8]) -> Result<Self, DiskError> {
        let root = self.resolve("open the folder", path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        Ok(Self { root: Arc::new(root), resolve, start: Vec::new() })
    }

    /// What stands at `path`; links are followed.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Facts, DiskError> {
        let descriptor = self.resolve("find", path, OFlag::O_PATH)?;
        Facts::of(descriptor).map_err(|errno| DiskError::system("find", path, errno))
    }

    /// What stands at `path`; if its last name is a link, the link itself.
    pub(super) fn stat_itself(&self, path: &[u8]) -> Result<Facts, DiskError> {
        let descriptor = self.resolve("find", path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        Facts::of(descriptor).map_err(|errno| DiskError::system("find", path, errno))
    }

    /// The text of the link at `path`.
    pub(super) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, DiskError> {
        let link = self.resolve("read the link", path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        let text = readlinkat(&link, &b""[..]);
        let text = text.map_err(|errno| DiskError::system("read the link", path, errno))?;
        Ok(text.as_bytes().to_vec())
    }

    /// Opens a folder, to list it or to work in it.
    pub(super) fn open_folder(&self, path: &[u8]) -> Result<Folder, DiskError> {
        let action = "open the folder";
        self.resolve(action, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map(Folder::from).or_else(|error| {
            if error.errno != Some(Errno::EACCES) {
                return Err(error);
            }
            // One that may be entered but not listed.
            self.resolve(action, path, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Folder::from)
        })
    }

    /// Opens a regular file for reading.
    pub(super) fn open_file(&self, path: &[u8]) -> Result<(OwnedFd, Facts), DiskError> {
        // Without O_NONBLOCK a pipe that took the file's place would hold us up.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = self.resolve("read", path, flags)?;
        let facts = Facts::of(&file).map_err(|errno| DiskError::system("read", path, errno))?;
        if facts.kind != Kind::File {
            return Err(DiskError::new("read", path, Trouble::WrongKind, "it is not a regular file"));
        }
        Ok((file, facts))
    }

    /// Opens the folder at `path`; makes it and those above it where they are missing.
    pub(super) fn make_folders(&self, path: &[u8]) -> Result<Folder, DiskError> {
        let relative = self.relative("make the folder", path)?;
        let mut folder = self.open_folder(b"/")?;
        let mut so_far = b"/".to_vec();
        for name in relative.split(|&byte| byte == b'/').filter(|&name| name != b".") {
            so_far = super::join(&so_far, name);
            folder = match self.open_folder(&so_far) {
                Err(error) if error.trouble == Trouble::NotFound && is_component(name) => {
                    self.make_below(&folder, name, &so_far)
                }
                other => other,
            }
            .map_err(|error| DiskError { path: path.to_vec(), ..error })?;
        }
        Ok(folder)
    }

    fn make_below(&self, above: &Folder, name: &[u8], path: &[u8]) -> Result<Folder, DiskError> {
        match above.make_folder(name, 0o777) {
            Ok(()) | Err(Errno::EEXIST) => self.open_folder(path),
            Err(errno) => Err(DiskError::system("make the folder", path, errno)),
        }
    }

    /// The name of what stands at `path`: none for the docroot itself.
    pub(super) fn last_name(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.names(path).pop()
    }

    /// The names that lead from the root to `path`, without a look at the disk.
    pub(super) fn names(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let start: &[u8] = if path.starts_with(b"/") { b"" } else { &self.start };
        let mut names: Vec<&[u8]> = Vec::new();
        for name in start.split(|&byte| byte == b'/').chain(path.split(|&byte| byte == b'/')) {
            match name {
                b"" | b"." => {}
                b".." => {
                    names.pop();
                }
                name => names.push(name),
            }
        }
        names.into_iter().map(<[u8]>::to_vec).collect()
    }

    /// `path` as the kernel shall resolve it below the root.
    fn relative(&self, action: &'static str, path: &[u8]) -> Result<Vec<u8>, DiskError> {
        let refuse = |trouble, reason: &str| Err(DiskError::new(action, path, trouble, reason));
        if path.contains(&0) {
            return refuse(Trouble::NotFound, "no path holds a zero byte");
        }
        let full = if path.starts_with(b"/") { path.to_vec() } else { super::join(&self.start, path) };
        let names = full.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && **name != *b".");
        if names.clone().any(|name| name.len() > MAX_NAME_BYTES) {
            return refuse(Trouble::Limit, "a name in it exceeds 255 bytes");
        }
        if names.clone().count() > MAX_DEPTH as usize {
            return refuse(Trouble::Limit, "it is more than 256 folders deep");
        }
        let relative = names.collect::<Vec<_>>().join(&b'/');
        match relative.len() {
            0 => Ok(b".".to_vec()),
            1..=MAX_PATH_BYTES => Ok(relative),
            _ => refuse(Trouble::Limit, "it exceeds 4095 bytes"),
        }
    }

    fn resolve(&self, action: &'static str, path: &[u8], flags: OFlag) -> Result<OwnedFd, DiskError> {
        let relative = self.relative(action, path)?;
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(self.resolve);
        let mut result = Err(Errno::EAGAIN);
        for _ in 0..TRIES {
            result = openat2(&*self.root, relative.as_slice(), how);
            if !matches!(result, Err(Errno::EAGAIN | Errno::EINTR)) {
                break;
            }
            std::thread::yield_now();
        }
        result.map_err(|errno| {
            let error = DiskError::system(action, path, errno);
            match errno {
                Errno::EXDEV => DiskError { reason: "the path leaves the docroot".to_owned(), ..error },
                Errno::ELOOP => {
                    DiskError { reason: "a symbolic link must not be followed".to_owned(), ..error }
                }
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn docroot() -> (tempfile::TempDir, Docroot) {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("root/sub")).unwrap();
        fs::write(top.path().join("secret"), "outside").unwrap();
        fs::write(top.path().join("root/sub/f"), "inside").unwrap();
        let docroot = Docroot::open(&top.path().join("root")).unwrap();
        (top, docroot)
    }

    #[test]
    fn nothing_outside_can_be_reached() {
        let (top, docroot) = docroot();
        let root = top.path().join("root");
        symlink(top.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../../secret", root.join("sub/relative")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for path in [
            "../secret",
            "/../secret",
            "sub/../../secret",
            "absolute",
            "sub/relative",
            "up",
            "up/secret",
            "loop",
            "..",
        ] {
            let trouble = |result: Result<(), DiskError>| result.unwrap_err().trouble;
            let path = path.as_bytes();
            assert_eq!(
                trouble(docroot.stat(path).map(drop)),
                Trouble::OutsideDocroot,
                "{}",
                path.escape_ascii()
            );
            assert_eq!(trouble(docroot.open_file(path).map(drop)), Trouble::OutsideDocroot);
            assert_eq!(trouble(docroot.open_folder(path).map(drop)), Trouble::OutsideDocroot);
            assert_eq!(trouble(docroot.make_folders(path).map(drop)), Trouble::OutsideDocroot);
        }
    }

    #[test]
    fn links_that_stay_inside_are_followed() {
        let (top, docroot) = docroot();
        symlink("sub/../sub", top.path().join("root/link")).unwrap();
        for path in ["sub/f", "/sub/f", "//sub/./f", "sub/../sub/f", "link/f"] {
            assert_eq!(docroot.stat(path.as_bytes()).unwrap().kind, Kind::File, "{path}");
        }
        for path in ["", ".", "/", "sub/.."] {
            assert_eq!(docroot.stat(path.as_bytes()).unwrap().kind, Kind::Folder, "{path}");
        }
    }

    #[test]
    fn paths_beyond_the_limits_are_refused() {
        let (_top, docroot) = docroot();
        let refusals = [
            (b"a\0b".to_vec(), Trouble::NotFound),
            (vec![b'x'; 256], Trouble::Limit),
            (b"a/".repeat(257), Trouble::Limit),
            ([vec![b'x'; 200], b"/".to_vec()].concat().repeat(21), Trouble::Limit),
            (b"absent".to_vec(), Trouble::NotFound),
            (b"sub/f/g".to_vec(), Trouble::WrongKind),
        ];
        for (path, trouble) in refusals {
            assert_eq!(docroot.stat(&path).unwrap_err().trouble, trouble, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn a_link_that_is_swapped_in_never_leads_out() {
        let (top, docroot) = docroot();
        let root = top.path().join("root");
        fs::create_dir(top.path().join("other")).unwrap();
        fs::write(top.path().join("other/f"), "outside").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(root.join("sub"), root.join("real")).unwrap();
                    symlink("../other", root.join("sub")).unwrap();
                    fs::remove_file(root.join("sub")).unwrap();
                    fs::rename(root.join("real"), root.join("sub")).unwrap();
                }
            });
            let mut read = 0;
            for turn in 0..200_000 {
                let path: &[u8] = if turn % 2 == 0 { b"sub/f" } else { b"sub/../sub/f" };
                if let Ok((file, _)) = docroot.open_file(path) {
                    let mut text = String::new();
                    fs::File::from(file).read_to_string(&mut text).unwrap();
                    assert_eq!(text, "inside");
                    read += 1;
                }
                if read == 2000 {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(read > 0);
        });
    }

    #[test]
    fn special_files_are_not_read_and_do_not_block() {
        let (top, docroot) = docroot();
        nix::unistd::mkfifo(&top.path().join("root/pipe"), Mode::S_IRWXU).unwrap();
        assert_eq!(docroot.open_file(b"pipe").unwrap_err().trouble, Trouble::WrongKind);
        assert_eq!(docroot.open_file(b"sub").unwrap_err().trouble, Trouble::WrongKind);
    }

    #[test]
    fn folders_are_made_with_those_above() {
        let (top, docroot) = docroot();
        docroot.make_folders(b"/x/y\xff/z/").unwrap();
        docroot.make_folders(b"x/y\xff").unwrap();
        docroot.make_folders(b"").unwrap();
        assert_eq!(docroot.stat(b"x/y\xff/z").unwrap().kind, Kind::Folder);
        assert_eq!(docroot.make_folders(b"sub/f/g").unwrap_err().trouble, Trouble::WrongKind);
        assert!(top.path().join("root/x").is_dir());
    }

    #[test]
    fn names_are_taken_from_the_end_of_the_path() {
        let (_top, docroot) = docroot();
        for (path, name) in
            [("a/b", Some("b")), ("a/b/", Some("b")), ("a/b/..", Some("a")), ("/", None), ("a/..", None)]
        {
            assert_eq!(docroot.last_name(path.as_bytes()).as_deref(), name.map(str::as_bytes), "{path}");
        }
    }

    #[test]
    fn the_whole_system_follows_absolute_links_and_starts_in_the_working_directory() {
        let (top, _) = docroot();
        let system = Docroot::whole_system().unwrap();
        symlink(top.path().join("secret"), top.path().join("root/absolute")).unwrap();
        let path = top.path().join("root/absolute");
        assert_eq!(system.stat(path.as_os_str().as_bytes()).unwrap().kind, Kind::File);
        assert_eq!(system.stat(b"Cargo.toml").unwrap().kind, Kind::File);
        let here = std::env::current_dir().unwrap();
        assert_eq!(system.last_name(b".").as_deref(), here.file_name().map(|name| name.as_bytes()));
    }
}
