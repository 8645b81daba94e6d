//! The form that a service documents for its credentials.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The form of a service's credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueForm {
    /// Possible prefixes; empty if they are not documented.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub begins: Vec<String>,
    /// The minimum number of bytes; 0 if it is not documented.
    #[serde(skip_serializing_if = "is_zero")]
    pub least: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl ValueForm {
    /// Returns whether no form is documented.
    pub fn is_empty(&self) -> bool {
        *self == ValueForm::default()
    }
}

impl fmt::Display for ValueForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = (!self.begins.is_empty()).then(|| format!("begins with {}", self.begins.join(", ")));
        let least = (self.least > 0).then(|| format!("{} characters or more", self.least));
        f.write_str(&begins.into_iter().chain(least).collect::<Vec<_>>().join("; "))
    }
}
