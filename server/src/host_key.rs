//! The server's host key: Ed25519, made once under the state directory, readable by its owner only. Other key types are
//! not made: every client of this century reads Ed25519.

use std::path::Path;

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey};

use crate::error::ServerError;
use crate::private_file;

/// Its name in the state directory.
const FILE_NAME: &str = "host_ed25519";

/// Loads the host key, or makes one.
///
/// # Errors
/// If the state directory or the key cannot be made, read or trusted.
pub fn load_or_create(state_dir: &Path) -> Result<PrivateKey, ServerError> {
    private_file::prepare(state_dir)
        .map_err(|reason| ServerError::StateDir { path: state_dir.to_owned(), reason })?;
    let path = state_dir.join(FILE_NAME);
    let failed = |reason| ServerError::HostKey { path: path.clone(), reason };
    if let Some(key) = load(&path).map_err(failed)? {
        return Ok(key);
    }
    create(state_dir, &path).map_err(failed)?;
    load(&path).map_err(failed)?.ok_or_else(|| failed("it vanished".to_owned()))
}

/// How users know the key: as `ssh` and `ssh-keygen -l` print it.
#[must_use]
pub fn fingerprint(key: &PrivateKey) -> String {
    key.public_key().fingerprint(HashAlg::Sha256).to_string()
}

/// Reads the certificate that an authority made of the host key, for clients that know the authority only.
///
/// # Errors
/// If it cannot be read, or is of another key or of no host.
pub(crate) fn certificate(path: Option<&Path>, key: &PrivateKey) -> Result<Option<Certificate>, ServerError> {
    let Some(path) = path else { return Ok(None) };
    let failed = |reason: String| ServerError::HostCertificate { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let certificate = Certificate::from_openssh(&text).map_err(|error| failed(error.to_string()))?;
    if certificate.cert_type() != CertType::Host {
        return Err(failed("it is a user's certificate; sign with ssh-keygen -h".to_owned()));
    }
    if certificate.public_key() != key.public_key().key_data() {
        return Err(failed(format!("it is of another key, expected {}", fingerprint(key))));
    }
    Ok(Some(certificate))
}

fn load(path: &Path) -> Result<Option<PrivateKey>, String> {
    let Some(text) = private_file::read(path)? else { return Ok(None) };
    let key = PrivateKey::from_openssh(&text).map_err(|error| format!("no OpenSSH private key: {error}"))?;
    if key.is_encrypted() || key.algorithm() != Algorithm::Ed25519 {
        return Err("expected an Ed25519 key without passphrase".to_owned());
    }
    Ok(Some(key))
}

fn create(state_dir: &Path, path: &Path) -> Result<(), String> {
    let mut key =
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(|error| error.to_string())?;
    key.set_comment("hauld");
    let text = key.to_openssh(LineEnding::LF).map_err(|error| error.to_string())?;
    private_file::create(state_dir, path, &text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/b");
        let first = load_or_create(&state).unwrap();
        let second = load_or_create(&state).unwrap();
        assert_eq!(fingerprint(&first), fingerprint(&second));
        assert!(fingerprint(&first).starts_with("SHA256:"));
        assert_eq!(state.metadata().unwrap().mode() & 0o7777, 0o700);
        assert_eq!(state.join(FILE_NAME).metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_or_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        load_or_create(&state).unwrap();
        let path = state.join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_create(&state).unwrap_err().lines()[0].contains("0640"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(load_or_create(&state), Err(ServerError::StateDir { .. })));
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(load_or_create(&state), Err(ServerError::HostKey { .. })));
    }
}
