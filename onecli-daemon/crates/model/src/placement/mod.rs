//! The placement of a credential in a request.

mod error;
mod field;
pub mod location;
pub mod wire_form;

use std::fmt;
use std::str::FromStr;

use http::{HeaderName, header};
use serde::{Deserialize, Serialize, Serializer};

pub use self::error::PlacementError;
use self::field::{is_reserved, parameter_name};
use self::location::{JsonPointer, PlaceholderLocation};

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

/// The placement of a credential. Deserialization applies the same checks as the constructors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", try_from = "Unchecked")]
pub enum Placement {
    /// A header field whose value is a template.
    Header {
        /// The field name, lower case.
        #[serde(serialize_with = "write_name")]
        name: HeaderName,
        /// The field value.
        template: Template,
    },
    /// `Authorization: Basic base64(user:secret)` (RFC 7617).
    Basic {
        /// The user name, without `:`.
        user: String,
    },
    /// A query parameter.
    Query {
        /// The parameter name, unreserved characters only.
        name: String,
    },
    /// Replacement of the placeholder, which the agent sends at that place.
    Replace {
        /// The place.
        at: PlaceholderLocation,
    },
    /// AWS Signature Version 4: the agent's own signature is removed, and the request is signed anew.
    SigV4 {
        /// The only permitted region. `None` for the region that the agent signed for, which must match the host.
        region: Option<String>,
        /// The only permitted service. `None` for the service that the agent signed for.
        service: Option<String>,
        /// Services that are never permitted.
        #[serde(default)]
        except: Vec<String>,
    },
}

/// The place in a request that a credential fills. At most one credential fills each target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InjectionTarget {
    /// A header field.
    Header(HeaderName),
    /// A query parameter.
    Query(String),
    /// A field of a JSON body.
    Json(JsonPointer),
}

impl Placement {
    /// Returns `Authorization: Bearer {secret}` (RFC 6750 section 2.1).
    pub fn bearer() -> Placement {
        Placement::Header {
            name: header::AUTHORIZATION,
            template: Template { before: "Bearer ".to_owned(), after: String::new() },
        }
    }

    /// Returns `Authorization: Basic` for this user.
    ///
    /// # Errors
    /// [`PlacementError::BasicUser`].
    pub fn basic(user: &str) -> Result<Placement, PlacementError> {
        if user.contains(':') || user.chars().any(char::is_control) {
            return Err(PlacementError::BasicUser);
        }
        Ok(Placement::Basic { user: user.to_owned() })
    }

    /// Returns a query parameter with this name.
    ///
    /// # Errors
    /// [`PlacementError::Query`].
    pub fn query(name: &str) -> Result<Placement, PlacementError> {
        Ok(Placement::Query { name: parameter_name(name)? })
    }

    /// Returns Signature Version 4 for `REGION/SERVICE`, either of them `*`, and never for the services `except`.
    ///
    /// # Errors
    /// [`PlacementError::Scope`].
    pub fn sigv4(scope: &str, except: Vec<String>) -> Result<Placement, PlacementError> {
        let (region, service) = scope.split_once('/').unwrap_or((scope, "*"));
        let part = |text: &str| (text != "*").then(|| text.to_owned());
        Placement::signed(part(region), part(service), except)
    }

    fn signed(
        region: Option<String>,
        service: Option<String>,
        except: Vec<String>,
    ) -> Result<Placement, PlacementError> {
        let ok = |text: &&String| {
            !(1..=64).contains(&text.len())
                || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        match region.iter().chain(&service).chain(&except).find(ok) {
            Some(bad) => {
                Err(PlacementError::Scope(bad.chars().take(80).flat_map(char::escape_default).collect()))
            }
            None => Ok(Placement::SigV4 { region, service, except }),
        }
    }

    /// Returns the place in the request that must contain the placeholder itself, if there is one.
    pub fn placeholder_location(&self) -> Option<&PlaceholderLocation> {
        match self {
            Placement::Replace { at } => Some(at),
            _ => None,
        }
    }

    /// Returns the field of a JSON body that the credential fills, if it does.
    pub fn json_pointer(&self) -> Option<&JsonPointer> {
        match self {
            Placement::Replace { at: PlaceholderLocation::Json(pointer) } => Some(pointer),
            _ => None,
        }
    }

    /// Returns a header with a template, from the format `Name: text with {secret}`.
    ///
    /// # Errors
    /// [`PlacementError::Header`], [`PlacementError::Template`], [`PlacementError::ReservedHeader`].
    pub fn header(text: &str) -> Result<Placement, PlacementError> {
        let bad = || PlacementError::Header(text.chars().flat_map(char::escape_default).collect());
        let (name, template) = text.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::from_str(name.trim()).map_err(|_| bad())?;
        Placement::in_header(name, Template::new(template.trim())?)
    }

    fn in_header(name: HeaderName, template: Template) -> Result<Placement, PlacementError> {
        if is_reserved(&name) {
            return Err(PlacementError::ReservedHeader(name.to_string()));
        }
        Ok(Placement::Header { name, template })
    }

    /// Returns the place that the credential fills.
    pub fn injection_target(&self) -> InjectionTarget {
        match self {
            Placement::Header { name, .. } | Placement::Replace { at: PlaceholderLocation::Header(name) } => {
                InjectionTarget::Header(name.clone())
            }
            Placement::Query { name } | Placement::Replace { at: PlaceholderLocation::Query(name) } => {
                InjectionTarget::Query(name.clone())
            }
            Placement::Basic { .. }
            | Placement::Replace { at: PlaceholderLocation::Basic }
            | Placement::SigV4 { .. } => InjectionTarget::Header(header::AUTHORIZATION),
            Placement::Replace { at: PlaceholderLocation::Json(pointer) } => {
                InjectionTarget::Json(pointer.clone())
            }
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Header { name, template } => write!(f, "header {name}: {template}"),
            Placement::Basic { user } => write!(f, "basic {user}"),
            Placement::Query { name } => write!(f, "query {name}"),
            Placement::Replace { at } => write!(f, "replace {at}"),
            Placement::SigV4 { region, service, .. } => {
                let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
                write!(f, "sigv4 {}/{}", part(region), part(service))
            }
        }
    }
}

/// The serialized form of a placement.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Unchecked {
    Header {
        name: String,
        template: Template,
    },
    Basic {
        user: String,
    },
    Query {
        name: String,
    },
    Replace {
        at: PlaceholderLocation,
    },
    SigV4 {
        region: Option<String>,
        service: Option<String>,
        #[serde(default)]
        except: Vec<String>,
    },
}

