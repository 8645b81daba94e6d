//! Placement as the password of Basic authentication.

use std::fmt;

use http::header;
use serde::{Deserialize, Serialize};

use super::error::PlacementError;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption};
use super::wire_form::WireForm;
use crate::request::refusal::Challenge;
use crate::value::secret_value::SecretValue;

const OPTIONS: &[PlacementOption] = &[PlacementOption::new(
    "basic",
    "USER",
    "Place the credential as the password of Basic authentication, for this user name",
)];

/// `Authorization: Basic base64(user:secret)` (RFC 7617).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Basic {
    /// The user name, without `:`.
    pub user: String,
}

impl PlacementKind for Basic {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    fn parse(_word: &str, user: &str) -> Result<Basic, PlacementError> {
        if user.contains(':') || user.chars().any(char::is_control) {
            return Err(PlacementError::BasicUser);
        }
        Ok(Basic { user: user.to_owned() })
    }

    fn target(&self) -> InjectionTarget {
        InjectionTarget::Header(header::AUTHORIZATION)
    }

    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        WireForm::of_basic(value)
    }

    fn challenge(&self) -> Challenge {
        Challenge::Basic
    }
}

impl fmt::Display for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "basic {}", self.user)
    }
}

/// The serialized form.
#[derive(Deserialize)]
struct Unchecked {
    user: String,
}

impl TryFrom<Unchecked> for Basic {
    type Error = PlacementError;

    fn try_from(unchecked: Unchecked) -> Result<Basic, PlacementError> {
        Basic::parse("", &unchecked.user)
    }
}
