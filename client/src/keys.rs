//! The user's private keys in files and in the environment, with their certificates: reading them, and saying clearly
//! why one cannot be used.
//!
//! It never prompts. Not here: the agent and the order of attempts (`login`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{Certificate, PrivateKey, PublicKey, decode_secret_key};
use zeroize::Zeroizing;

use crate::config::Identities;
use crate::error::ClientError;
use crate::sanitize;

/// Key files are a few KiB.
const MAX_KEY_FILE_BYTES: u64 = 1 << 20;

/// The variable with the passphrase of key files and nothing else.
const PASSPHRASE_VARIABLE: &str = "HAUL_PASSPHRASE";

/// What stands in place of a file's name for a key from the environment.
const ENVIRONMENT_KEY: &str = "the key of HAUL_KEY or ASPERA_SCP_KEY";

/// A key named by a file.
#[derive(Clone)]
pub(crate) struct FileKey {
    /// The file.
    pub(crate) path: PathBuf,
    /// Certificates of this key.
    pub(crate) certificates: Vec<Certificate>,
    /// The public half; none if the file does not tell it without a passphrase.
    pub(crate) public: Option<PublicKey>,
    /// The private half, or why it is locked: then only an agent that holds the key can use it.
    pub(crate) private: Result<Arc<PrivateKey>, Locked>,
}

/// Why the private half is not at hand.
#[derive(Clone)]
pub(crate) struct Locked {
    message: String,
    remedy: String,
    /// The encrypted key, if a passphrase would open it.
    encrypted: Option<Zeroizing<String>>,
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

    /// Whether asking for a passphrase makes sense.
    pub(crate) const fn wants_passphrase(&self) -> bool {
        self.encrypted.is_some()
    }

    /// Opens it with a passphrase; none if that is the wrong one.
    pub(crate) fn open(&self, passphrase: &str) -> Option<Arc<PrivateKey>> {
        decode_secret_key(self.encrypted.as_ref()?, Some(passphrase)).ok().map(Arc::new)
    }
}

/// The keys of the files in the order they are to be tried: first those of `-i`, last those of the configuration.
#[derive(Default)]
pub(crate) struct FileKeys {
    /// From `-i`, and before them from the environment.
    pub(crate) explicit: Vec<FileKey>,
    /// From ssh_config or the usual places.
    pub(crate) fallback: Vec<FileKey>,
    /// The password of the environment has opened a key: then it is that key's, and no server shall see it.
    pub(crate) password_is_passphrase: bool,
}

/// What the environment gives for keys.
#[derive(Default, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Text of a private key.
    pub(crate) key: Option<&'a str>,
    /// Passphrase of keys, or password of the account: ascp has one variable for both.
    pub(crate) password: Option<&'a str>,
}

/// Reads all keys.
///
/// # Errors
/// If the one of the environment or one of `-i` cannot be read. The others are passed over.
pub(crate) fn read_all(identities: &Identities, given: Given<'_>) -> Result<FileKeys, ClientError> {
    let own = std::env::var(PASSPHRASE_VARIABLE).ok().map(Zeroizing::new);
    let own = own.as_ref().map(|text| text.as_str()).filter(|text| !text.is_empty());
    let mut reader = Reader {
        passphrases: [own, given.password],
        certificates: identities.certificates.iter().filter_map(|path| certificate(path)).collect(),
        password_is_passphrase: false,
    };
    let mut keys = FileKeys::default();
    if let Some(text) = given.key {
        let path = Path::new(ENVIRONMENT_KEY);
        keys.explicit.push(reader.parse(path, Zeroizing::new(text.to_owned()))?);
    }
    for path in &identities.explicit {
        keys.explicit.push(reader.read(path)?);
    }
    for path in &identities.fallback {
        match reader.read(path) {
            Ok(key) => keys.fallback.push(key),
            Err(error) => tracing::debug!(path = %path.display(), %error, "key passed over"),
        }
    }
    keys.password_is_passphrase = reader.password_is_passphrase;
    Ok(keys)
}

/// What key files are opened and completed with.
struct Reader<'a> {
    /// `HAUL_PASSPHRASE`, and the password of the environment.
    passphrases: [Option<&'a str>; 2],
    /// Of `CertificateFile`.
    certificates: Vec<Certificate>,
    password_is_passphrase: bool,
}

