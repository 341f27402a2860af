//! The user's private keys in files: reading them, and saying clearly why one cannot be used.
//!
//! It never prompts. Not here: the agent and the order of attempts (`login`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{PrivateKey, PublicKey, decode_secret_key};
use zeroize::Zeroizing;

use crate::config::Identities;
use crate::error::ClientError;
use crate::sanitize;

/// Key files are a few KiB.
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;

/// Variables that may hold the passphrase of key files: ours, and ascp's.
const PASSPHRASE_VARIABLES: [&str; 2] = ["HAUL_PASSPHRASE", "ASPERA_SCP_PASS"];

/// A key named by a file.
#[derive(Debug, Clone)]
pub(crate) struct FileKey {
    /// The file.
    pub(crate) path: PathBuf,
    /// The public half; none if the file does not tell it without a passphrase.
    pub(crate) public: Option<PublicKey>,
    /// The private half, or why it is locked: then only an agent that holds the key can use it.
    pub(crate) private: Result<Arc<PrivateKey>, Locked>,
}

/// Why the private half is not at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Locked {
    message: String,
    remedy: String,
}

impl Locked {
    /// The error for a key that nothing can unlock.
    pub(crate) fn error(&self, path: &Path) -> ClientError {
        ClientError::KeyFile {
            path: path.to_owned(),
            message: self.message.clone(),
            remedy: self.remedy.clone(),
        }
    }
}

/// The keys of the files in the order they are to be tried: first those of `-i`, last those of the configuration.
#[derive(Debug, Default)]
pub(crate) struct FileKeys {
    /// From `-i`.
    pub(crate) explicit: Vec<FileKey>,
    /// From ssh_config or the usual places.
    pub(crate) fallback: Vec<FileKey>,
}

/// Reads all key files.
///
/// # Errors
/// If one of `-i` cannot be read. The others are passed over.
pub(crate) fn read_all(identities: &Identities) -> Result<FileKeys, ClientError> {
    let passphrase =
        PASSPHRASE_VARIABLES.iter().find_map(|name| std::env::var(name).ok()).map(Zeroizing::new);
    let passphrase = passphrase.as_ref().map(|text| text.as_str()).filter(|text| !text.is_empty());
    let mut keys = FileKeys::default();
    for path in &identities.explicit {
        keys.explicit.push(read(path, passphrase)?);
    }
    for path in &identities.fallback {
        match read(path, passphrase) {
            Ok(key) => keys.fallback.push(key),
            Err(error) => tracing::debug!(path = %path.display(), %error, "key passed over"),
        }
    }
    Ok(keys)
}

fn read(path: &Path, passphrase: Option<&str>) -> Result<FileKey, ClientError> {
    let text = read_private(path)?;
    if let Ok(public) = PublicKey::from_openssh(text.trim()) {
        // The public half of a key that the agent holds, as ssh allows too.
        let locked = Locked {
            message: "this is a public key, and no agent holds its private half".to_owned(),
            remedy: "name the private key, or load it with ssh-add".to_owned(),
        };
        return Ok(FileKey { path: path.to_owned(), public: Some(public), private: Err(locked) });
    }
    let encrypted_public = PrivateKey::from_openssh(text.as_bytes()).ok().filter(PrivateKey::is_encrypted);
    let encrypted = encrypted_public.is_some() || text.lines().any(|line| line.contains("ENCRYPTED"));
    let public = encrypted_public.map(|key| key.public_key().clone()).or_else(|| beside(path));
    if !encrypted {
        let key = decode_secret_key(&text, None).map_err(|error| bad_file(path, &error))?;
        return Ok(FileKey {
            path: path.to_owned(),
            public: Some(key.public_key().clone()),
            private: Ok(Arc::new(key)),
        });
    }
    let shown = sanitize::path(path);
    let Some(passphrase) = passphrase else {
        let locked = Locked {
            message: "it is encrypted, and no passphrase is given".to_owned(),
            remedy: format!("load it into an agent with ssh-add {shown}, or set HAUL_PASSPHRASE"),
        };
        return Ok(FileKey { path: path.to_owned(), public, private: Err(locked) });
    };
    match decode_secret_key(&text, Some(passphrase)) {
        Ok(key) => {
            let public = Some(key.public_key().clone());
            Ok(FileKey { path: path.to_owned(), public, private: Ok(Arc::new(key)) })
        }
        Err(_) => {
            let locked = Locked {
                message: "it is encrypted, and the passphrase given does not open it".to_owned(),
                remedy: format!("correct HAUL_PASSPHRASE, or load the key with ssh-add {shown}"),
            };
            Ok(FileKey { path: path.to_owned(), public, private: Err(locked) })
        }
    }
}

