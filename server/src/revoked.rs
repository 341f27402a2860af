//! The list of keys and certificates that open nothing, whatever else says that they do. One entry a line: a public
//! key, `SHA256:` with a fingerprint, `serial: N` or `serial: N-M`, or `id: NAME`, the last two for certificates. It is
//! the text that `ssh-keygen -k` reads. A line that is not understood makes the whole list unusable: what it was to keep
//! out would come in.

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};

use crate::certificate::fingerprint;

/// How OpenSSH's binary lists begin.
const BINARY: &[u8] = b"SSHKRL\n";

/// What is revoked.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    fingerprints: Vec<String>,
    serials: Vec<(u64, u64)>,
    ids: Vec<String>,
}

impl Revoked {
    /// Reads a list's content; what is wrong comes back as a phrase with its line.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, String> {
        if content.starts_with(BINARY) {
            return Err("it is a binary list; write the text that ssh-keygen -k is made from".to_owned());
        }
        let mut revoked = Self::default();
        for (at, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let line = std::str::from_utf8(line).map_err(|_| format!("line {} is no text", at + 1))?;
            let line = line.trim_matches([' ', '\t', '\r']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            revoked.take(line).map_err(|reason| format!("line {}: {reason}", at + 1))?;
        }
        Ok(revoked)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let value = |name: &str| line.strip_prefix(name).map(str::trim);
        if let Some(range) = value("serial:") {
            self.serials.push(serials(range)?);
        } else if let Some(id) = value("id:") {
            self.ids.push(id.to_owned());
        } else if let Some(hash) = value("hash:").or_else(|| line.starts_with("SHA256:").then_some(line)) {
            let digits = hash.strip_prefix("SHA256:").filter(|digits| digits.len() == 43);
            self.fingerprints.push(digits.map(|_| hash.to_owned()).ok_or("no SHA256 fingerprint")?);
        } else {
            let text = value("key:").unwrap_or(line);
            let key = PublicKey::from_openssh(text).map_err(|error| format!("no key: {error}"))?;
            self.fingerprints.push(fingerprint(key.key_data()));
        }
        Ok(())
    }

    /// Whether a key is on the list.
    pub(crate) fn has_key(&self, key: &KeyData) -> bool {
        !self.fingerprints.is_empty() && self.fingerprints.contains(&fingerprint(key))
    }

    /// Whether a certificate, its key or its authority is on the list.
    pub(crate) fn has_certificate(&self, certificate: &Certificate) -> bool {
        let serial = certificate.serial();
        // Zero means that the authority gives no numbers.
        let numbered =
            serial != 0 && self.serials.iter().any(|(first, last)| (*first..=*last).contains(&serial));
        numbered
            || self.ids.iter().any(|id| id == certificate.key_id())
            || self.has_key(certificate.public_key())
            || self.has_key(certificate.signature_key())
    }
}

fn serials(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|number| *number > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("`{}` is no serial number or range", crate::logging::shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::certificate::Builder;
    use russh::keys::{Algorithm, PrivateKey};

    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
    }

    #[test]
    fn keys_serials_and_ids_are_revoked_as_listed() {
        let (authority, subject) = (key(), key());
        let mut builder =
            Builder::new_with_random_nonce(&mut safe_rng(), subject.public_key().clone(), 1, 2).unwrap();
        builder.serial(7).unwrap().key_id("laptop").unwrap().valid_principal("a").unwrap();
        let certificate = builder.sign(&authority).unwrap();
        let text = |key: &PrivateKey| key.public_key().to_openssh().unwrap();
        let print = |key: &PrivateKey| fingerprint(key.public_key().key_data());
        for (n, (list, revoked)) in [
            (String::new(), false),
            ("# nothing\n\n".to_owned(), false),
            (text(&subject), true),
            (format!("key: {}", text(&subject)), true),
            (print(&subject), true),
            (format!("hash: {}", print(&subject)), true),
            (text(&authority), true),
            (text(&key()), false),
            ("serial: 7".to_owned(), true),
            ("serial:1-7\r".to_owned(), true),
            ("serial: 8-9".to_owned(), false),
            ("id: laptop".to_owned(), true),
            ("id: lap".to_owned(), false),
        ]
        .into_iter()
        .enumerate()
        {
            let list = Revoked::parse(list.as_bytes()).unwrap_or_else(|error| panic!("row {n}: {error}"));
            assert_eq!(list.has_certificate(&certificate), revoked, "row {n}");
        }
        assert!(Revoked::parse(text(&subject).as_bytes()).unwrap().has_key(subject.public_key().key_data()));
    }

    #[test]
    fn a_list_that_is_not_understood_is_no_list() {
        for (n, list) in
            [&b"SSHKRL\n\0\0\0"[..], b"serial: 0", b"serial: 9-1", b"garbage", b"SHA256:short", b"\xff"]
                .into_iter()
                .enumerate()
        {
            assert!(Revoked::parse(list).is_err(), "row {n}");
        }
    }
}
