//! Placement in a header field whose value is a template.

use std::fmt;
use std::str::FromStr;

use http::{HeaderName, header};
use serde::{Deserialize, Serialize, Serializer};

use super::error::PlacementError;
use super::field::is_reserved;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption};
use super::template::Template;
use super::wire_form::WireForm;
use crate::value::secret_value::SecretValue;

const BEARER: &str = "bearer";
const OPTIONS: &[PlacementOption] = &[
    PlacementOption::new(
        "header",
        "TEMPLATE",
        "Place the credential in a header: 'Name: text with {secret}'",
    ),
    PlacementOption {
        word: BEARER,
        value_name: None,
        help: "Place the credential as 'Authorization: Bearer ...'",
        edit_help: None,
    },
];

/// A header field whose value is a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Header {
    /// The field name, lower case.
    #[serde(serialize_with = "write_name")]
    pub name: HeaderName,
    /// The field value.
    pub template: Template,
}

impl Header {
    /// Returns `Authorization: Bearer {secret}` (RFC 6750 section 2.1).
    pub fn bearer() -> Header {
        Header { name: header::AUTHORIZATION, template: Template::ending("Bearer ") }
    }

    fn new(name: HeaderName, template: Template) -> Result<Header, PlacementError> {
        if is_reserved(&name) {
            return Err(PlacementError::ReservedHeader(name.to_string()));
        }
        Ok(Header { name, template })
    }
}

impl PlacementKind for Header {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    /// Parses `Name: text with {secret}`.
    fn parse(word: &str, text: &str) -> Result<Header, PlacementError> {
        if word == BEARER {
            return Ok(Header::bearer());
        }
        let bad = || PlacementError::Header(text.chars().flat_map(char::escape_default).collect());
        let (name, template) = text.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::from_str(name.trim()).map_err(|_| bad())?;
        Header::new(name, Template::new(template.trim())?)
    }

    fn target(&self) -> InjectionTarget {
        InjectionTarget::Header(self.name.clone())
    }

    /// The text around the value in a template hides nothing of it.
    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        WireForm::plain(value)
    }

    fn takes_issued_token(&self) -> bool {
        true
    }

    fn is_token(&self) -> bool {
        true
    }

    fn added_texts(&self) -> Vec<String> {
        let (before, _) = self.template.parts();
        vec![before.trim().to_owned(), format!("{}:", self.name)]
    }

    /// The whole header value is the credential.
    fn includes_scheme(&self) -> bool {
        self.template.parts().0.is_empty() && self.name == header::AUTHORIZATION
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "header {}: {}", self.name, self.template)
    }
}

/// The serialized form.
#[derive(Deserialize)]
struct Unchecked {
    name: String,
    template: Template,
}

impl TryFrom<Unchecked> for Header {
    type Error = PlacementError;

    fn try_from(Unchecked { name, template }: Unchecked) -> Result<Header, PlacementError> {
        let bad = |_| PlacementError::Header(name.chars().flat_map(char::escape_default).collect());
        Header::new(HeaderName::from_bytes(name.as_bytes()).map_err(bad)?, template)
    }
}

fn write_name<S: Serializer>(name: &HeaderName, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(name.as_str())
}