/// The public key in `FILE.pub`.
fn beside(path: &Path) -> Option<PublicKey> {
    let mut name = path.file_name()?.to_owned();
    name.push(".pub");
    let text = std::fs::read_to_string(path.with_file_name(name)).ok()?;
    PublicKey::from_openssh(text.trim()).ok()
}

/// Reads a key file that only its owner may read, as ssh demands.
fn read_private(path: &Path) -> Result<Zeroizing<String>, ClientError> {
    let failed = |error: io::Error| {
        let (message, remedy) = match error.kind() {
            io::ErrorKind::NotFound => ("no such file".to_owned(), "check the file name given with -i"),
            io::ErrorKind::PermissionDenied => ("permission denied".to_owned(), "check who may read it"),
            io::ErrorKind::InvalidData => ("it is no text".to_owned(), "give an OpenSSH or PEM private key"),
            _ => (error.to_string(), ""),
        };
        ClientError::KeyFile { path: path.to_owned(), message, remedy: remedy.to_owned() }
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_KEY_FILE_BYTES {
        return Err(failed(io::ErrorKind::InvalidData.into()));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(metadata.len()).unwrap_or_default()));
    file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    let mine = metadata.uid() == nix::unistd::Uid::current().as_raw();
    if mine && metadata.mode() & 0o077 != 0 && text.contains("PRIVATE KEY-----") {
        return Err(ClientError::KeyFile {
            path: path.to_owned(),
            message: format!("other users can read it (mode {:04o})", metadata.mode() & 0o7777),
            remedy: format!("chmod 600 {}", sanitize::path(path)),
        });
    }
    Ok(text)
}

fn bad_file(path: &Path, error: &russh::keys::Error) -> ClientError {
    ClientError::KeyFile {
        path: path.to_owned(),
        message: format!("it is not a private key that haul can read ({error})"),
        remedy: "give a key in OpenSSH, PKCS#8 or PEM form, of kind Ed25519, ECDSA or RSA".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn keygen(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
        let path = folder.join(name);
        let status = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(arguments).status();
        assert!(status.expect("ssh-keygen is needed for this test").success());
        path
    }

    #[test]
    fn all_usual_forms_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for (n, arguments) in [
            &["-t", "ed25519", "-N", ""][..],
            &["-t", "ecdsa", "-b", "384", "-N", ""],
            &["-t", "rsa", "-b", "2048", "-N", ""],
            &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""],
            &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", ""],
            &["-t", "ecdsa", "-m", "PKCS8", "-N", ""],
            &["-t", "ecdsa", "-m", "PEM", "-N", ""],
        ]
        .iter()
        .enumerate()
        {
            let path = keygen(folder.path(), &format!("key{n}"), arguments);
            // A passphrase that is set for another key must not spoil this one.
            for passphrase in [None, Some("unused")] {
                let key = read(&path, passphrase).unwrap_or_else(|error| panic!("row {n}: {error}"));
                let public = beside(&path).unwrap();
                assert_eq!(key.public.unwrap().key_data(), public.key_data(), "row {n}");
                assert!(key.private.is_ok(), "row {n}");
            }
        }
    }

    #[test]
    fn encrypted_keys_open_with_their_passphrase_only() {
        let folder = tempfile::tempdir().unwrap();
        for (n, arguments) in [
            &["-t", "ed25519", "-N", "secret"][..],
            &["-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "secret"],
        ]
        .iter()
        .enumerate()
        {
            let path = keygen(folder.path(), &format!("key{n}"), arguments);
            assert!(read(&path, Some("secret")).unwrap().private.is_ok(), "row {n}");
            let locked = read(&path, None).unwrap();
            assert!(locked.public.is_some(), "row {n}: the agent could hold it");
            assert!(locked.private.unwrap_err().remedy.contains("ssh-add"), "row {n}");
            let wrong = read(&path, Some("wrong")).unwrap().private.unwrap_err();
            assert!(wrong.message.contains("does not open"), "row {n}");
        }
    }

    #[test]
    fn unusable_files_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let open = keygen(folder.path(), "open", &["-t", "ed25519", "-N", ""]);
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
        let garbage = folder.path().join("garbage");
        std::fs::write(&garbage, "no key").unwrap();
        for (n, (path, message)) in [
            (&folder.path().join("none"), "no such file"),
            (&open, "other users"),
            (&garbage, "not a private key"),
        ]
        .into_iter()
        .enumerate()
        {
            let error = read(path, None).unwrap_err().to_string();
            assert!(error.contains(message), "row {n}: {error}");
        }
    }
}
