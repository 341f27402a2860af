//! Percent-encoding of paths and queries (RFC 3986, and the form encoding of HTML). Names are bytes and stay bytes.

use std::fmt::Write as _;

/// Longest query that is read, in bytes.
const MAX_QUERY_BYTES: usize = 16 << 10;

/// Encodes a path; slashes stay.
#[must_use]
pub fn encode_path(path: &[u8]) -> String {
    encode(path, true)
}

/// Encodes one name, or a value of a query.
#[must_use]
pub fn encode_name(name: &[u8]) -> String {
    encode(name, false)
}

fn encode(bytes: &[u8], slashes: bool) -> String {
    let mut text = String::with_capacity(bytes.len() + bytes.len() / 4);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (slashes && byte == b'/') {
            text.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// Decodes; what is no escape stands for itself.
#[must_use]
pub fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| first == b'%');
        match digits.and_then(|digits| Some((nibble(*digits.first()?)? << 4) | nibble(*digits.get(1)?)?)) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Names and values of a query or a form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Reads the text behind the question mark. One that is too long is as good as none.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.len() > MAX_QUERY_BYTES {
            return Self::default();
        }
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// The first value of a name.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// The same, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.bytes(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_and_only_safe_ones_stay_bare() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode_name(&all);
        assert_eq!(decode(&text), all);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)));
        assert_eq!(encode_path("a b/ü".as_bytes()), "a%20b/%C3%BC");
    }

    #[test]
    fn what_is_no_escape_stands_for_itself() {
        for (text, bytes) in
            [("%", &b"%"[..]), ("%4", b"%4"), ("%zz", b"%zz"), ("%2", b"%2"), ("100%25", b"100%")]
        {
            assert_eq!(decode(text), bytes, "{text}");
        }
    }

    #[test]
    fn queries_are_read_as_forms_send_them() {
        let query = Query::parse("q=a+b%2Bc&sort=size&empty=&q=second");
        assert_eq!(query.text("q"), Some("a b+c"));
        assert_eq!(
            (query.text("sort"), query.text("empty"), query.text("no")),
            (Some("size"), Some(""), None)
        );
        assert_eq!(Query::parse(&"a=b&".repeat(10_000)), Query::default());
    }
}
