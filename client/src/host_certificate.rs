//! Judges a host's certificate (PROTOCOL.certkeys): a certificate authority of `known_hosts` vouches for the server's
//! key. Pure; who is an authority, and what is revoked, is on record (`known_hosts`).

use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate};

use crate::sanitize;
use crate::ssh_config_lines::wildcard;

/// Whether a certificate whose authority is trusted vouches for this host now; else why not.
pub(crate) fn judge(certificate: &Certificate, host: &str, now: SystemTime) -> Result<(), String> {
    if certificate.cert_type() != CertType::Host {
        return Err("it is a user's certificate".to_owned());
    }
    match certificate.signature().algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { hash: Some(_) } => {}
        other => return Err(format!("its authority signed it with {other}")),
    }
    certificate.verify_signature().map_err(|_| "its signature is wrong".to_owned())?;
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if now < certificate.valid_after() {
        return Err("it is not valid yet".to_owned());
    }
    if now >= certificate.valid_before() {
        return Err("it has expired".to_owned());
    }
    // None at all would vouch for every host.
    let host = host.to_ascii_lowercase();
    let named = certificate.valid_principals();
    let fits = |name: &String| wildcard(name.to_ascii_lowercase().as_bytes(), host.as_bytes());
    if !named.iter().any(fits) {
        let names: Vec<String> = named.iter().take(4).map(|name| sanitize::text(name)).collect();
        return Err(format!(
            "it is for {}",
            if names.is_empty() { "no host".to_owned() } else { names.join(", ") }
        ));
    }
    match certificate.critical_options().keys().next() {
        Some(option) => Err(format!("its critical option {} is unknown", sanitize::text(option))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use russh::keys::PrivateKey;
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::certificate::Builder;

    use super::*;

    const NOW: u64 = 2_000_000_000;

    fn certificate(kind: CertType, change: impl FnOnce(&mut Builder)) -> Certificate {
        let key = || PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap();
        let public = key().public_key().clone();
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), public, NOW - 60, NOW + 60).unwrap();
        builder.cert_type(kind).unwrap().key_id("host").unwrap();
        change(&mut builder);
        builder.sign(&key()).unwrap()
    }

    #[test]
    fn a_certificate_vouches_for_its_hosts_in_its_time_only() {
        let named = |name: &'static str| {
            certificate(CertType::Host, |builder| {
                builder.valid_principal(name).unwrap();
            })
        };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        for (n, (name, host, now, word)) in [
            ("h.org", "h.org", NOW, None),
            ("h.org", "H.ORG", NOW, None),
            ("*.org", "h.org", NOW, None),
            ("h.org", "k.org", NOW, Some("it is for h.org")),
            ("h.org", "h.org", NOW + 60, Some("expired")),
            ("h.org", "h.org", NOW - 61, Some("not valid yet")),
        ]
        .into_iter()
        .enumerate()
        {
            let verdict = judge(&named(name), host, at(now));
            match word {
                None => assert_eq!(verdict, Ok(()), "row {n}"),
                Some(word) => assert!(verdict.unwrap_err().contains(word), "row {n}"),
            }
        }
        let all = certificate(CertType::Host, |builder| {
            builder.all_principals_valid().unwrap();
        });
        assert!(judge(&all, "h.org", at(NOW)).unwrap_err().contains("no host"));
        let user = certificate(CertType::User, |builder| {
            builder.valid_principal("h.org").unwrap();
        });
        assert!(judge(&user, "h.org", at(NOW)).is_err());
        let demanding = certificate(CertType::Host, |builder| {
            builder.valid_principal("h.org").unwrap().critical_option("new", "x").unwrap();
        });
        assert!(judge(&demanding, "h.org", at(NOW)).unwrap_err().contains("critical option new"));
    }
}
