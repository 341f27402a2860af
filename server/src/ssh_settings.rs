//! The settings of the SSH library: algorithms, limits, timers. No decision about a peer is made here.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKey};
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use crate::ssh::CHANNEL_QUEUE;

/// The settings of the SSH library. Each differs from its defaults for a reason.
#[must_use]
pub(crate) fn config(
    host_key: PrivateKey,
    host_certificate: Option<Certificate>,
    passwords: bool,
) -> russh::server::Config {
    russh::server::Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-hauld_", env!("CARGO_PKG_VERSION")))),
        methods: methods(passwords),
        auth_rejection_time: Duration::from_secs(1),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        certificates: host_certificate.into_iter().collect(),
        // The largest volume the library takes before new keys; nonces are safe far beyond.
        limits: Limits::new(1 << 30, 1 << 30, Duration::from_secs(3600)),
        window_size: 2 << 20,
        maximum_packet_size: 65_535,
        channel_buffer_size: CHANNEL_QUEUE,
        preferred: preferred(),
        max_auth_attempts: 6,
        // A control channel may be silent for hours while UDP flows: keep-alives hold it, and find a dead peer.
        inactivity_timeout: Some(Duration::from_secs(60)),
        keepalive_interval: Some(Duration::from_secs(15)),
        keepalive_max: 3,
        nodelay: true,
        ..russh::server::Config::default()
    }
}

/// The methods of login that are advertised; each callback of the handler refuses for itself.
pub(crate) fn methods(passwords: bool) -> MethodSet {
    let mut methods = MethodSet::from([MethodKind::PublicKey].as_slice());
    if passwords {
        methods.push(MethodKind::Password);
    }
    methods
}

/// No SHA-1, no compression, hardware ciphers first.
fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::DH_G16_SHA512,
        kex::DH_G18_SHA512,
        kex::DH_G14_SHA256,
        // Without these markers the library silently leaves out strict key exchange (CVE-2023-48795) and the list of
        // signature algorithms.
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    // Also what `server-sig-algs` tells the client.
    const KEYS: &[Algorithm] = &[
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ];
    const CIPHERS: &[cipher::Name] =
        &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(KEYS),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_key_exchange_is_kept_and_nothing_weak_is_offered() {
        let preferred = preferred();
        for marker in [
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
            kex::EXTENSION_SUPPORT_AS_SERVER,
        ] {
            assert!(preferred.kex.contains(&marker), "{marker:?}");
        }
        let names: Vec<&str> = preferred
            .kex
            .iter()
            .map(AsRef::as_ref)
            .chain(preferred.cipher.iter().map(AsRef::as_ref))
            .chain(preferred.mac.iter().map(AsRef::as_ref))
            .collect();
        assert!(
            !names.iter().any(|name| name.contains("sha1") || name.contains("cbc") || name.contains("none")),
            "{names:?}"
        );
        assert!(!preferred.key.contains(&Algorithm::Rsa { hash: None }));
        assert_eq!(preferred.compression.as_ref(), [compression::NONE]);
        assert_eq!(preferred.cipher.first(), Some(&cipher::AES_256_GCM));
    }
}
