//! `haul encrypt FILE...` and `haul decrypt FILE...`: files on this machine, one into another. What is not whole and
//! proved bears no final name, and nothing that exists is written over.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{RenameFlags, renameat2};
use thiserror::Error;

use super::SUFFIX;
use super::format::{CHUNK_BYTES, Costs, FileKeys, FormatError, HEADER_BYTES, Header, SEALED_CHUNK_BYTES};
use super::keys::{PasswordKey, salt_of_user};

/// Rights that a copy may take over; set-user-id and the like are none of them.
const RIGHTS: u32 = 0o777;

/// Why a file was not turned into another.
#[derive(Debug, Error)]
pub enum CryptError {
    /// The system refuses.
    #[error("cannot {doing}: {source}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The bytes are not what they should be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The name tells nothing.
    #[error("its name does not end in {SUFFIX}")]
    Name,
    /// The result is there already.
    #[error("{} exists already", .path.display())]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
    /// Someone writes to it.
    #[error("it changed while it was read")]
    Changed,
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> CryptError {
    move |source| CryptError::System { doing, source }
}

/// Encrypts and decrypts with one password; keys are made once for all files that share them.
pub struct Vault<'a> {
    password: &'a [u8],
    costs: Costs,
    keys: Vec<PasswordKey>,
}

impl<'a> Vault<'a> {
    /// With a password.
    #[must_use]
    pub const fn new(password: &'a [u8]) -> Self {
        Self { password, costs: Costs::USUAL, keys: Vec::new() }
    }

    /// Encrypts `FILE` to `FILE.haul-crypt` beside it.
    ///
    /// # Errors
    /// If it cannot be read, or the result not be written.
    pub fn encrypt(&mut self, path: &Path) -> Result<PathBuf, CryptError> {
        let mut target = path.as_os_str().to_owned();
        target.push(SUFFIX);
        let mut source = File::open(path).map_err(system("open it"))?;
        let before = source.metadata().map_err(system("open it"))?;
        let header = self.own_key()?.header(path, &before);
        let keys = self.key_for(&header)?.file_keys(&header.file_id)?;
        write_beside(path, Path::new(&target), &before, |out| {
            out.write_all(&header.encode(&keys)).map_err(system("write"))?;
            seal_all(&keys, &mut source, out)?;
            let after = source.metadata().map_err(system("read it"))?;
            let same = (before.len(), before.mtime(), before.mtime_nsec())
                == (after.len(), after.mtime(), after.mtime_nsec());
            if same { Ok(()) } else { Err(CryptError::Changed) }
        })
    }

    /// Decrypts `FILE.haul-crypt` to `FILE` beside it.
    ///
    /// # Errors
    /// If the password is wrong, the file is damaged, or the result cannot be written.
    pub fn decrypt(&mut self, path: &Path) -> Result<PathBuf, CryptError> {
        let name =
            path.as_os_str().as_bytes().strip_suffix(SUFFIX.as_bytes()).filter(|name| !name.ends_with(b"/"));
        let target = PathBuf::from(std::ffi::OsString::from_vec(name.ok_or(CryptError::Name)?.to_vec()));
        let mut source = File::open(path).map_err(system("open it"))?;
        let metadata = source.metadata().map_err(system("open it"))?;
        let mut bytes = [0; HEADER_BYTES];
        source.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::Foreign.into(),
            _ => system("read it")(error),
        })?;
        let header = Header::decode(&bytes)?;
        let keys = self.key_for(&header)?.file_keys(&header.file_id)?;
        Header::check(&bytes, &keys)?;
        write_beside(path, &target, &metadata, |out| open_all(&keys, &mut source, out))
    }

    /// The key that this user encrypts with.
    fn own_key(&mut self) -> Result<&PasswordKey, CryptError> {
        let salt = salt_of_user().map_err(system("make a key"))?;
        self.key_for(&Header { costs: self.costs, salt, file_id: [0; 32] })
    }

    fn key_for(&mut self, header: &Header) -> Result<&PasswordKey, CryptError> {
        let at = match self.keys.iter().position(|key| key.is_for(header)) {
            Some(at) => at,
            None => {
                let key = PasswordKey::derive(self.password, header.salt, header.costs);
                self.keys.push(key.map_err(system("make a key of the password"))?);
                self.keys.len() - 1
            }
        };
        self.keys.get(at).ok_or(CryptError::Format(FormatError::Impossible))
    }
}

/// Seals everything that comes.
///
/// # Errors
/// If reading, sealing or writing fails.
pub fn seal_all(keys: &FileKeys, from: &mut impl Read, to: &mut impl Write) -> Result<(), CryptError> {
    each_piece(from, CHUNK_BYTES, |number, last, piece| {
        keys.seal(number, last, piece)?;
        to.write_all(piece).map_err(system("write"))
    })
}

/// Opens everything that comes after a header. What has been written before an error is proved, but not all.
///
/// # Errors
/// If reading or writing fails, or a chunk is not the right one.
pub fn open_all(keys: &FileKeys, from: &mut impl Read, to: &mut impl Write) -> Result<(), CryptError> {
    each_piece(from, SEALED_CHUNK_BYTES, |number, last, piece| {
        keys.open(number, last, piece)?;
        to.write_all(piece).map_err(system("write"))
    })
}

