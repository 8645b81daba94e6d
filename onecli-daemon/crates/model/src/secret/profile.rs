//! The properties of a secret beyond a plain value.

use serde::{Deserialize, Serialize};

use super::flush_after::FlushAfter;
use super::source::Source;
use crate::identity::placeholder_shape::Shape;
use crate::operation::{Asked, Reading};
use crate::service::cookies::CookieMode;
use crate::service::issued::{IssuedShape, MaskIssued};
use crate::service::mint::Mint;
use crate::template::name::{TemplateName, TemplateNameError};
use crate::template::{Denial, Template};

/// The properties of a secret besides its target, its placement and its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// The template of its service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// The appearance of its placeholders.
    #[serde(skip_serializing_if = "Shape::is_plain")]
    pub shape: Shape,
    /// Whether `%2F` may be within a segment of this service's paths, as part of a name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encoded_slash: bool,
    /// The conversion of its value into the credential that is placed. `None` places the value itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mint: Option<Mint>,
    /// The source of its value. `None` if the value is stored. With a source, the sealed value is the text of the
    /// source itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The treatment of credentials that the service issues in its responses.
    #[serde(skip_serializing_if = "MaskIssued::is_default")]
    pub mask_issued: MaskIssued,
    /// The time for which bytes of a response that may be the beginning of the value wait. `None` for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flush_after: Option<FlushAfter>,
    /// The treatment of cookies that the service sets. `None` for the template's mode, or `wrap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookies: Option<CookieMode>,
}

impl Profile {
    /// Returns whether its template refuses this request although the secret would match.
    pub fn denies(&self, asked: &Asked<'_, '_>) -> bool {
        self.template.as_ref().is_some_and(|name| name.template().denies(asked))
    }

    /// Returns the parts besides the head that its template's denials must read of this request.
    pub fn reads(&self, asked: &Asked<'_, '_>) -> Reading {
        self.template.as_ref().map_or(Reading::Nothing, |name| name.template().reads(asked))
    }

    /// Returns the credentials that the service issues in its responses.
    pub fn issued(&self) -> &'static [IssuedShape] {
        self.template.as_ref().map_or(&[], |name| name.template().issued.as_slice())
    }

    /// Returns the requests whose responses contain data that users stored at the service.
    pub fn content(&self) -> &'static [Denial] {
        self.template.as_ref().map_or(&[], |name| name.template().content.as_slice())
    }

    /// Returns the treatment of cookies and session headers that the service sets for a request with this secret.
    pub fn cookie_mode(&self) -> CookieMode {
        let of_template = || self.template.as_ref().and_then(|name| name.template().cookies);
        self.cookies.or_else(of_template).unwrap_or_default()
    }

    /// Returns the headers in which the service issues and accepts sessions, in lower case. They are treated like
    /// cookies.
    pub fn session_headers(&self) -> &'static [String] {
        self.template.as_ref().map_or(&[], |name| name.template().session_headers.as_slice())
    }
}

impl Template {
    /// Returns the profile of a secret from this template.
    ///
    /// # Errors
    /// None for a template of this program.
    pub fn profile(&self) -> Result<Profile, TemplateNameError> {
        let scope = self.mint.as_deref().and_then(|mint| mint.strip_prefix("gcp "));
        Ok(Profile {
            template: Some(self.name.parse()?),
            shape: self.shape.clone(),
            encoded_slash: self.encoded_slash,
            mint: scope.map(|scope| Mint::GcpServiceAccount { scope: scope.to_owned() }),
            source: None,
            mask_issued: MaskIssued::default(),
            flush_after: None,
            cookies: None,
        })
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
}
