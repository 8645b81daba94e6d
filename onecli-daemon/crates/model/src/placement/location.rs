//! The place in a request at which an agent puts a placeholder that is replaced by the value.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::error::PlacementError;
use super::field::{field_name, parameter_name};

/// The maximum length of a JSON pointer, in bytes, and its maximum number of steps.
const LONGEST_POINTER: usize = 256;
const MOST_STEPS: usize = 32;

/// A place in a request whose placeholder is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PlaceholderLocation {
    /// Anywhere in the value of this header field.
    Header(HeaderName),
    /// In the user name or the password of `Authorization: Basic` (RFC 7617).
    Basic,
    /// In the value of this query parameter.
    Query(String),
    /// In the string at this place of a JSON body.
    Json(JsonPointer),
}

/// A JSON pointer (RFC 6901): `/a/0/b`, with `~1` for `/` and `~0` for `~` within a name. Never the whole document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JsonPointer(Vec<String>);

impl JsonPointer {
    /// Returns the names and indices from the document's root on; at least one, at most 32.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for JsonPointer {
    type Err = PlacementError;

    fn from_str(text: &str) -> Result<JsonPointer, PlacementError> {
        let bad = || PlacementError::Pointer(text.chars().take(80).flat_map(char::escape_default).collect());
        let steps = text.strip_prefix('/').filter(|_| text.len() <= LONGEST_POINTER).ok_or_else(bad)?;
        let unescape = |step: &str| {
            let mut parts = step.split('~');
            let mut out = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let (escaped, rest) = match part.split_at_checked(1)? {
                    ("0", rest) => ('~', rest),
                    ("1", rest) => ('/', rest),
                    _ => return None,
                };
                out.push(escaped);
                out.push_str(rest);
            }
            Some(out)
        };
        let steps: Option<Vec<String>> = steps.split('/').map(unescape).collect();
        let plain = |steps: &Vec<String>| {
            steps.len() <= MOST_STEPS && !steps.iter().any(|step| step.chars().any(char::is_control))
        };
        steps.filter(plain).map(JsonPointer).ok_or_else(bad)
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

impl FromStr for PlaceholderLocation {
    type Err = PlacementError;

    /// Parses `header:NAME`, `basic`, `query:NAME` or `json:/POINTER`.
    fn from_str(text: &str) -> Result<PlaceholderLocation, PlacementError> {
        match text.split_once(':') {
            None if text == "basic" => Ok(PlaceholderLocation::Basic),
            Some(("header", name)) => Ok(PlaceholderLocation::Header(field_name(name)?)),
            Some(("query", name)) => Ok(PlaceholderLocation::Query(parameter_name(name)?)),
            Some(("json", pointer)) => Ok(PlaceholderLocation::Json(pointer.parse()?)),
            _ => {
                Err(PlacementError::Location(text.chars().take(80).flat_map(char::escape_default).collect()))
            }
        }
    }
}

impl TryFrom<String> for PlaceholderLocation {
    type Error = PlacementError;

    fn try_from(text: String) -> Result<PlaceholderLocation, PlacementError> {
        text.parse()
    }
}

impl From<PlaceholderLocation> for String {
    fn from(location: PlaceholderLocation) -> String {
        location.to_string()
    }
}

impl fmt::Display for PlaceholderLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlaceholderLocation::Header(name) => write!(f, "header:{name}"),
            PlaceholderLocation::Basic => f.write_str("basic"),
            PlaceholderLocation::Query(name) => write!(f, "query:{name}"),
            PlaceholderLocation::Json(pointer) => write!(f, "json:{pointer}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_round_trip() {
        for text in ["header:x-api-key", "basic", "query:key", "json:/auth/0/a~1b~0c", "json:/"] {
            assert_eq!(text.parse::<PlaceholderLocation>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "header",
            "header:",
            "header:host",
            "header:a b",
            "query:",
            "query:a=b",
            "json:",
            "json:a",
            "json:/a~2",
            "json:/a~",
            "json:/\n",
            "body",
            "Basic",
        ] {
            assert!(bad.parse::<PlaceholderLocation>().is_err(), "{bad:?}");
        }
        let pointer: JsonPointer = "/a~1b/~0/".parse().unwrap();
        assert_eq!(pointer.steps(), ["a/b", "~", ""]);
        assert!("/a".repeat(33).parse::<JsonPointer>().is_err());
    }
}
