//! Paths inside JSON. Names on disk are bytes, JSON is Unicode, so bytes that are no UTF-8 travel as `%XX`.

use serde::{Deserialize, Serialize};

/// A path as bytes. As text, `%` and every byte that is not part of valid UTF-8 is written `%XX`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathText(Vec<u8>);

impl PathText {
    /// Wraps the bytes of a path.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<PathText> for String {
    fn from(path: PathText) -> Self {
        let mut text = Self::with_capacity(path.0.len());
        for chunk in path.0.utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            for byte in chunk.invalid() {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        text
    }
}

impl TryFrom<String> for PathText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            if byte == b'%' {
                let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                bytes.push(value.ok_or("a path has a `%` that two hexadecimal digits do not follow")?);
                rest = tail.get(2..).unwrap_or_default();
            } else {
                bytes.push(byte);
                rest = tail;
            }
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_string_survives_the_text() {
        for bytes in [&b"a/b c"[..], b"100%", "naïve/文".as_bytes(), b"\xff\xfe/%41", b"", b"new\nline"] {
            let text = String::from(PathText::new(bytes));
            assert_eq!(PathText::try_from(text.clone()).unwrap().as_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["%", "%4", "%zz", "a%", "%+f"] {
            assert!(PathText::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
