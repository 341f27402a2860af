//! Decides who a peer is: the key must stand in the user's `authorized_keys` and fit there, or a trusted authority must
//! have signed for it. The files are read at each login, so an edit takes effect at once. The reason of a refusal goes
//! to the log; the peer hears a bare no, the same for an unknown user as for a wrong key.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use nix::unistd::Uid;
use russh::keys::{Algorithm, Certificate, PublicKey};
use thiserror::Error;
use tracing::warn;

use crate::authorized_keys::{self, AuthorizedKey, Verdict};
use crate::certificate::{self, Terms, Unfit};
use crate::config::{Config, UserEntry};
use crate::privileges::{self, PrivilegeError};
use crate::revoked::Revoked;
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
    #[error("{} cannot be used: {reason}", .path.display())]
    List { path: PathBuf, reason: String },
    #[error(transparent)]
    Account(#[from] PrivilegeError),
    #[error("the key is not in {0}")]
    NotListed(String),
    #[error("the key may not be used from this address ({0})")]
    WrongSource(String),
    #[error("the key has expired ({0})")]
    Expired(String),
    #[error("the key is revoked")]
    Revoked,
    #[error("the certificate opens nothing: {0}")]
    Certificate(#[from] Unfit),
    #[error("this user has no password")]
    NoPassword,
    #[error("wrong password")]
    WrongPassword,
    #[error("the check was interrupted")]
    Interrupted,
}

/// What a peer wants to be let in with.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A key that the peer asks about and has not proved to hold. It may be that of a certificate: the library does not
    /// say, and shows the certificate only once the peer has signed.
    Probe(PublicKey, Algorithm),
    /// A key that it holds.
    Key(PublicKey, Algorithm),
    /// A certificate whose key it holds. The signature's algorithm was judged with the probe.
    Certificate(Box<Certificate>),
}

/// What a peer asks to be let in with, and when and from where.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) credential: Credential,
    pub(crate) peer: IpAddr,
    pub(crate) now: SystemTime,
}

/// What is trusted and what is not, for all users.
#[derive(Debug)]
pub(crate) struct Trust {
    authorities: Option<PathBuf>,
    revoked: Option<PathBuf>,
    /// Some user may log in with a certificate.
    certificates: AtomicBool,
}

impl Trust {
    pub(crate) fn new(config: &Config) -> Self {
        let certificates = AtomicBool::new(config.trusted_ca_keys.is_some());
        Self {
            authorities: config.trusted_ca_keys.clone(),
            revoked: config.revoked_keys.clone(),
            certificates,
        }
    }

    /// Looks for authorities in the key files of the users, so that a probe is answered alike for all of them. One that
    /// is written later is found at the first login of its user.
    pub(crate) fn scan(&self, users: &[Arc<UserEntry>]) {
        for user in users {
            if self.certificates.load(Ordering::Relaxed) {
                return;
            }
            // What cannot be read is told when it matters.
            let _ = self.listed(user);
        }
    }

    /// The authorities of the configuration.
    pub(crate) fn authorities(&self) -> Result<Vec<AuthorizedKey>, Denied> {
        let Some(path) = &self.authorities else { return Ok(Vec::new()) };
        let (keys, ignored) = authorized_keys::parse(&trusted_file::read(path, Uid::effective())?);
        warn_of(path, &ignored);
        Ok(keys.into_iter().map(AuthorizedKey::into_authority).collect())
    }

    /// What is revoked. A list that cannot be read lets nobody in.
    pub(crate) fn revoked(&self) -> Result<Revoked, Denied> {
        let Some(path) = &self.revoked else { return Ok(Revoked::default()) };
        let content = trusted_file::read(path, Uid::effective())?;
        Revoked::parse(&content).map_err(|reason| Denied::List { path: path.clone(), reason })
    }

    /// The lines of the user's own file.
    fn listed(&self, user: &UserEntry) -> Result<Vec<AuthorizedKey>, Denied> {
        let Some(path) = &user.authorized_keys else { return Ok(Vec::new()) };
        let (keys, ignored) = authorized_keys::parse(&trusted_file::read(path, owner(user)?)?);
        warn_of(path, &ignored);
        if keys.iter().any(AuthorizedKey::signs) {
            self.certificates.store(true, Ordering::Relaxed);
        }
        Ok(keys)
    }
}

fn warn_of(path: &Path, ignored: &[authorized_keys::Ignored]) {
    for line in ignored {
        warn!(file = %path.display(), line = line.line, reason = line.reason, "line ignored");
    }
}

/// What a login is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Sessions, and the commands that make links.
    All,
    /// Sessions only: `command=` or `force-command` says so.
    SessionsOnly,
}

