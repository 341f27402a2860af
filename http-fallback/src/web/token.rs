//! Tokens that open something: 256 random bits, given away once and kept only as their SHA-256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Characters of a token.
const LENGTH: usize = 43;

/// A new token.
///
/// # Errors
/// If the system has no random numbers.
pub fn new() -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What is kept of it. Looking this up tells an attacker nothing by its time: nearly equal tokens have unrelated digests.
#[must_use]
pub fn fingerprint(token: &str) -> Option<String> {
    let sane = token.len() == LENGTH && URL_SAFE_NO_PAD.decode(token).is_ok();
    sane.then(|| {
        digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_only_whole_ones_have_a_fingerprint() {
        let (one, two) = (new().unwrap(), new().unwrap());
        assert_ne!(one, two);
        assert_ne!(fingerprint(&one), fingerprint(&two));
        assert_eq!(fingerprint(&one).unwrap().len(), 64);
        for bad in ["", "short", &one[1..], &format!("{one}A"), &one.replace(&one[..1], "/")] {
            assert!(fingerprint(bad).is_none(), "{bad}");
        }
    }
}
