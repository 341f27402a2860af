//! Judges an OpenSSH user certificate (PROTOCOL.certkeys): who signed it, for whom, until when, and under which
//! conditions. The SSH library has checked that the peer holds the key; it knows no trusted authorities, principals or
//! options. It opens no file and knows no clock. What is not understood is refused.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};
use thiserror::Error;

use crate::auth::Grant;
use crate::authorized_keys::{self, AuthorizedKey, Verdict};
use crate::logging::shown;
use crate::source_pattern::SourceList;

/// Why a certificate opens nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Unfit {
    #[error("it is a host's certificate")]
    HostCertificate,
    #[error("its authority {0} is not trusted")]
    UnknownAuthority(String),
    #[error("its key: {0}")]
    WeakKey(String),
    #[error("its authority's key: {0}")]
    WeakAuthority(String),
    #[error("its authority signed it with {0}")]
    WeakSignature(String),
    #[error("its signature is wrong")]
    Forged,
    #[error("it is not valid yet")]
    Early,
    #[error("it has expired")]
    Expired,
    #[error("it names no principal")]
    NoPrincipals,
    #[error("it is for {0}, none of which may log in as this user")]
    OtherPrincipals(String),
    #[error("it may not be used from this address")]
    WrongSource,
    #[error("its authority may not be used from this address")]
    AuthorityWrongSource,
    #[error("its authority has expired")]
    AuthorityExpired,
    #[error("its critical option {0} cannot be honoured")]
    CriticalOption(String),
}

/// What the certificate is measured against.
pub(crate) struct Terms<'a> {
    /// Lines that name trusted authorities.
    pub(crate) authorities: &'a [&'a AuthorizedKey],
    /// Whom a certificate must be for where the authority's line does not say: the user's principals.
    pub(crate) principals: &'a [String],
    pub(crate) peer: IpAddr,
    pub(crate) now: SystemTime,
}

/// Whether the certificate lets its holder in.
pub(crate) fn judge(certificate: &Certificate, terms: &Terms<'_>) -> Result<Grant, Unfit> {
    if certificate.cert_type() != CertType::User {
        return Err(Unfit::HostCertificate);
    }
    let signer = certificate.signature_key();
    let authority = terms.authorities.iter().find(|line| line.is_authority(signer));
    let authority = authority.ok_or_else(|| Unfit::UnknownAuthority(fingerprint(signer)))?;
    check_signature(certificate)?;
    check_time(certificate, terms.now)?;
    match authority.judge(terms.peer, terms.now) {
        Verdict::Fits => {}
        Verdict::WrongSource => return Err(Unfit::AuthorityWrongSource),
        Verdict::Expired => return Err(Unfit::AuthorityExpired),
    }
    check_principals(certificate, authority.principals().unwrap_or(terms.principals))?;
    match check_options(certificate, terms.peer)? {
        Grant::All => Ok(authority.grant()),
        Grant::SessionsOnly => Ok(Grant::SessionsOnly),
    }
}

/// The library checks the signature too, but what follows must not depend on that.
fn check_signature(certificate: &Certificate) -> Result<(), Unfit> {
    let key = |data: &KeyData| PublicKey::new(data.clone(), "");
    authorized_keys::check_strength(&key(certificate.public_key())).map_err(Unfit::WeakKey)?;
    authorized_keys::check_strength(&key(certificate.signature_key())).map_err(Unfit::WeakAuthority)?;
    // An authority's SHA-1 signature could be carried over to a forged certificate.
    match certificate.signature().algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) } => {}
        other => return Err(Unfit::WeakSignature(other.to_string())),
    }
    certificate.verify_signature().map_err(|_| Unfit::Forged)
}

/// Valid from the first second named until before the last (PROTOCOL.certkeys).
fn check_time(certificate: &Certificate, now: SystemTime) -> Result<(), Unfit> {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < certificate.valid_after() {
        return Err(Unfit::Early);
    }
    if now >= certificate.valid_before() {
        return Err(Unfit::Expired);
    }
    Ok(())
}

/// A certificate without principals would open every account: it is refused, as OpenSSH does for trusted authorities.
fn check_principals(certificate: &Certificate, wanted: &[String]) -> Result<(), Unfit> {
    let named = certificate.valid_principals();
    if named.is_empty() {
        return Err(Unfit::NoPrincipals);
    }
    if named.iter().any(|name| wanted.contains(name)) {
        return Ok(());
    }
    let list: Vec<String> = named.iter().take(8).map(|name| format!("{:?}", shown(name))).collect();
    Err(Unfit::OtherPrincipals(list.join(", ")))
}

fn check_options(certificate: &Certificate, peer: IpAddr) -> Result<Grant, Unfit> {
    let mut grant = Grant::All;
    for (name, value) in certificate.critical_options().iter() {
        let unfit = || Unfit::CriticalOption(format!("{:?}", shown(name)));
        match name.as_str() {
            "source-address" => {
                let list = SourceList::parse(value).map_err(|_| unfit())?;
                if !list.contains(peer) {
                    return Err(Unfit::WrongSource);
                }
            }
            "force-command" if authorized_keys::is_session_command(value) => grant = Grant::SessionsOnly,
            _ => return Err(unfit()),
        }
    }
    Ok(grant)
}

