//! Reads a file that decides who may log in, only if nobody but its owner and root can have written it: the rule that
//! OpenSSH calls strict modes. The opened descriptor is judged, not the name.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Uid;
use thiserror::Error;

/// Longest file that is read, in bytes: some ten thousand keys.
const MAX_FILE_BYTES: u64 = 4 << 20;

const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Why a file is not trusted.
#[derive(Debug, Error)]
pub(crate) enum TrustedFileError {
    #[error("cannot read {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is not a regular file", .path.display())]
    Kind { path: PathBuf },
    #[error("{} belongs to uid {found}, expected uid {expected} or root; change it with chown", .path.display())]
    Owner { path: PathBuf, found: u32, expected: u32 },
    #[error("{} can be written by others (mode {mode:04o}); run: chmod go-w {}", .path.display(), .path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{} is longer than {MAX_FILE_BYTES} bytes", .path.display())]
    TooLong { path: PathBuf },
}

/// Reads a file that only `owner` and root can have written.
pub(crate) fn read(path: &Path, owner: Uid) -> Result<Vec<u8>, TrustedFileError> {
    let io = |source| TrustedFileError::Io { path: path.to_owned(), source };
    let real = path.canonicalize().map_err(io)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(&real)
        .map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(TrustedFileError::Kind { path: real });
    }
    judge(&real, &metadata, owner, false)?;
    for folder in real.ancestors().skip(1) {
        judge(folder, &folder.symlink_metadata().map_err(io)?, owner, true)?;
    }
    read_limited(file, path)
}

/// A folder that everybody may write is fine if its sticky bit keeps others from renaming what is ours.
fn judge(path: &Path, metadata: &Metadata, owner: Uid, sticky_is_fine: bool) -> Result<(), TrustedFileError> {
    let (found, mode) = (metadata.uid(), metadata.mode());
    if found != 0 && found != owner.as_raw() {
        return Err(TrustedFileError::Owner { path: path.to_owned(), found, expected: owner.as_raw() });
    }
    if mode & GROUP_OR_OTHERS_WRITE != 0 && !(sticky_is_fine && mode & STICKY != 0) {
        return Err(TrustedFileError::Mode { path: path.to_owned(), mode: mode & 0o7777 });
    }
    Ok(())
}

fn read_limited(file: File, path: &Path) -> Result<Vec<u8>, TrustedFileError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| TrustedFileError::Io { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TrustedFileError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_others_cannot_write_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "content").unwrap();
        let cases = [
            (0o600, 0o700, true),
            (0o644, 0o755, true),
            (0o664, 0o755, false),
            (0o606, 0o755, false),
            (0o644, 0o775, false),
            (0o644, 0o777, false),
        ];
        for (n, (file_mode, folder_mode, good)) in cases.into_iter().enumerate() {
            mode(&path, file_mode);
            mode(folder.path(), folder_mode);
            assert_eq!(read(&path, Uid::effective()).is_ok(), good, "row {n}");
        }
        mode(folder.path(), 0o700);
    }

    #[test]
    fn what_is_no_file_of_the_owner_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path(), Uid::effective()), Err(TrustedFileError::Kind { .. })));
        assert!(matches!(
            read(&folder.path().join("none"), Uid::effective()),
            Err(TrustedFileError::Io { .. })
        ));
        assert!(matches!(read(Path::new("/dev/null"), Uid::effective()), Err(TrustedFileError::Kind { .. })));
        let path = folder.path().join("keys");
        fs::write(&path, "content").unwrap();
        if Uid::effective().is_root() {
            nix::unistd::chown(&path, Some(Uid::from_raw(65534)), None).unwrap();
            assert!(matches!(read(&path, Uid::from_raw(1)), Err(TrustedFileError::Owner { .. })));
        }
    }
}