impl Reader<'_> {
    fn read(&mut self, path: &Path) -> Result<FileKey, ClientError> {
        let text = read_private(path)?;
        self.parse(path, text)
    }

    fn parse(&mut self, path: &Path, text: Zeroizing<String>) -> Result<FileKey, ClientError> {
        let (public, private) = self.halves(path, text)?;
        let mut certificates: Vec<Certificate> =
            certificate(&with_suffix(path, "-cert.pub")).into_iter().collect();
        certificates.extend(self.certificates.iter().cloned());
        let same = |certificate: &Certificate| {
            public.as_ref().is_some_and(|key: &PublicKey| key.key_data() == certificate.public_key())
        };
        certificates.retain(same);
        certificates.dedup();
        Ok(FileKey { path: path.to_owned(), certificates, public, private })
    }

    #[allow(
        clippy::type_complexity,
        reason = "the two halves of a key, taken apart at once by the only caller"
    )]
    fn halves(
        &mut self,
        path: &Path,
        text: Zeroizing<String>,
    ) -> Result<(Option<PublicKey>, Result<Arc<PrivateKey>, Locked>), ClientError> {
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            // The public half of a key that the agent holds, as ssh allows too.
            let locked = Locked {
                message: "this is a public key, and no agent holds its private half".to_owned(),
                remedy: "name the private key, or load it with ssh-add".to_owned(),
                encrypted: None,
            };
            return Ok((Some(public), Err(locked)));
        }
        refuse_old_forms(path, &text)?;
        let encrypted_public =
            PrivateKey::from_openssh(text.as_bytes()).ok().filter(PrivateKey::is_encrypted);
        let encrypted = encrypted_public.is_some() || text.lines().any(is_encryption_mark);
        let public = encrypted_public.map(|key| key.public_key().clone()).or_else(|| beside(path));
        if !encrypted {
            let key = decode_secret_key(&text, None).map_err(|error| bad_file(path, &error))?;
            return Ok((Some(key.public_key().clone()), Ok(Arc::new(key))));
        }
        for (at, passphrase) in self.passphrases.into_iter().enumerate() {
            let Some(passphrase) = passphrase else { continue };
            if let Ok(key) = decode_secret_key(&text, Some(passphrase)) {
                self.password_is_passphrase |= at == 1;
                return Ok((Some(key.public_key().clone()), Ok(Arc::new(key))));
            }
        }
        Ok((public, Err(self.locked(path, text))))
    }

    fn locked(&self, path: &Path, text: Zeroizing<String>) -> Locked {
        let shown = sanitize::path(path);
        let (message, remedy) = if self.passphrases.iter().any(Option::is_some) {
            (
                "it is encrypted, and the passphrase given does not open it",
                format!("correct HAUL_PASSPHRASE, or load the key with ssh-add {shown}"),
            )
        } else {
            (
                "it is encrypted, and no passphrase is given",
                format!("load it into an agent with ssh-add {shown}, or set HAUL_PASSPHRASE"),
            )
        };
        Locked { message: message.to_owned(), remedy, encrypted: Some(text) }
    }
}

