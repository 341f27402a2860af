//! The token of an application: opaque to the protocol, carried from the client to what the server asks about transfers.

use serde::{Deserialize, Serialize};

/// Longest token, bytes. Aspera's have some hundred, signed ones a few thousand.
const MAX_BYTES: usize = 64 << 10;

/// A token; never shown, wiped when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(try_from = "String", into = "String")]
pub struct Token(String);

impl Token {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.len() > MAX_BYTES {
            return Err(format!("a token of {} bytes, at most {MAX_BYTES} are carried", text.len()));
        }
        Ok(Self(text))
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_travels_as_text_is_never_shown_and_has_a_limit() {
        let token = Token::try_from("ATM2_abc".to_owned()).unwrap();
        let text = serde_json::to_string(&token).unwrap();
        assert_eq!(text, r#""ATM2_abc""#);
        assert_eq!(serde_json::from_str::<Token>(&text).unwrap(), token);
        assert!(!format!("{token:?}").contains("ATM2"));
        assert!(Token::try_from("x".repeat(MAX_BYTES + 1)).is_err());
    }
}