/// Cuts what comes into pieces of `length`; the last may be shorter, and empty if it is the first.
fn each_piece(
    from: &mut impl Read,
    length: usize,
    mut take: impl FnMut(u64, bool, &mut Vec<u8>) -> Result<(), CryptError>,
) -> Result<(), CryptError> {
    let mut read = |into: &mut Vec<u8>| {
        into.clear();
        from.by_ref().take(length as u64).read_to_end(into).map_err(system("read it"))
    };
    let (mut piece, mut next) = (Vec::with_capacity(length + 64), Vec::with_capacity(length + 64));
    read(&mut piece)?;
    for number in 0.. {
        read(&mut next)?;
        let last = next.is_empty();
        take(number, last, &mut piece)?;
        if last {
            break;
        }
        std::mem::swap(&mut piece, &mut next);
    }
    Ok(())
}

/// Writes a file under a name that nobody else uses, and gives it its own when it is whole and on the disk.
fn write_beside(
    source: &Path,
    target: &Path,
    metadata: &fs::Metadata,
    write: impl FnOnce(&mut File) -> Result<(), CryptError>,
) -> Result<PathBuf, CryptError> {
    if target.symlink_metadata().is_ok() {
        return Err(CryptError::Exists { path: target.to_owned() });
    }
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".haul-partial-{}", std::process::id()));
    let partial = PathBuf::from(name);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
    let mut file = made.map_err(system("make a file beside it"))?;
    let finish = |file: &File| {
        let times = FileTimes::new().set_modified(metadata.modified()?).set_accessed(metadata.accessed()?);
        file.set_permissions(Permissions::from_mode(metadata.mode() & RIGHTS))?;
        file.set_times(times)?;
        file.sync_all()?;
        let (at, flags) = (nix::fcntl::AT_FDCWD, RenameFlags::RENAME_NOREPLACE);
        renameat2(at, &partial, at, target, flags).map_err(io::Error::from)
    };
    let result = write(&mut file).and_then(|()| {
        finish(&file).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => CryptError::Exists { path: target.to_owned() },
            _ => system("write")(error),
        })
    });
    if result.is_err() {
        // The error that is told is the one that matters.
        let _ = fs::remove_file(&partial);
    }
    tracing::debug!(source = %source.display(), target = %target.display(), whole = result.is_ok(), "file crypt");
    result.map(|()| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(password: &[u8]) -> Vault<'_> {
        let costs = Costs { memory_kib: 64, rounds: 1, lanes: 1 };
        Vault { password, costs, keys: Vec::new() }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_of_every_length_come_back_with_their_times_and_rights() {
        let folder = tempfile::tempdir().unwrap();
        let mut vault = vault(b"secret");
        for size in [0, 1, 65_535, 65_536, 65_537, 131_072, 300_000] {
            let file = folder.path().join("f");
            let content: Vec<u8> = (0..size).map(|n: u32| (n * 7 + n / 251) as u8).collect();
            fs::write(&file, &content).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
            let before = fs::metadata(&file).unwrap();
            let sealed = vault.encrypt(&file).unwrap();
            let bytes = fs::read(&sealed).unwrap();
            assert_eq!(
                bytes.len() as u64,
                super::super::format::encrypted_size(content.len() as u64),
                "{size}"
            );
            fs::remove_file(&file).unwrap();
            assert_eq!(vault.decrypt(&sealed).unwrap(), file);
            assert!(fs::read(&file).unwrap() == content, "{size}");
            let after = fs::metadata(&file).unwrap();
            assert_eq!(after.mode(), before.mode());
            assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
            fs::remove_file(&file).unwrap();
            fs::remove_file(&sealed).unwrap();
        }
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_password_or_damage_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, vec![7; 200_000]).unwrap();
        let sealed = vault(b"secret").encrypt(&file).unwrap();
        fs::remove_file(&file).unwrap();
        let refused = |password: &[u8]| vault(password).decrypt(&sealed).unwrap_err().to_string();
        assert!(refused(b"Secret").contains("the password is wrong"));
        let good = fs::read(&sealed).unwrap();
        let chunk =
            |n: usize| HEADER_BYTES + n * SEALED_CHUNK_BYTES..HEADER_BYTES + (n + 1) * SEALED_CHUNK_BYTES;
        let mut swapped = good.clone();
        let (one, two) = (good[chunk(0)].to_vec(), good[chunk(1)].to_vec());
        swapped[chunk(0)].copy_from_slice(&two);
        swapped[chunk(1)].copy_from_slice(&one);
        let mut repeated = good.clone();
        repeated.splice(chunk(1).start..chunk(1).start, one.iter().copied());
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for (n, (bytes, offset)) in [
            (swapped, 0),
            (repeated, 65_536),
            (flipped, 65_536),
            (good[..chunk(1).end].to_vec(), 65_536),
            (good[..good.len() - 1].to_vec(), 196_608),
            ([good.clone(), vec![0]].concat(), 196_608),
        ]
        .into_iter()
        .enumerate()
        {
            fs::write(&sealed, bytes).unwrap();
            let said = refused(b"secret");
            assert!(said.contains(&format!("from byte {offset} of")), "row {n}: {said}");
            assert_eq!(names(folder.path()), ["f.haul-crypt"], "row {n}");
        }
        fs::write(&sealed, "short").unwrap();
        assert!(refused(b"secret").contains("no encrypted file"));
    }

    #[test]
    fn nothing_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "mine").unwrap();
        let sealed = vault(b"secret").encrypt(&file).unwrap();
        assert!(matches!(vault(b"secret").encrypt(&file), Err(CryptError::Exists { .. })));
        assert!(matches!(vault(b"secret").decrypt(&sealed), Err(CryptError::Exists { .. })));
        assert!(matches!(vault(b"secret").decrypt(&file), Err(CryptError::Name)));
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
