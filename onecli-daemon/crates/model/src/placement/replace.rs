//! Replacement of the placeholder, which the agent sends at a declared place.

use std::fmt;

use http::header;
use serde::{Deserialize, Serialize};

use super::error::PlacementError;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption, RequestPart};
use super::location::PlaceholderLocation;
use super::wire_form::WireForm;
use crate::request::refusal::Challenge;
use crate::value::secret_value::SecretValue;

const OPTIONS: &[PlacementOption] = &[PlacementOption::new(
    "replace",
    "PLACE",
    "Place the credential where the agent sends its placeholder: header:NAME (anywhere in the value), basic (user name \
     or password), query:NAME, or `json:/POINTER` (a string in a JSON body of at most 1 MiB)",
)
.edited("Place the credential where the agent sends its placeholder; see 'onecli secret add --help'")];

/// Replacement of the placeholder, which the agent sends at that place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replace {
    /// The place.
    pub at: PlaceholderLocation,
}

impl PlacementKind for Replace {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    fn parse(_word: &str, at: &str) -> Result<Replace, PlacementError> {
        Ok(Replace { at: at.parse()? })
    }

    fn target(&self) -> InjectionTarget {
        match &self.at {
            PlaceholderLocation::Header(name) => InjectionTarget::Header(name.clone()),
            PlaceholderLocation::Basic => InjectionTarget::Header(header::AUTHORIZATION),
            PlaceholderLocation::Query(name) => InjectionTarget::Query(name.clone()),
            PlaceholderLocation::Json(pointer) => {
                InjectionTarget::Part { kind: "json", name: pointer.to_string() }
            }
        }
    }

    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        match &self.at {
            PlaceholderLocation::Header(_) => WireForm::plain(value),
            // The agent can choose the user name if a placeholder is replaced, so every offset counts.
            PlaceholderLocation::Basic => WireForm::of_basic(value),
            PlaceholderLocation::Query(_) => WireForm::of_url(value),
            PlaceholderLocation::Json(_) => WireForm::of_json(value),
        }
    }

    fn placeholder_part(&self) -> Option<RequestPart> {
        let is_in_body = matches!(self.at, PlaceholderLocation::Json(_));
        Some(if is_in_body { RequestPart::Body } else { RequestPart::Head })
    }

    fn place(&self) -> String {
        self.at.to_string()
    }

    fn challenge(&self) -> Challenge {
        if self.at == PlaceholderLocation::Basic { Challenge::Basic } else { Challenge::Bearer }
    }
}

impl fmt::Display for Replace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replace {}", self.at)
    }
}
