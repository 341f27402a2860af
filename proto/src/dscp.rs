//! The differentiated services code point of datagrams (RFC 2474): a wish to routers how to treat them. Here: its names
//! and numbers, because the server's settings, the client's options and the control messages share them. Not here:
//! putting it on packets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A code point, 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Dscp(u8);

/// Why a text or number is no code point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no DSCP; write a number from 0 to 63 or a name: CS0 to CS7, AF11 to AF43, EF, VA, LE")]
pub struct DscpError {
    text: String,
}

/// Names that follow no rule: RFC 3246, RFC 5865, RFC 8622.
const NAMED: [(&str, u8); 3] = [("EF", 46), ("VA", 44), ("LE", 1)];

impl Dscp {
    /// What packets carry that nobody marked (best effort, CS0).
    pub const BEST_EFFORT: Self = Self(0);

    /// The field of IP that the code point stands in: the upper six bits of eight, ECN (RFC 3168) left zero.
    #[must_use]
    pub const fn traffic_class(self) -> u8 {
        self.0 << 2
    }

    /// Whether anybody may choose it: CS6 and above are for the network's own traffic (RFC 4594 section 3).
    #[must_use]
    pub const fn is_for_users(self) -> bool {
        self.0 < 48
    }

    /// Reads a number or a name in either case.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, DscpError> {
        let name = text.trim().to_ascii_uppercase();
        let number = name.parse::<u8>().ok().or_else(|| named(&name));
        number.filter(|&number| number < 64).map(Self).ok_or_else(|| DscpError { text: text.to_owned() })
    }
}

/// `CSx` is 8x (RFC 2474 section 4.2.2), `AFxy` is 8x + 2y (RFC 2597 section 6).
fn named(name: &str) -> Option<u8> {
    if let Some((_, number)) = NAMED.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    match name.as_bytes() {
        [b'C', b'S', class @ b'0'..=b'7'] => Some((class - b'0') * 8),
        [b'A', b'F', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => Some((class - b'0') * 8 + (drop - b'0') * 2),
        _ => None,
    }
}

/// The name, or the number where there is none.
impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, low) = (self.0 / 8, self.0 % 8);
        if let Some((name, _)) = NAMED.iter().find(|(_, number)| *number == self.0) {
            return f.write_str(name);
        }
        match (class, low) {
            (_, 0) => write!(f, "CS{class}"),
            (1..=4, 2 | 4 | 6) => write!(f, "AF{class}{}", low / 2),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<u8> for Dscp {
    type Error = DscpError;

    fn try_from(number: u8) -> Result<Self, DscpError> {
        if number < 64 { Ok(Self(number)) } else { Err(DscpError { text: number.to_string() }) }
    }
}

impl From<Dscp> for u8 {
    fn from(dscp: Dscp) -> Self {
        dscp.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_registry() {
        for (text, number, shown) in [
            ("EF", 46, "EF"),
            ("ef", 46, "EF"),
            ("cs1", 8, "CS1"),
            ("CS0", 0, "CS0"),
            ("0", 0, "CS0"),
            ("AF41", 34, "AF41"),
            ("af11", 10, "AF11"),
            ("AF43", 38, "AF43"),
            ("VA", 44, "VA"),
            (" LE ", 1, "LE"),
            ("63", 63, "63"),
            ("3", 3, "3"),
        ] {
            let dscp = Dscp::parse(text).unwrap();
            assert_eq!((u8::from(dscp), dscp.to_string().as_str()), (number, shown), "{text}");
            assert_eq!(Dscp::parse(&dscp.to_string()), Ok(dscp), "{text}");
            assert_eq!(dscp.traffic_class(), number * 4);
        }
    }

    #[test]
    fn what_is_no_code_point_is_refused() {
        for text in ["", "64", "-1", "AF14", "AF51", "CS8", "AF", "fast", "0x2e", "300"] {
            assert!(Dscp::parse(text).is_err(), "{text}");
        }
        assert!(serde_json::from_str::<Dscp>("64").is_err());
        assert_eq!(serde_json::from_str::<Dscp>("46").unwrap().to_string(), "EF");
    }
}
