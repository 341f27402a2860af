//! Decides who a peer is: the key must stand in the user's `authorized_keys` and fit there. The file is read at each
//! login, so an edit takes effect at once. The reason of a refusal goes to the log; the peer hears a bare no, the same
//! for an unknown user as for a wrong key.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use nix::unistd::Uid;
use russh::keys::{Algorithm, PublicKey};
use thiserror::Error;
use tracing::warn;

use crate::authorized_keys::{self, Verdict};
use crate::config::UserEntry;
use crate::privileges::{self, PrivilegeError};
use crate::trusted_file::{self, TrustedFileError};

/// Why a login is refused.
#[derive(Debug, Error)]
pub(crate) enum Denied {
    #[error("no such user")]
    UnknownUser,
    #[error("signatures of type {0} are not accepted")]
    Algorithm(String),
    #[error(transparent)]
    KeyFile(#[from] TrustedFileError),
    #[error(transparent)]
    Account(#[from] PrivilegeError),
    #[error("the key is not in {0}")]
    NotListed(String),
    #[error("the key may not be used from this address ({0})")]
    WrongSource(String),
    #[error("the key has expired ({0})")]
    Expired(String),
    #[error("the check was interrupted")]
    Interrupted,
}

/// What a peer asks to be let in with.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) key: PublicKey,
    pub(crate) algorithm: Algorithm,
    pub(crate) peer: IpAddr,
    pub(crate) now: SystemTime,
}

/// Checks an attempt. Files are read on a thread of their own: the caller is the task that serves the connection.
pub(crate) async fn check(user: Option<Arc<UserEntry>>, attempt: Attempt) -> Result<(), Denied> {
    let check = move || decide(user.as_deref(), &attempt);
    tokio::task::spawn_blocking(check).await.unwrap_or(Err(Denied::Interrupted))
}

fn decide(user: Option<&UserEntry>, attempt: &Attempt) -> Result<(), Denied> {
    check_algorithm(&attempt.algorithm)?;
    let user = user.ok_or(Denied::UnknownUser)?;
    let path = &user.authorized_keys;
    let content = trusted_file::read(path, owner(user)?)?;
    let (keys, ignored) = authorized_keys::parse(&content);
    for line in ignored {
        warn!(file = %path.display(), line = line.line, reason = line.reason, "authorized_keys line ignored");
    }
    let mut denied = Denied::NotListed(path.display().to_string());
    for key in keys.iter().filter(|key| key.is(&attempt.key)) {
        let place = format!("{}, line {}", path.display(), key.line);
        match key.judge(attempt.peer, attempt.now) {
            Verdict::Fits => return Ok(()),
            Verdict::WrongSource => denied = Denied::WrongSource(place),
            Verdict::Expired => denied = Denied::Expired(place),
        }
    }
    Err(denied)
}

/// RSA with SHA-1 is forgeable; security keys and certificates need checks that are not made here.
fn check_algorithm(algorithm: &Algorithm) -> Result<(), Denied> {
    match algorithm {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) } => Ok(()),
        other => Err(Denied::Algorithm(other.to_string())),
    }
}

/// Whose the key file may be: the account's that the worker becomes, else our own.
fn owner(user: &UserEntry) -> Result<Uid, PrivilegeError> {
    user.account
        .as_deref()
        .map_or_else(|| Ok(Uid::effective()), |name| privileges::find(name).map(|found| found.uid))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use russh::keys::key::safe_rng;
    use russh::keys::{HashAlg, PrivateKey};

    use super::*;
    use crate::policy::Permissions;
    use crate::shares::caps::SharedCaps;

    fn user(keys: &Path) -> UserEntry {
        UserEntry {
            name: "alice".to_owned(),
            docroot: "/".into(),
            authorized_keys: keys.to_owned(),
            permissions: Permissions::ALL,
            caps: SharedCaps::default(),
            max_session_rate: None,
            account: None,
        }
    }

    fn attempt(key: &PrivateKey) -> Attempt {
        Attempt {
            key: key.public_key().clone(),
            algorithm: key.algorithm(),
            peer: IpAddr::from([192, 0, 2, 7]),
            now: SystemTime::now(),
        }
    }

    #[test]
    fn only_a_listed_key_of_a_known_user_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (mine, other) = (key(), key());
        std::fs::write(&path, mine.public_key().to_openssh().unwrap()).unwrap();
        let user = user(&path);
        assert!(decide(Some(&user), &attempt(&mine)).is_ok());
        assert!(matches!(decide(Some(&user), &attempt(&other)), Err(Denied::NotListed(_))));
        assert!(matches!(decide(None, &attempt(&mine)), Err(Denied::UnknownUser)));
        std::fs::write(&path, format!("from=\"10.0.0.1\" {}", mine.public_key().to_openssh().unwrap()))
            .unwrap();
        assert!(matches!(decide(Some(&user), &attempt(&mine)), Err(Denied::WrongSource(_))));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(decide(Some(&user), &attempt(&mine)), Err(Denied::NotListed(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(decide(Some(&user), &attempt(&mine)), Err(Denied::KeyFile(_))));
    }

    #[test]
    fn sha1_signatures_are_refused_before_anything_is_read() {
        assert!(matches!(check_algorithm(&Algorithm::Rsa { hash: None }), Err(Denied::Algorithm(_))));
        assert!(check_algorithm(&Algorithm::Rsa { hash: Some(HashAlg::Sha256) }).is_ok());
        assert!(check_algorithm(&Algorithm::Dsa).is_err());
    }

    fn key() -> PrivateKey {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
    }
}
