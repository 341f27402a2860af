//! The fingerprint that a host key must have (`--check-sshfp`): SHA-1 in hexadecimal digits as ascp takes it, SHA-256
//! in hexadecimal digits, or `SHA256:` as ssh prints it.

use ring::digest;
use russh::keys::{HashAlg, PublicKey};

use crate::error::ClientError;
use crate::sanitize;

/// A fingerprint that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fingerprint {
    /// SHA-1 or SHA-256, told by the length.
    Digest(Vec<u8>),
    /// As ssh prints it.
    Printed(String),
}

impl Fingerprint {
    /// Reads it.
    ///
    /// # Errors
    /// If it has none of the forms.
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        if text.strip_prefix("SHA256:").is_some_and(|digits| digits.len() == 43) {
            return Ok(Self::Printed(text.to_owned()));
        }
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        match bytes {
            Some(bytes) if matches!(digits.len(), 40 | 64) => Ok(Self::Digest(bytes)),
            _ => Err(ClientError::usage(
                format!("--check-sshfp: `{}` is no fingerprint", sanitize::text(text)),
                "give 40 hexadecimal digits (SHA-1), 64 (SHA-256), or what ssh-keygen -l prints: SHA256:...",
            )),
        }
    }

    /// Whether a key has it.
    pub(crate) fn fits(&self, key: &PublicKey) -> bool {
        match self {
            Self::Printed(text) => key.fingerprint(HashAlg::Sha256).to_string() == *text,
            Self::Digest(bytes) => {
                let algorithm = match bytes.len() {
                    // To find a second key with a given SHA-1 is out of reach still.
                    20 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                    _ => &digest::SHA256,
                };
                key.to_bytes().is_ok_and(|blob| digest::digest(algorithm, &blob).as_ref() == bytes.as_slice())
            }
        }
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Printed(text) => f.write_str(text),
            Self::Digest(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test; its fingerprints are those that `ssh-keygen -l -E sha256` and `-E sha1` print.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKXvPqkEhAj48tK9gMKRF896ms1IMf8m89dYdbOwpsie";

    #[test]
    fn all_forms_of_the_right_fingerprint_fit_and_no_other() {
        let key = PublicKey::from_openssh(KEY).unwrap();
        let blob = key.to_bytes().unwrap();
        let hex = |algorithm| {
            digest::digest(algorithm, &blob)
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let (sha1, sha256) = (hex(&digest::SHA1_FOR_LEGACY_USE_ONLY), hex(&digest::SHA256));
        let pairs: Vec<&str> = (0..20).map(|at| &sha1[2 * at..2 * at + 2]).collect();
        for text in [
            sha1.clone(),
            sha1.to_uppercase(),
            pairs.join(":"),
            sha256.clone(),
            key.fingerprint(HashAlg::Sha256).to_string(),
        ] {
            let fingerprint = Fingerprint::parse(&text).unwrap();
            assert!(fingerprint.fits(&key), "{text}");
        }
        for text in ["0".repeat(40), "0".repeat(64), format!("SHA256:{}", "A".repeat(43))] {
            assert!(!Fingerprint::parse(&text).unwrap().fits(&key), "{text}");
        }
        for text in ["", "abc", "SHA256:short", &"g".repeat(40)] {
            assert!(Fingerprint::parse(text).is_err(), "{text}");
        }
    }
}
