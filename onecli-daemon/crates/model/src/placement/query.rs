//! Placement in a query parameter.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::PlacementError;
use super::field::parameter_name;
use super::kind::{InjectionTarget, PlacementKind, PlacementOption};
use super::wire_form::WireForm;
use crate::value::secret_value::SecretValue;

const OPTIONS: &[PlacementOption] =
    &[PlacementOption::new("query", "NAME", "Place the credential in this query parameter")];

/// A query parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Query {
    /// The parameter name, unreserved characters only.
    pub name: String,
}

impl PlacementKind for Query {
    fn options() -> &'static [PlacementOption] {
        OPTIONS
    }

    fn parse(_word: &str, name: &str) -> Result<Query, PlacementError> {
        Ok(Query { name: parameter_name(name)? })
    }

    fn target(&self) -> InjectionTarget {
        InjectionTarget::Query(self.name.clone())
    }

    fn wire_forms(&self, value: &SecretValue) -> Vec<WireForm> {
        WireForm::of_url(value)
    }

    fn is_token(&self) -> bool {
        true
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query {}", self.name)
    }
}

/// The serialized form.
#[derive(Deserialize)]
struct Unchecked {
    name: String,
}

impl TryFrom<Unchecked> for Query {
    type Error = PlacementError;

    fn try_from(unchecked: Unchecked) -> Result<Query, PlacementError> {
        Query::parse("", &unchecked.name)
    }
}