/// Checks an attempt. Files are read on a thread of their own: the caller is the task that serves the connection.
pub(crate) async fn check(
    user: Option<Arc<UserEntry>>,
    trust: Arc<Trust>,
    attempt: Attempt,
) -> Result<Grant, Denied> {
    let check = move || decide(user.as_deref(), &trust, &attempt);
    tokio::task::spawn_blocking(check).await.unwrap_or(Err(Denied::Interrupted))
}

fn decide(user: Option<&UserEntry>, trust: &Trust, attempt: &Attempt) -> Result<Grant, Denied> {
    match &attempt.credential {
        Credential::Probe(key, algorithm) => {
            check_algorithm(algorithm)?;
            // Any key may be one with a certificate, of an unknown user as of a known one: the peer is let go on to sign,
            // and judged then.
            if trust.certificates.load(Ordering::Relaxed) {
                return Ok(Grant::SessionsOnly);
            }
            decide_key(user, trust, attempt, key)
        }
        Credential::Key(key, algorithm) => {
            check_algorithm(algorithm)?;
            decide_key(user, trust, attempt, key)
        }
        Credential::Certificate(certificate) => decide_certificate(user, trust, attempt, certificate),
    }
}

fn decide_key(
    user: Option<&UserEntry>,
    trust: &Trust,
    attempt: &Attempt,
    key: &PublicKey,
) -> Result<Grant, Denied> {
    let user = user.ok_or(Denied::UnknownUser)?;
    let path = user.authorized_keys.as_deref().map_or_else(String::new, |path| path.display().to_string());
    if trust.revoked()?.has_key(key.key_data()) {
        return Err(Denied::Revoked);
    }
    let listed = trust.listed(user)?;
    let mut denied = Denied::NotListed(path.clone());
    for line in listed.iter().filter(|line| line.is(key)) {
        let place = format!("{path}, line {}", line.line);
        match line.judge(attempt.peer, attempt.now) {
            Verdict::Fits => return Ok(line.grant()),
            Verdict::WrongSource => denied = Denied::WrongSource(place),
            Verdict::Expired => denied = Denied::Expired(place),
        }
    }
    Err(denied)
}

fn decide_certificate(
    user: Option<&UserEntry>,
    trust: &Trust,
    attempt: &Attempt,
    certificate: &Certificate,
) -> Result<Grant, Denied> {
    let user = user.ok_or(Denied::UnknownUser)?;
    if trust.revoked()?.has_certificate(certificate) {
        return Err(Denied::Revoked);
    }
    // The user's own lines come first: they may say more, such as principals.
    let (own, all) = (trust.listed(user), trust.authorities()?);
    let own = match own {
        // A user without a usable file of their own can still come with the server's authorities.
        Err(error) if all.is_empty() => return Err(error),
        Err(_) => Vec::new(),
        Ok(own) => own,
    };
    let authorities: Vec<&AuthorizedKey> = own.iter().chain(&all).collect();
    let terms = Terms {
        authorities: &authorities,
        principals: &user.principals,
        peer: attempt.peer,
        now: attempt.now,
    };
    Ok(certificate::judge(certificate, &terms)?)
}

