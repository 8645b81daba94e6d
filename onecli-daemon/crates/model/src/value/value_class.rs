//! The public properties of a secret value: its alphabet and its length, each in coarse classes.
//!
//! The scrubber decides from these classes alone how many bytes of a response wait for later bytes. If the value
//! itself decided, an agent that chooses the text of a response could infer the value from frames and delays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::secret_value::SecretValue;

/// The alphabet and the length class of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ValueClass {
    /// The characters that it may have.
    pub alphabet: Alphabet,
    /// The upper bound of its length.
    pub length: LengthClass,
}

/// The characters that a value may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alphabet {
    /// Letters, digits and `+ / = _ . ~ -`: those of bearer tokens (RFC 6750 section 2.1), of base64 and of hex.
    Token,
    /// Any printable character.
    Text,
}

/// An upper bound on a value's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LengthClass {
    /// 128 bytes.
    Short,
    /// 1 KiB.
    Medium,
    /// 16 KiB.
    Long,
}

/// The text is not a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a class of values: write token or text, '/', and 128, 1024 or 16384")]
pub struct ValueClassError;

impl ValueClass {
    /// The class of tokens that the daemon requests, of values from a source outside the store, and of session
    /// tokens. It is fixed, because such a value changes while its secret stays the same.
    pub const ISSUED: ValueClass = ValueClass { alphabet: Alphabet::Token, length: LengthClass::Long };

    /// Returns the smallest class that contains `value`.
    pub fn of(value: &SecretValue) -> ValueClass {
        let bytes = value.expose();
        let is_token = bytes.iter().all(|byte| Alphabet::Token.contains(*byte));
        ValueClass {
            alphabet: if is_token { Alphabet::Token } else { Alphabet::Text },
            length: match bytes.len() {
                ..=128 => LengthClass::Short,
                129..=1024 => LengthClass::Medium,
                _ => LengthClass::Long,
            },
        }
    }

    /// Returns the smallest class that contains the values of both.
    #[must_use]
    pub fn or(self, other: ValueClass) -> ValueClass {
        ValueClass { alphabet: self.alphabet.max(other.alphabet), length: self.length.max(other.length) }
    }
}

impl Alphabet {
    /// Returns whether a value may have this byte.
    pub fn contains(self, byte: u8) -> bool {
        match self {
            Alphabet::Token => {
                byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'.' | b'~' | b'-')
            }
            Alphabet::Text => !byte.is_ascii_control(),
        }
    }
}

impl LengthClass {
    /// Returns the bound, in bytes.
    pub fn bytes(self) -> usize {
        match self {
            LengthClass::Short => 128,
            LengthClass::Medium => 1024,
            LengthClass::Long => 16 * 1024,
        }
    }
}

impl fmt::Display for ValueClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alphabet = match self.alphabet {
            Alphabet::Token => "token",
            Alphabet::Text => "text",
        };
        write!(f, "{alphabet}/{}", self.length.bytes())
    }
}

impl FromStr for ValueClass {
    type Err = ValueClassError;

    fn from_str(text: &str) -> Result<ValueClass, ValueClassError> {
        let (alphabet, length) = text.split_once('/').ok_or(ValueClassError)?;
        let alphabet = match alphabet {
            "token" => Alphabet::Token,
            "text" => Alphabet::Text,
            _ => return Err(ValueClassError),
        };
        let length = match length {
            "128" => LengthClass::Short,
            "1024" => LengthClass::Medium,
            "16384" => LengthClass::Long,
            _ => return Err(ValueClassError),
        };
        Ok(ValueClass { alphabet, length })
    }
}

impl TryFrom<String> for ValueClass {
    type Error = ValueClassError;

    fn try_from(text: String) -> Result<ValueClass, ValueClassError> {
        text.parse()
    }
}

impl From<ValueClass> for String {
    fn from(class: ValueClass) -> String {
        class.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_is_the_smallest_that_contains_the_value() {
        let check = |value: Vec<u8>, expected: &str| {
            let class = ValueClass::of(&SecretValue::new(value).unwrap());
            assert_eq!(class.to_string(), expected);
            assert_eq!(expected.parse(), Ok(class));
        };
        check(b"sk-proj_A9+/=.~".to_vec(), "token/128");
        check(b"correct horse".to_vec(), "text/128");
        check("caf\u{e9}-caf\u{e9}".into(), "text/128");
        check(vec![b'a'; 128], "token/128");
        check(vec![b'a'; 129], "token/1024");
        check(vec![b'a'; 1024], "token/1024");
        check(vec![b'!'; 1025], "text/16384");
        for bad in ["", "token", "token/12", "word/128", "token/128/"] {
            assert_eq!(bad.parse::<ValueClass>(), Err(ValueClassError), "{bad}");
        }
    }

    #[test]
    fn joined_class_contains_both() {
        let join = |a: &str, b: &str| a.parse::<ValueClass>().unwrap().or(b.parse().unwrap()).to_string();
        assert_eq!(join("token/1024", "text/128"), "text/1024");
        assert_eq!(join("token/128", "token/128"), "token/128");
    }
}
