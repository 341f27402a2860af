//! The `from=` list of an `authorized_keys` line: networks and wildcards, some negated, matched against the peer's
//! address. Names are never looked up: whoever controls a name server would decide who logs in.

use std::net::IpAddr;

/// A list of patterns as in `from="192.0.2.0/24,!192.0.2.66,2001:db8::*"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceList {
    patterns: Vec<(bool, Pattern)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Network { address: IpAddr, prefix: u8 },
    Wildcard(String),
}

impl SourceList {
    /// Reads the list; what is wrong comes back as a phrase.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for item in text.split(',').map(str::trim) {
            let (negated, item) = item.strip_prefix('!').map_or((false, item), |rest| (true, rest));
            if item.is_empty() {
                return Err("an empty pattern in from=".to_owned());
            }
            patterns.push((negated, Pattern::parse(item)?));
        }
        Ok(Self { patterns })
    }

    /// Whether the address is meant: some pattern matches and no negated one does.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut meant = false;
        for (negated, pattern) in &self.patterns {
            if pattern.matches(address) {
                if *negated {
                    return false;
                }
                meant = true;
            }
        }
        meant
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((address, prefix)) = text.split_once('/') else {
            return Ok(Self::Wildcard(text.to_ascii_lowercase()));
        };
        let wrong = || format!("`{text}` in from= is no network");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let network = Self::Network { address, prefix };
        // Bits beyond the prefix are a slip of the pen: which of the two is meant?
        if prefix > width(address) || masked(address, prefix) != bits(address) {
            return Err(wrong());
        }
        Ok(network)
    }

    fn matches(&self, peer: IpAddr) -> bool {
        match self {
            Self::Network { address, prefix } => {
                address.is_ipv4() == peer.is_ipv4() && masked(peer, *prefix) == bits(*address)
            }
            Self::Wildcard(pattern) => wildcard(pattern.as_bytes(), peer.to_string().as_bytes()),
        }
    }
}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, prefix: u8) -> u128 {
    let drop = u32::from(width(address).saturating_sub(prefix));
    let all = bits(address);
    all.checked_shr(drop).and_then(|kept| kept.checked_shl(drop)).unwrap_or(0)
}

/// `*` for any text and `?` for one character. Linear in practice: on a mismatch only the last star moves on.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_match_as_openssh_matches_them() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.9", true),
            ("192.0.2.0/24", "192.0.3.9", false),
            ("192.0.2.0/24,!192.0.2.9", "192.0.2.9", false),
            ("!192.0.2.9,192.0.2.0/24", "192.0.2.8", true),
            ("!192.0.2.9", "192.0.2.8", false),
            ("192.0.2.*", "192.0.2.77", true),
            ("192.0.2.?", "192.0.2.77", false),
            ("*", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:DB8::*", "2001:db8::1", true),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "192.0.2.1", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("*.example.com", "192.0.2.1", false),
        ];
        for (n, (list, peer, expected)) in cases.into_iter().enumerate() {
            let peer = peer.parse().unwrap();
            assert_eq!(SourceList::parse(list).unwrap().contains(peer), expected, "row {n}: {list} {peer}");
        }
    }

    #[test]
    fn wrong_networks_are_refused() {
        for text in ["192.0.2.1/24", "192.0.2.0/33", "x/8", "192.0.2.0/", "", "a,,b", "!"] {
            assert!(SourceList::parse(text).is_err(), "{text}");
        }
    }
}
