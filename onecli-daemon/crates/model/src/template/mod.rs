//! Common services, as data: `templates.toml` is part of the program.

pub mod choice;
pub mod condition;
pub mod credential_form;
pub mod denial;
pub mod deny_group;
pub mod harmless;
pub mod name;
pub mod narrow;
pub mod recipe;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use self::credential_form::ValueForm;
pub use self::denial::Denial;
use self::deny_group::DenyGroup;
use self::harmless::HarmlessRequest;
use self::narrow::NarrowProfile;
use crate::identity::placeholder_shape::Shape;
use crate::pattern::HostPattern;
use crate::placement::Placement;
use crate::service::cookies::CookieMode;
use crate::service::issued::IssuedShape;

static ALL: LazyLock<Vec<Template>> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a test reads the file that this program is built with")]
    parse(include_str!("../../templates.toml")).expect("templates.toml is checked by a test")
});

/// The defaults of a secret for a common service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Its name: a-z, 0-9, `-`.
    pub name: String,
    /// The title of the service.
    pub title: String,
    /// The hosts that its credential may be sent to.
    pub hosts: Vec<HostPattern>,
    /// The placement, in the text form such as `bearer` or `header x-api-key: {secret}`.
    #[serde(deserialize_with = "placement", serialize_with = "written")]
    pub placement: Placement,
    /// The beginning of a placeholder, which some clients check.
    #[serde(default, rename = "prefix")]
    pub shape: Shape,
    /// The variables that programs read the credential from.
    #[serde(default)]
    pub env: Vec<String>,
    /// The form of its credentials at `hosts`.
    #[serde(default, skip_serializing_if = "ValueForm::is_empty")]
    pub value: ValueForm,
    /// A request that shows whether the service accepts a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<HarmlessRequest>,
    /// Whether `%2F` may be within a segment of its paths.
    #[serde(default)]
    pub encoded_slash: bool,
    /// AWS services that it is never signed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// The conversion of its value into a token: `gcp SCOPE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mint: Option<String>,
    /// The treatment of cookies that the service sets. The default is `wrap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookies: Option<CookieMode>,
    /// Headers in which the service issues and accepts sessions, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub session_headers: Vec<String>,
    /// Requests that would issue new credentials to the agent, grouped by their sources.
    #[serde(default)]
    pub deny: Vec<DenyGroup>,
    /// All of those requests.
    #[serde(skip)]
    pub denials: Vec<Denial>,
    /// Parts of the service that secrets can be narrowed to.
    #[serde(default, rename = "profile", skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<NarrowProfile>,
    /// Credentials that the service issues in its responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issued: Vec<IssuedShape>,
    /// Requests whose responses contain data that users stored at the service. They are not masked by member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Denial>,
}

#[derive(Deserialize)]
struct File {
    template: Vec<Template>,
}

fn parse(text: &str) -> Result<Vec<Template>, String> {
    let mut all = toml::from_str::<File>(text).map_err(|error| error.to_string())?.template;
    for template in &mut all {
        if let Placement::SigV4(signed) = &mut template.placement {
            signed.except.clone_from(&template.except);
        }
        for group in &template.deny {
            template.denials.extend(group.denials()?);
        }
        if let Some(shape) = template.issued.iter().find(|shape| !shape.is_bounded()) {
            return Err(format!("{}: '{}' names nothing, or exceeds a limit", template.name, shape.source));
        }
    }
    Ok(all)
}

impl Template {
    /// Returns every template, ordered by name.
    pub fn all() -> &'static [Template] {
        &ALL
    }

    /// Returns the template with this name.
    pub fn find(name: &str) -> Option<&'static Template> {
        ALL.iter().find(|template| template.name == name)
    }
}

fn placement<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Placement, D::Error> {
    let text = String::deserialize(from)?;
    let (kind, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let unknown = || serde::de::Error::custom(format!("unknown placement '{kind}'"));
    Placement::parse(kind, rest).ok_or_else(unknown)?.map_err(serde::de::Error::custom)
}

fn written<S: serde::Serializer>(placement: &Placement, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(placement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn template_file_is_valid() {
        let all = parse(include_str!("../../templates.toml")).unwrap();
        assert!(all.len() >= 25, "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.name < b.name), "ordered by name, each once");
        for template in &all {
            let name = &template.name;
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
            assert!(!template.title.is_empty() && !template.env.is_empty(), "{name}");
            let lower =
                |header: &String| header.parse::<http::HeaderName>().is_ok_and(|own| own.as_str() == header);
            assert!(template.session_headers.iter().all(lower), "{name}: headers in lower case");
            let signed = matches!(template.placement, Placement::SigV4(_));
            assert!(signed || template.except.is_empty(), "{name}");
        }
    }
}