/// RSA with SHA-1 is forgeable; security keys need checks that are not made here.
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
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::certificate::Builder;
    use russh::keys::{HashAlg, PrivateKey};

    use super::*;
    use crate::policy::Permissions;
    use crate::shares::caps::SharedCaps;

    fn user(keys: &Path) -> UserEntry {
        UserEntry {
            name: "alice".to_owned(),
            docroot: "/".into(),
            authorized_keys: Some(keys.to_owned()),
            password: None,
            principals: vec!["alice".to_owned()],
            permissions: Permissions::ALL,
            caps: SharedCaps::default(),
            max_session_rate: None,
            authorize: None,
            account: None,
        }
    }

    fn attempt(credential: Credential) -> Attempt {
        Attempt { credential, peer: IpAddr::from([192, 0, 2, 7]), now: SystemTime::now() }
    }

    fn with_key(key: &PrivateKey) -> Attempt {
        attempt(Credential::Key(key.public_key().clone(), key.algorithm()))
    }

    fn probing(key: &PrivateKey) -> Attempt {
        attempt(Credential::Probe(key.public_key().clone(), key.algorithm()))
    }

    fn with_certificate(authority: &PrivateKey, principal: &str) -> Attempt {
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), key().public_key().clone(), 0, u64::MAX - 1)
                .unwrap();
        builder.serial(5).unwrap().key_id("test").unwrap().valid_principal(principal).unwrap();
        attempt(Credential::Certificate(Box::new(builder.sign(authority).unwrap())))
    }

    fn trust(authorities: Option<&Path>, revoked: Option<&Path>) -> Trust {
        Trust {
            authorities: authorities.map(Path::to_owned),
            revoked: revoked.map(Path::to_owned),
            certificates: AtomicBool::new(authorities.is_some()),
        }
    }

    #[test]
    fn only_a_listed_key_of_a_known_user_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (mine, other, trust) = (key(), key(), trust(None, None));
        let line = mine.public_key().to_openssh().unwrap();
        std::fs::write(&path, &line).unwrap();
        let user = user(&path);
        let decide = |user, attempt| decide(user, &trust, &attempt);
        assert!(decide(Some(&user), with_key(&mine)).is_ok());
        assert!(matches!(decide(Some(&user), with_key(&other)), Err(Denied::NotListed(_))));
        assert!(matches!(decide(Some(&user), probing(&other)), Err(Denied::NotListed(_))));
        assert!(matches!(decide(None, with_key(&mine)), Err(Denied::UnknownUser)));
        std::fs::write(&path, format!("from=\"10.0.0.1\" {line}")).unwrap();
        assert!(matches!(decide(Some(&user), with_key(&mine)), Err(Denied::WrongSource(_))));
        std::fs::write(&path, "").unwrap();
        assert!(matches!(decide(Some(&user), with_key(&mine)), Err(Denied::NotListed(_))));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(decide(Some(&user), with_key(&mine)), Err(Denied::KeyFile(_))));
    }

    #[test]
    fn certificates_open_with_an_authority_of_the_server_or_of_the_user() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, servers) = (folder.path().join("keys"), folder.path().join("ca"));
        let (own, common) = (key(), key());
        let text = |key: &PrivateKey| key.public_key().to_openssh().unwrap();
        std::fs::write(&keys, format!("cert-authority,principals=\"team\" {}", text(&own))).unwrap();
        std::fs::write(&servers, text(&common)).unwrap();
        let (user, trust) = (user(&keys), trust(Some(&servers), None));
        let decide = |user, attempt| decide(user, &trust, &attempt);
        assert!(decide(Some(&user), with_certificate(&common, "alice")).is_ok());
        assert!(decide(Some(&user), with_certificate(&own, "team")).is_ok());
        for refused in [
            with_certificate(&common, "bob"),
            with_certificate(&own, "alice"),
            with_certificate(&key(), "alice"),
        ] {
            assert!(matches!(decide(Some(&user), refused), Err(Denied::Certificate(_))));
        }
        assert!(matches!(decide(None, with_certificate(&common, "alice")), Err(Denied::UnknownUser)));
        // An authority is no key to log in with.
        assert!(
            decide(Some(&user), with_key(&common)).is_err() && decide(Some(&user), with_key(&own)).is_err()
        );
        std::fs::remove_file(&keys).unwrap();
        assert!(decide(Some(&user), with_certificate(&common, "alice")).is_ok());
    }

    #[test]
    fn where_certificates_count_a_probe_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        std::fs::write(&keys, format!("cert-authority {}", key().public_key().to_openssh().unwrap()))
            .unwrap();
        let (user, trust) = (user(&keys), trust(None, None));
        trust.scan(&[Arc::new(user.clone())]);
        for user in [Some(&user), None] {
            assert!(decide(user, &trust, &probing(&key())).is_ok());
            assert!(decide(user, &trust, &with_key(&key())).is_err());
        }
    }

    #[test]
    fn what_is_revoked_opens_nothing_and_a_broken_list_nothing_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (mine, authority) = (key(), key());
        std::fs::write(at("keys"), mine.public_key().to_openssh().unwrap()).unwrap();
        std::fs::write(at("ca"), authority.public_key().to_openssh().unwrap()).unwrap();
        let (user, trust) = (user(&at("keys")), trust(Some(&at("ca")), Some(&at("revoked"))));
        for (list, key_opens, certificate_opens) in [
            (String::new(), true, true),
            ("serial: 5".to_owned(), true, false),
            (mine.public_key().to_openssh().unwrap(), false, true),
            (authority.public_key().to_openssh().unwrap(), true, false),
            ("garbage".to_owned(), false, false),
        ] {
            std::fs::write(at("revoked"), &list).unwrap();
            assert_eq!(decide(Some(&user), &trust, &with_key(&mine)).is_ok(), key_opens, "{list}");
            let certificate = with_certificate(&authority, "alice");
            assert_eq!(decide(Some(&user), &trust, &certificate).is_ok(), certificate_opens, "{list}");
        }
        std::fs::remove_file(at("revoked")).unwrap();
        assert!(decide(Some(&user), &trust, &with_key(&mine)).is_err());
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