impl TryFrom<Unchecked> for Placement {
    type Error = PlacementError;

    fn try_from(unchecked: Unchecked) -> Result<Placement, PlacementError> {
        match unchecked {
            Unchecked::Header { name, template } => {
                let bad = |_| PlacementError::Header(name.chars().flat_map(char::escape_default).collect());
                Placement::in_header(HeaderName::from_bytes(name.as_bytes()).map_err(bad)?, template)
            }
            Unchecked::Basic { user } => Placement::basic(&user),
            Unchecked::Query { name } => Placement::query(&name),
            Unchecked::Replace { at } => Ok(Placement::Replace { at }),
            Unchecked::SigV4 { region, service, except } => Placement::signed(region, service, except),
        }
    }
}

fn write_name<S: Serializer>(name: &HeaderName, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_templates() {
        let placement = Placement::header("X-Api-Key: {secret}").unwrap();
        assert_eq!(placement.to_string(), "header x-api-key: {secret}");
        for bad in [
            "X-Api-Key",
            "X-Api-Key: none",
            "A: {secret}{secret}",
            "Host: {secret}",
            "Accept-Encoding: {secret}",
            "Range: {secret}",
            "If-Range: {secret}",
            "Sec-WebSocket-Extensions: {secret}",
            "a b: {secret}",
            "A: {secret}\r\nB: c",
        ] {
            assert!(Placement::header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stored_form_round_trips() {
        for placement in [
            Placement::bearer(),
            Placement::header("x-goog-api-key: {secret}").unwrap(),
            Placement::basic("x-access-token").unwrap(),
            Placement::query("key").unwrap(),
            Placement::Replace { at: "json:/auth/token".parse().unwrap() },
            Placement::Replace { at: "header:x-api-key".parse().unwrap() },
            Placement::sigv4("*/*", vec!["sts".to_owned()]).unwrap(),
            Placement::sigv4("eu-central-1/s3", Vec::new()).unwrap(),
        ] {
            let text = serde_json::to_string(&placement).unwrap();
            assert_eq!(serde_json::from_str::<Placement>(&text).unwrap(), placement, "{text}");
        }
    }

    /// The admin API and the store accept only placements that the constructors would create.
    #[test]
    fn deserialized_placements_are_validated() {
        for bad in [
            r#"{"kind":"header","name":"host","template":"{secret}"}"#,
            r#"{"kind":"header","name":"accept-encoding","template":"{secret}"}"#,
            r#"{"kind":"header","name":"a b","template":"{secret}"}"#,
            r#"{"kind":"header","name":"x-key","template":"none"}"#,
            r#"{"kind":"basic","user":"a:b"}"#,
            r#"{"kind":"query","name":"a=b&c"}"#,
            r#"{"kind":"query","name":""}"#,
            r#"{"kind":"replace","at":"header:host"}"#,
            r#"{"kind":"replace","at":"json:x"}"#,
            r#"{"kind":"sigv4","region":"a/b","service":null}"#,
            r#"{"kind":"sigv4","region":null,"service":null,"except":["A"]}"#,
        ] {
            assert!(serde_json::from_str::<Placement>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn basic_users_and_query_names_are_validated() {
        assert!(Placement::basic("a:b").is_err());
        assert!(Placement::query("").is_err());
        assert!(Placement::query("a=b").is_err());
    }
}
