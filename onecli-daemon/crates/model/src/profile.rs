//! What sets a secret apart from a plain value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cookies::CookieMode;
use super::flush_after::FlushAfter;
use super::issued::{IssuedShape, MaskIssued};
use super::mint::Mint;
use super::operation::Reading;
use super::source::Source;
use super::template::{Asked, Denial, Template};
use super::token::Placeholder;

/// What a secret has besides its target, its placement and its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// The service it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// What its placeholders look like.
    #[serde(skip_serializing_if = "Shape::is_plain")]
    pub shape: Shape,
    /// Does `%2F` stand within a segment of this service's paths, as part of a name?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encoded_slash: bool,
    /// How its value becomes the credential that is placed; as it is where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mint: Option<Mint>,
    /// Where its value is had from; it is stored where nothing is said. What is sealed in the value's place is then the
    /// source's own text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What happens to credentials that the service issues in its responses.
    #[serde(skip_serializing_if = "MaskIssued::is_default")]
    pub mask_issued: MaskIssued,
    /// How long bytes of a response wait that may be the beginning of the value; without a bound where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_after: Option<FlushAfter>,
    /// What happens to cookies that the service sets; the template's mode, or `wrap`, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookies: Option<CookieMode>,
}

impl Profile {
    /// Does its template refuse this request, although the secret would match?
    pub fn denies(&self, asked: &Asked<'_, '_>) -> bool {
        self.template.as_ref().is_some_and(|name| name.template().denies(asked))
    }

    /// What its template's denials must read of this request besides its head.
    pub fn reads(&self, asked: &Asked<'_, '_>) -> Reading {
        self.template.as_ref().map_or(Reading::Nothing, |name| name.template().reads(asked))
    }

    /// Credentials that the service issues in its responses.
    pub fn issued(&self) -> &'static [IssuedShape] {
        self.template.as_ref().map_or(&[], |name| name.template().issued.as_slice())
    }

    /// Requests whose responses hold what users stored at the service.
    pub fn content(&self) -> &'static [Denial] {
        self.template.as_ref().map_or(&[], |name| name.template().content.as_slice())
    }

    /// What happens to cookies and session headers that the service sets for a request with this secret.
    pub fn cookie_mode(&self) -> CookieMode {
        let of_template = || self.template.as_ref().and_then(|name| name.template().cookies);
        self.cookies.or_else(of_template).unwrap_or_default()
    }

    /// Headers in which the service issues and takes sessions, in lower case. They are treated as cookies are.
    pub fn session_headers(&self) -> &'static [String] {
        self.template.as_ref().map_or(&[], |name| name.template().session_headers.as_slice())
    }
}

/// The name of a template that this program has.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateName(&'static Template);

/// No template has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no template '{0}': 'onecli template list' tells those there are")]
pub struct TemplateNameError(String);

impl TemplateName {
    /// The template.
    pub fn template(&self) -> &'static Template {
        self.0
    }
}

impl FromStr for TemplateName {
    type Err = TemplateNameError;

    fn from_str(text: &str) -> Result<TemplateName, TemplateNameError> {
        let short = || text.chars().take(80).flat_map(char::escape_default).collect();
        Template::find(text).map(TemplateName).ok_or_else(|| TemplateNameError(short()))
    }
}

impl PartialEq for TemplateName {
    fn eq(&self, other: &TemplateName) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for TemplateName {}

impl fmt::Debug for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateName({})", self.0.name)
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.name)
    }
}

impl TryFrom<String> for TemplateName {
    type Error = TemplateNameError;

    fn try_from(text: String) -> Result<TemplateName, TemplateNameError> {
        text.parse()
    }
}

impl From<TemplateName> for String {
    fn from(name: TemplateName) -> String {
        name.0.name.clone()
    }
}

/// What a placeholder looks like to the programs that hold it: some check how a key begins. What follows is the
/// placeholder itself, which is found wherever it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shape(String);

/// A beginning that no key has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' cannot begin a placeholder: at most 32 of A-Z, a-z, 0-9, '-', '_', '.'")]
pub struct ShapeError(String);

impl Shape {
    /// The placeholder as the agent gets it.
    pub fn dress(&self, placeholder: &Placeholder) -> String {
        format!("{}{placeholder}", self.0)
    }

    /// What it begins with; may be empty.
    pub fn prefix(&self) -> &str {
        &self.0
    }

    fn is_plain(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Shape, ShapeError> {
        let ok = text.len() <= 32
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            // What a placeholder begins with must not be found twice.
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
    fn profiles_round_trip() {
        let full = r#"{"template":"openai","shape":"sk-","encoded_slash":true,"source":{"vault":"kv/a#b"},"mask_issued":"all","flush_after":"250ms","cookies":"pass"}"#;
        for text in ["{}", full] {
            let profile: Profile = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&profile).unwrap(), text);
        }
        for bad in [r#"{"template":"no-such"}"#, r#"{"shape":"a b"}"#, r#"{"x":1}"#, r#"{"cookies":"keep"}"#]
        {
            assert!(serde_json::from_str::<Profile>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dressed_placeholder_is_still_found() {
        let placeholder = Placeholder::from_bits([7; 20]);
        let dressed = "sk-ant-api03-".parse::<Shape>().unwrap().dress(&placeholder);
        assert_eq!(Placeholder::find_all(dressed.as_bytes()).collect::<Vec<_>>(), [placeholder]);
        assert!("onecli_ph_".parse::<Shape>().is_err());
    }
}
