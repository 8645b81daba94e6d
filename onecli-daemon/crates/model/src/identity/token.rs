//! Tokens and placeholders, which agents hold.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::random::{Random, RandomError};

/// A bearer token of an agent: 256 random bits in base64url after a prefix that secret scanners can recognize.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// The text is not a token of OneCLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a OneCLI token")]
pub struct TokenError;

const AGENT_PREFIX: &str = "onecli_at_";
const SESSION_PREFIX: &str = "onecli_st_";
/// The length of 32 bytes in base64url without padding.
const TOKEN_BODY: usize = 43;

impl Token {
    /// The possible prefixes of a token.
    pub const PREFIXES: [&'static str; 2] = [AGENT_PREFIX, SESSION_PREFIX];

    /// Generates an agent token, which is shown once.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn generate_agent(random: &dyn Random) -> Result<Token, RandomError> {
        Token::generate(random, AGENT_PREFIX)
    }

    /// Generates a session token, for one `run` or `agent env`.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn generate_session(random: &dyn Random) -> Result<Token, RandomError> {
        Token::generate(random, SESSION_PREFIX)
    }

    fn generate(random: &dyn Random, prefix: &str) -> Result<Token, RandomError> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        random.fill(bytes.as_mut())?;
        let mut text = Zeroizing::new(prefix.to_owned());
        data_encoding::BASE64URL_NOPAD.encode_append(bytes.as_ref(), &mut text);
        Ok(Token(text))
    }

    /// Parses a presented token. Only its form is checked; compare it by [`TokenHash`].
    ///
    /// # Errors
    /// [`TokenError`] if the prefix, length or alphabet is not that of a token.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let body = text
            .strip_prefix(AGENT_PREFIX)
            .or_else(|| text.strip_prefix(SESSION_PREFIX))
            .ok_or(TokenError)?;
        let ok = body.len() == TOKEN_BODY
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if ok { Ok(Token(Zeroizing::new(text.to_owned()))) } else { Err(TokenError) }
    }

    /// Returns the token itself. Every call needs a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The HMAC-SHA-256 of a token under a subkey of the vault: the only stored form of a token.
#[derive(Clone, Copy)]
pub struct TokenHash(pub [u8; 32]);

impl PartialEq for TokenHash {
    fn eq(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl std::hash::Hash for TokenHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// The text that an agent holds instead of a credential: `onecli_ph_` and 32 characters of base32 (160 bits), which
/// the vault derives from agent, secret and generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placeholder(String);

impl Placeholder {
    /// The prefix of every placeholder.
    pub const PREFIX: &'static str = "onecli_ph_";
    /// The length of a whole placeholder in bytes.
    pub const LEN: usize = Self::PREFIX.len() + 32;

    /// Encodes derived bits as a placeholder.
    pub fn from_bits(bits: [u8; 20]) -> Placeholder {
        let body = data_encoding::BASE32_NOPAD.encode(&bits).to_ascii_lowercase();
        Placeholder(format!("{}{body}", Self::PREFIX))
    }

    /// Returns the placeholder as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns every text in `bytes` that has the form of a placeholder.
    pub fn find_all(bytes: &[u8]) -> impl Iterator<Item = Placeholder> {
        memchr::memmem::find_iter(bytes, Self::PREFIX).filter_map(|at| {
            let text = bytes.get(at..at + Self::LEN)?;
            let body_ok = text[Self::PREFIX.len()..].iter().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
            if body_ok {
                std::str::from_utf8(text).ok().map(|text| Placeholder(text.to_owned()))
            } else {
                None
            }
        })
    }
}

/// Allows a lookup in a map by borrowed text.
impl std::borrow::Borrow<str> for Placeholder {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RandomError;

    #[derive(Debug)]
    struct Fixed;

    impl Random for Fixed {
        fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
            out.fill(0xa7);
            Ok(())
        }
    }

    #[test]
    fn tokens_parse_back_and_are_not_printed() {
        let token = Token::generate_agent(&Fixed).unwrap();
        assert_eq!(Token::parse(token.expose()).unwrap().expose(), token.expose());
        assert!(!format!("{token:?}").contains("onecli_at_"));
        for bad in ["", "onecli_at_", "onecli_at_short", &format!("{}!", &token.expose()[..52]), "x"] {
            assert!(Token::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn placeholders_are_found_wherever_they_stand() {
        let one = Placeholder::from_bits([7; 20]);
        let two = Placeholder::from_bits([9; 20]);
        assert_eq!(one.as_str().len(), Placeholder::LEN);
        let text = format!("Bearer {one}, {two}; onecli_ph_short");
        assert_eq!(Placeholder::find_all(text.as_bytes()).collect::<Vec<_>>(), [one, two]);
    }
}
