//! The appearance of placeholders.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::token::Placeholder;

/// The beginning of a placeholder as agents' programs see it: some check the prefix of a key. The placeholder itself
/// follows, and is found at any position.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shape(String);

/// The text cannot be the beginning of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' cannot begin a placeholder: use at most 32 of A-Z, a-z, 0-9, '-', '_', '.', ':'")]
pub struct ShapeError(String);

impl Shape {
    /// Returns the placeholder in the form that the agent receives.
    pub fn dress(&self, placeholder: &Placeholder) -> String {
        format!("{}{placeholder}", self.0)
    }

    /// Returns the prefix, which may be empty.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Shape, ShapeError> {
        let ok = text.len() <= 32
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
            // The beginning of a placeholder must not occur twice.
            && !text.contains(Placeholder::PREFIX);
        if ok {
            Ok(Shape(text.to_owned()))
        } else {
            Err(ShapeError(text.chars().take(80).flat_map(char::escape_default).collect()))
        }
    }
}

impl TryFrom<String> for Shape {
    type Error = ShapeError;

    fn try_from(text: String) -> Result<Shape, ShapeError> {
        text.parse()
    }
}

impl From<Shape> for String {
    fn from(shape: Shape) -> String {
        shape.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholder_with_a_prefix_is_found() {
        let placeholder = Placeholder::from_bits([7; 20]);
        let dressed = "sk-ant-api03-".parse::<Shape>().unwrap().dress(&placeholder);
        assert_eq!(Placeholder::find_all(dressed.as_bytes()).collect::<Vec<_>>(), [placeholder]);
        assert!("1000000000:".parse::<Shape>().is_ok());
        assert!("onecli_ph_".parse::<Shape>().is_err());
    }
}