/// A key's fingerprint as ssh shows it.
pub(crate) fn fingerprint(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use russh::keys::PrivateKey;
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::certificate::Builder;

    use super::*;

    const NOW: u64 = 2_000_000_000;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
    }

    /// A certificate for alice from an hour ago to in an hour, changed by `change`.
    fn certificate(authority: &PrivateKey, change: impl FnOnce(&mut Builder)) -> Certificate {
        let public = key().public_key().clone();
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), public, NOW - 3600, NOW + 3600).unwrap();
        builder.key_id("test").unwrap();
        change(&mut builder);
        builder.sign(authority).unwrap()
    }

    fn for_alice(builder: &mut Builder) {
        builder.valid_principal("alice").unwrap();
    }

    fn judged(line: &str, certificate: &Certificate, at: u64) -> Result<Grant, Unfit> {
        let (lines, ignored) = authorized_keys::parse(line.as_bytes());
        assert!(ignored.is_empty(), "{ignored:?}");
        let authorities: Vec<&AuthorizedKey> = lines.iter().collect();
        let terms = Terms {
            authorities: &authorities,
            principals: &["alice".to_owned()],
            peer: IpAddr::from([192, 0, 2, 7]),
            now: UNIX_EPOCH + Duration::from_secs(at),
        };
        judge(certificate, &terms)
    }

    #[test]
    fn a_certificate_opens_within_all_its_bounds_only() {
        let authority = key();
        let line = |options: &str| {
            format!("cert-authority{options} {}", authority.public_key().to_openssh().unwrap())
        };
        let good = certificate(&authority, for_alice);
        for (at, expected) in [
            (NOW, Ok(Grant::All)),
            (NOW - 3600, Ok(Grant::All)),
            (NOW - 3601, Err(Unfit::Early)),
            (NOW + 3599, Ok(Grant::All)),
            (NOW + 3600, Err(Unfit::Expired)),
        ] {
            assert_eq!(judged(&line(""), &good, at), expected, "at {at}");
        }
        assert_eq!(judged(&line(",principals=\"bob,alice\""), &good, NOW), Ok(Grant::All));
        assert!(matches!(judged(&line(",principals=\"bob\""), &good, NOW), Err(Unfit::OtherPrincipals(_))));
        assert_eq!(judged(&line(",from=\"10.0.0.0/8\""), &good, NOW), Err(Unfit::AuthorityWrongSource));
        let old = judged(&line(",expiry-time=\"20300101Z\""), &good, NOW);
        assert_eq!(old, Err(Unfit::AuthorityExpired));
        let stranger = key().public_key().to_openssh().unwrap();
        let refused = judged(&format!("cert-authority {stranger}"), &good, NOW);
        assert!(matches!(refused, Err(Unfit::UnknownAuthority(_))));
        // A line without the option is a key that may log in, not an authority.
        let plain = authority.public_key().to_openssh().unwrap();
        assert!(matches!(judged(&plain, &good, NOW), Err(Unfit::UnknownAuthority(_))));
    }

    #[test]
    fn what_a_certificate_demands_is_honoured_or_refused() {
        let authority = key();
        let line = format!("cert-authority {}", authority.public_key().to_openssh().unwrap());
        let with = |change: fn(&mut Builder)| judged(&line, &certificate(&authority, change), NOW);
        let nobody = with(|builder| {
            builder.all_principals_valid().unwrap();
        });
        assert_eq!(nobody, Err(Unfit::NoPrincipals));
        assert_eq!(
            with(|builder| {
                for_alice(builder);
                builder.cert_type(CertType::Host).unwrap();
            }),
            Err(Unfit::HostCertificate)
        );
        let option = |name: &'static str, value: &'static str| {
            let certificate = certificate(&authority, |builder| {
                for_alice(builder);
                builder.critical_option(name, value).unwrap();
            });
            judged(&line, &certificate, NOW)
        };
        assert_eq!(option("source-address", "192.0.2.0/24"), Ok(Grant::All));
        assert_eq!(option("source-address", "10.0.0.0/8,192.0.2.7"), Ok(Grant::All));
        assert_eq!(option("source-address", "10.0.0.0/8"), Err(Unfit::WrongSource));
        assert!(matches!(option("source-address", ""), Err(Unfit::CriticalOption(_))));
        assert_eq!(option("force-command", "haul-session"), Ok(Grant::SessionsOnly));
        assert!(matches!(option("force-command", "/bin/date"), Err(Unfit::CriticalOption(_))));
        assert!(matches!(option("verify-required", ""), Err(Unfit::CriticalOption(_))));
        assert!(matches!(option("new@example.org", "x"), Err(Unfit::CriticalOption(_))));
    }

    #[test]
    fn a_changed_certificate_is_forged() {
        let authority = key();
        let line = format!("cert-authority {}", authority.public_key().to_openssh().unwrap());
        let good = certificate(&authority, for_alice);
        let bytes = good.to_bytes().unwrap();
        let at = bytes.windows(5).position(|window| window == b"alice").unwrap();
        let mut changed = bytes;
        changed[at] = b'A';
        let changed = Certificate::from_bytes(&changed).unwrap();
        assert_eq!(judged(&line, &changed, NOW), Err(Unfit::Forged));
    }
}
