//! Makes keys of passwords with argon2id, and keeps the salt of this user, so that the same password gives the same key
//! in the next run: an interrupted transfer of encrypted files can then go on.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::format::{Costs, FileKeys, FormatError, Header};

/// The key of a password, which takes a while to make.
pub struct PasswordKey {
    costs: Costs,
    salt: [u8; 16],
    key: Zeroizing<[u8; 32]>,
}

impl PasswordKey {
    /// Makes the key of a password.
    ///
    /// # Errors
    /// If the system has not the memory.
    pub fn derive(password: &[u8], salt: [u8; 16], costs: Costs) -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(costs.memory_kib, costs.rounds, costs.lanes, Some(32)).map_err(words)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(password, &salt, &mut *key).map_err(words)?;
        Ok(Self { costs, salt, key })
    }

    /// Whether it is the key for this header's salt and costs.
    #[must_use]
    pub fn is_for(&self, header: &Header) -> bool {
        (self.salt, self.costs) == (header.salt, header.costs)
    }

    /// The keys of one file.
    ///
    /// # Errors
    /// If the crypto library refuses.
    pub fn file_keys(&self, file_id: &[u8; 32]) -> Result<FileKeys, FormatError> {
        FileKeys::derive(&self.key, file_id)
    }

    /// The header of a file of this name, size and time of change. They make its id, so that the same source gives the
    /// same bytes again, and two sources share no keys.
    #[must_use]
    pub fn header(&self, path: &Path, metadata: &fs::Metadata) -> Header {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*self.key));
        mac.update(b"haul-crypt 1 file id\0");
        mac.update(&metadata.len().to_be_bytes());
        mac.update(&metadata.mtime().to_be_bytes());
        mac.update(&metadata.mtime_nsec().to_be_bytes());
        mac.update(name);
        let tag = mac.sign();
        let mut file_id = [0; 32];
        file_id.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Header { costs: self.costs, salt: self.salt, file_id }
    }
}

fn words(error: argon2::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// The salt of this user: made once, kept in a private file. Where there is no place for it, a fresh one.
///
/// # Errors
/// If the system has no random numbers.
pub fn salt_of_user() -> io::Result<[u8; 16]> {
    let mut fresh = [0; 16];
    SystemRandom::new().fill(&mut fresh).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(state_file().and_then(|path| kept(&path, fresh).ok()).unwrap_or(fresh))
}

fn state_file() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state =
        variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("haul/file-crypt-salt"))
}

/// What the file has; if it is missing, it gets `fresh`. Of two programs that make it at once the first one's holds.
fn kept(path: &Path, fresh: [u8; 16]) -> io::Result<[u8; 16]> {
    if let Ok(bytes) = fs::read(path) {
        return bytes.try_into().map_err(|_| io::ErrorKind::InvalidData.into());
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let partial = path.with_extension(std::process::id().to_string());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    let written = file.write_all(&fresh).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| fs::hard_link(&partial, path));
    fs::remove_file(&partial)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::read(path)?.try_into().map_err(|_| io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Costs = Costs { memory_kib: 64, rounds: 1, lanes: 1 };

    #[test]
    fn a_key_follows_from_password_salt_and_costs() {
        let key = |password: &[u8], salt, costs| PasswordKey::derive(password, salt, costs).unwrap().key;
        let one = key(b"secret", [1; 16], CHEAP);
        assert_eq!(*one, *key(b"secret", [1; 16], CHEAP));
        assert_ne!(*one, *key(b"Secret", [1; 16], CHEAP));
        assert_ne!(*one, *key(b"secret", [2; 16], CHEAP));
        assert_ne!(*one, *key(b"secret", [1; 16], Costs { rounds: 2, ..CHEAP }));
    }

    #[test]
    fn the_key_is_pinned() {
        let key = PasswordKey::derive(b"secret", [3; 16], Costs::USUAL).unwrap().key;
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "878b3c2ff4f1204153a0031136eceff808c37df8f4c63f02760a22478a3f1ae2");
    }

    #[test]
    fn the_salt_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/salt");
        assert_eq!(kept(&path, [1; 16]).unwrap(), [1; 16]);
        assert_eq!(kept(&path, [2; 16]).unwrap(), [1; 16]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        fs::write(&path, "short").unwrap();
        assert!(kept(&path, [3; 16]).is_err());
    }

    #[test]
    fn the_id_of_a_file_follows_from_its_name_size_and_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        fs::write(&file, "content").unwrap();
        let key = PasswordKey::derive(b"secret", [1; 16], CHEAP).unwrap();
        let id = |name: &str| key.header(Path::new(name), &fs::metadata(&file).unwrap()).file_id;
        let first = id("f");
        assert_eq!(first, id("/elsewhere/f"));
        assert_ne!(first, id("g"));
        fs::write(&file, "longer content").unwrap();
        assert_ne!(first, id("f"));
    }
}