fn is_encryption_mark(line: &str) -> bool {
    line.starts_with("-----BEGIN ENCRYPTED ")
        || (line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

/// Old encrypted PEM that the SSH library cannot open, and DSA, which no server takes.
fn refuse_old_forms(path: &Path, text: &str) -> Result<(), ClientError> {
    let refuse = |message: &str, remedy: String| {
        Err(ClientError::KeyFile { path: path.to_owned(), message: message.to_owned(), remedy })
    };
    if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
        return refuse(
            "it is a DSA key, which is broken and taken by no server today",
            "make a new one: ssh-keygen -t ed25519".to_owned(),
        );
    }
    let cipher = text.lines().find_map(|line| line.strip_prefix("DEK-Info:")).map(str::trim);
    let elliptic = text.contains("-----BEGIN EC PRIVATE KEY-----");
    match cipher {
        Some(cipher) if elliptic || !cipher.starts_with("AES-128-CBC,") => {
            let cipher: String = cipher.split(',').next().unwrap_or_default().chars().take(24).collect();
            let kind = if elliptic { "an elliptic key" } else { "a key" };
            refuse(
                &format!(
                    "it is {kind} in old PEM form encrypted with {}, which haul cannot read",
                    sanitize::text(&cipher)
                ),
                format!("convert it, keeping the passphrase: ssh-keygen -p -f {}", sanitize::path(path)),
            )
        }
        _ => Ok(()),
    }
}

/// Reads a certificate; none if there is none, or it cannot be used.
fn certificate(path: &Path) -> Option<Certificate> {
    let text = std::fs::read_to_string(path).ok().filter(|text| text.len() as u64 <= MAX_KEY_FILE_BYTES)?;
    match Certificate::from_openssh(text.trim()) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "unusable certificate passed over");
            None
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The public key in `FILE.pub`.
fn beside(path: &Path) -> Option<PublicKey> {
    let text = std::fs::read_to_string(with_suffix(path, ".pub")).ok()?;
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

    fn read(path: &Path, passphrase: Option<&str>) -> Result<FileKey, ClientError> {
        let (passphrases, certificates) = ([passphrase, None], Vec::new());
        Reader { passphrases, certificates, password_is_passphrase: false }.read(path)
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
            let locked = locked.private.err().unwrap();
            assert!(locked.remedy.contains("ssh-add"), "row {n}");
            assert!(locked.wants_passphrase() && locked.open("wrong").is_none(), "row {n}");
            assert!(locked.open("secret").is_some(), "row {n}");
            let wrong = read(&path, Some("wrong")).unwrap().private.err().unwrap();
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
            let error = read(path, None).err().unwrap().to_string();
            assert!(error.contains(message), "row {n}: {error}");
        }
    }

    #[test]
    fn old_pem_forms_are_read_or_refused_with_the_conversion() {
        let folder = tempfile::tempdir().unwrap();
        let path = keygen(folder.path(), "old", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"]);
        assert!(read(&path, Some("secret")).unwrap().private.is_ok());
        let text = std::fs::read_to_string(&path).unwrap();
        for (n, (text, message, remedy)) in [
            (text.replace("AES-128-CBC", "DES-EDE3-CBC"), "encrypted with DES-EDE3-CBC", "ssh-keygen -p -f"),
            (text.replace("RSA PRIVATE", "EC PRIVATE"), "an elliptic key", "ssh-keygen -p -f"),
            (text.replace("RSA PRIVATE", "DSA PRIVATE"), "a DSA key", "ssh-keygen -t ed25519"),
        ]
        .into_iter()
        .enumerate()
        {
            std::fs::write(&path, text).unwrap();
            let error = read(&path, Some("secret")).err().unwrap();
            assert!(error.to_string().contains(message), "row {n}: {error}");
            assert!(error.remedy().unwrap().contains(remedy), "row {n}: {:?}", error.remedy());
        }
    }

    #[test]
    fn a_key_from_the_environment_comes_first_and_finds_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let path = keygen(folder.path(), "key", &["-t", "ed25519", "-N", "secret"]);
        let authority = keygen(folder.path(), "ca", &["-t", "ed25519", "-N", ""]);
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-I", "me", "-n", "me", "-s"]).arg(authority).arg(with_suffix(&path, ".pub"));
        assert!(sign.status().unwrap().success());
        let identities = Identities {
            explicit: vec![path.clone()],
            certificates: vec![with_suffix(&path, "-cert.pub")],
            ..Identities::default()
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let given = Given { key: Some(&text), password: Some("secret") };
        let keys = read_all(&identities, given).unwrap();
        assert_eq!(keys.explicit.len(), 2);
        assert!(keys.explicit.iter().all(|key| key.private.is_ok() && key.certificates.len() == 1));
        assert!(keys.password_is_passphrase, "it must not go to a server");
        let keys = read_all(&identities, Given { key: None, password: Some("wrong") }).unwrap();
        assert!(keys.explicit[0].private.is_err() && !keys.password_is_passphrase);
        let garbage = read_all(&identities, Given { key: Some("garbage"), password: None }).err().unwrap();
        assert!(garbage.to_string().contains("ASPERA_SCP_KEY"), "{garbage}");
    }
}
