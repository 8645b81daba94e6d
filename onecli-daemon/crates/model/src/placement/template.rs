//! A text with one place for the value.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::PlacementError;

/// A text that contains `{secret}` exactly once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Splits the text at `{secret}`.
    ///
    /// # Errors
    /// [`PlacementError::Template`].
    pub fn new(text: &str) -> Result<Template, PlacementError> {
        let bad = || PlacementError::Template(text.chars().flat_map(char::escape_default).collect());
        let (before, after) = text.split_once("{secret}").ok_or_else(bad)?;
        if after.contains("{secret}") || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return Err(bad());
        }
        Ok(Template { before: before.to_owned(), after: after.to_owned() })
    }

    /// Returns a template with the value at the end.
    pub(super) fn ending(before: &str) -> Template {
        Template { before: before.to_owned(), after: String::new() }
    }

    /// Returns the text before and after the value.
    pub fn parts(&self) -> (&str, &str) {
        (&self.before, &self.after)
    }
}

impl TryFrom<String> for Template {
    type Error = PlacementError;

    fn try_from(text: String) -> Result<Template, PlacementError> {
        Template::new(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.to_string()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{secret}}{}", self.before, self.after)
    }
}
