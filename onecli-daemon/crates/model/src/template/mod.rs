//! Common services, as data: `templates.toml` is part of the program.

pub mod choice;
pub mod credential_form;
pub mod deny_group;
pub mod harmless;
pub mod name;
pub mod narrow;
pub mod recipe;

use std::str::FromStr;
use std::sync::LazyLock;

use http::Method;
use serde::{Deserialize, Serialize};

use self::credential_form::ValueForm;
use self::deny_group::DenyGroup;
use self::harmless::HarmlessRequest;
use self::narrow::NarrowProfile;
use crate::host::authority::Host;
use crate::identity::placeholder_shape::Shape;
use crate::operation::{Condition, Operations, Reading};
use crate::path::{Names, PathReadings, fold};
use crate::pattern::HostPattern;
use crate::pattern::glob::{End, Globs};
use crate::pattern::host_scope::HostScope;
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
        if let Placement::SigV4 { except, .. } = &mut template.placement {
            except.clone_from(&template.except);
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

    /// Returns whether a server might read this request as one that is denied.
    pub fn denies(&self, asked: &Asked<'_, '_>) -> bool {
        let mount = self.mount(asked.host);
        self.denials.iter().any(|denial| denial.is_of(asked, mount))
    }

    /// Returns the parts besides the head that the denials must read of this request.
    pub fn reads(&self, asked: &Asked<'_, '_>) -> Reading {
        let mount = self.mount(asked.host);
        self.denials.iter().map(|denial| denial.reads(asked, mount)).max().unwrap_or_default()
    }

    /// The hosts of the template have the API at their root. At a host that the operator chose, it may be anywhere:
    /// GitHub Enterprise Server has it below `/api/v3`, and GitLab may be below a relative URL.
    fn mount(&self, host: &Host) -> Mount {
        if self.hosts.iter().any(|own| own.matches(host)) { Mount::Root } else { Mount::Anywhere }
    }
}

/// A request that may be denied.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r, 'p> {
    /// Its method.
    pub method: &'r Method,
    /// Its host.
    pub host: &'r Host,
    /// Its path.
    pub path: &'r PathReadings<'p>,
    /// The actions that it names.
    pub operations: &'r Operations,
}

/// The place at which a service's API begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mount {
    /// At the root of the path.
    Root,
    /// After a prefix, which may be empty.
    Anywhere,
}

/// The maximum length of a prefix before a denied path, in segments.
const MAX_MOUNT: usize = 16;
/// The limit for paths of one name, such as `/oauth/**`. In a deeper path, the name is more likely that of a project.
const MAX_MOUNT_OF_A_NAME: usize = 3;

/// Requests that are refused regardless of grants: `POST /user/keys`, `* aws:sts/**`, `GET /apikeys ?includevalues`.
/// A denial of POST, PUT or PATCH holds for all three.
///
/// Every way in which a server might read the path is matched, without regard to case. This refuses too many requests
/// rather than too few.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Denial {
    text: String,
    /// `None` for all methods.
    method: Option<Method>,
    /// `None` for all hosts of the secret.
    host: Option<HostScope>,
    path: Globs,
    /// The path after a prefix.
    mounted: Globs,
    /// The action that the request must name in addition.
    condition: Option<Condition>,
}

impl FromStr for Denial {
    type Err = String;

    fn from_str(text: &str) -> Result<Denial, String> {
        let bad = |why: &str| format!("bad denial '{text}': {why}");
        let (method, place) =
            text.split_once(' ').ok_or_else(|| bad("write METHOD [HOST]/PATH [CONDITION]"))?;
        let method = match method {
            "*" => None,
            method => Some(Method::from_bytes(method.as_bytes()).map_err(|_| bad("it has no valid method"))?),
        };
        let (place, condition) = match place.split_once(' ') {
            Some((place, condition)) => (place, Some(condition.parse().map_err(|why: String| bad(&why))?)),
            None => (place, None),
        };
        let (host, path) = place.split_once('/').ok_or_else(|| bad("it has no path"))?;
        let host = match host {
            "" => None,
            host => Some(host.parse().map_err(|why: String| bad(&why))?),
        };
        if path.chars().any(|c| c.is_ascii_uppercase() || matches!(c, '%' | ';' | '\\')) {
            return Err(bad("write the path in lower case, without escapes"));
        }
        if path.split('/').any(|segment| segment != "**" && segment.contains("**")) {
            return Err(bad("'**' must be a whole segment"));
        }
        // The root has no segment.
        let segments = path.split('/').filter(|_| !path.is_empty());
        let path = Globs::new(segments, End::Anything, |segment| fold(segment).into_owned());
        let is_vague = path.names() < 2 && condition.is_none();
        let mounted = path.below(if is_vague { MAX_MOUNT_OF_A_NAME } else { MAX_MOUNT });
        Ok(Denial { text: text.to_owned(), method, host, path, mounted, condition })
    }
}

impl TryFrom<String> for Denial {
    type Error = String;

    fn try_from(text: String) -> Result<Denial, String> {
        text.parse()
    }
}

impl From<Denial> for String {
    fn from(denial: Denial) -> String {
        denial.text
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

impl Denial {
    /// Returns the denial of an AWS operation, in all ways in which a request can name it.
    ///
    /// # Errors
    /// A sentence about a service without a name.
    pub fn of_operation(service: &str, operation: &str, in_form: bool) -> Result<Denial, String> {
        let name = operation.to_ascii_lowercase();
        let path = Globs::new(["**", "operation", &name].into_iter(), End::Anything, str::to_owned);
        Ok(Denial {
            text: format!("aws:{service} {operation}"),
            method: None,
            host: Some(format!("aws:{service}").parse()?),
            mounted: path.clone(),
            path,
            condition: Some(Condition::Operation { name, in_form }),
        })
    }

    /// Returns the action that a request must name in addition to method, host and path.
    pub fn condition(&self) -> Option<&Condition> {
        self.condition.as_ref()
    }

    /// Returns whether a server with the API at its root might read this request as a denied one.
    pub fn matches(
        &self,
        method: &Method,
        host: &Host,
        path: &PathReadings<'_>,
        operations: &Operations,
    ) -> bool {
        self.is_of(&Asked { method, host, path, operations }, Mount::Root)
    }

    fn is_of(&self, asked: &Asked<'_, '_>, mount: Mount) -> bool {
        let in_path = || self.is_in(asked.path, mount);
        self.is_at(asked.method, asked.host)
            && match &self.condition {
                Some(operation @ Condition::Operation { .. }) => operation.holds(asked.operations, in_path),
                Some(condition) => condition.holds(asked.operations, || false) && in_path(),
                None => in_path(),
            }
    }

    /// Returns the parts besides the head of such a request that the denial depends on.
    fn reads(&self, asked: &Asked<'_, '_>, mount: Mount) -> Reading {
        let reading = match &self.condition {
            Some(Condition::Word(_)) if self.path.ends_with("graphql") => Reading::GraphQl,
            Some(Condition::Word(_)) => Reading::Text,
            Some(Condition::Operation { in_form: true, .. } | Condition::Parameter { in_body: true, .. }) => {
                Reading::Form
            }
            _ => return Reading::Nothing,
        };
        let is_anywhere = matches!(self.condition, Some(Condition::Operation { .. }));
        let is_read = self.is_at(asked.method, asked.host) && (is_anywhere || self.is_in(asked.path, mount));
        if is_read { reading } else { Reading::Nothing }
    }

    fn is_at(&self, method: &Method, host: &Host) -> bool {
        self.method.as_ref().is_none_or(|own| own == method || (writes(own) && writes(method)))
            && self.host.as_ref().is_none_or(|own| own.matches(host))
    }

    fn is_in(&self, path: &PathReadings<'_>, mount: Mount) -> bool {
        let own = if mount == Mount::Root { &self.path } else { &self.mounted };
        let is_about = |names: Names<'_>| {
            own.matches(names) || names.without_format().is_some_and(|names| own.matches(names))
        };
        path.lenient().any(is_about)
    }
}

/// Some servers accept PUT or PATCH where their documentation has POST, so a denial of one is a denial of all three.
fn writes(method: &Method) -> bool {
    [Method::POST, Method::PUT, Method::PATCH].contains(method)
}

fn placement<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Placement, D::Error> {
    let text = String::deserialize(from)?;
    let (kind, rest) = text.split_once(' ').unwrap_or((&text, ""));
    let placement = match kind {
        "bearer" => Ok(Placement::bearer()),
        "header" => Placement::header(rest),
        "basic" => Placement::basic(rest),
        "query" => Placement::query(rest),
        "replace" => rest.parse().map(|at| Placement::Replace { at }),
        "sigv4" => Placement::sigv4(rest, Vec::new()),
        _ => return Err(serde::de::Error::custom(format!("unknown placement '{kind}'"))),
    };
    placement.map_err(serde::de::Error::custom)
}

fn written<S: serde::Serializer>(placement: &Placement, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(placement)
}

#[cfg(test)]
mod denied;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CanonicalPath;

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
            let signed = matches!(template.placement, Placement::SigV4 { .. });
            assert!(signed || template.except.is_empty(), "{name}");
        }
    }

    fn matches(denial: &Denial, method: &Method, host: &Host, path: &str) -> bool {
        let path = CanonicalPath::parse(path).unwrap();
        denial.matches(method, host, &PathReadings::new(&path), &Operations::default())
    }

    /// Requests with unusual spellings of the path are refused too.
    #[test]
    fn denials_catch_every_spelling() {
        let denial: Denial = "POST /app/installations/*/access_tokens".parse().unwrap();
        let host = "api.github.com".parse().unwrap();
        for path in [
            "/app/installations/42/access_tokens",
            "/app/installations/42/access_tokens/",
            "/app/installations/42//access_tokens",
            "//app/./installations/42/access_tokens",
            "/app/x/../installations/42/access_tokens",
            "/app/installations/42/%61ccess_tokens",
            "/app/installations/42/%2561ccess_tokens",
            "/app/installations/42%2Faccess_tokens",
            "/app/installations/42%252faccess_tokens",
            "/app/installations/42\\access_tokens",
            "/app/installations/42%5Caccess_tokens",
            "/app/installations/42/access_tokens;x=y",
            "/app/installations/42;a/access_tokens%3Bb",
            "/APP/Installations/42/Access_Tokens",
            "/app/installations/4%2f2/access_tokens",
            "/app/installations/42/access_tokens%00",
            "/app/installations/42/access_tokens%20",
            "/app/installations/42/access_tokens%3Fa",
            "/app/installations/42/b/%2e%2e/access_tokens",
            "/app/installations/42/..%2f42/access_tokens",
        ] {
            assert!(matches(&denial, &Method::POST, &host, path), "{path}");
        }
        for (method, path) in [
            (Method::GET, "/app/installations/42/access_tokens"),
            (Method::POST, "/app/installations/42"),
            (Method::POST, "/repos/a/b/issues"),
            (Method::POST, "/app/installations/42/access_tokens/x"),
        ] {
            assert!(!matches(&denial, &method, &host, path), "{method} {path}");
        }
        let host_denial: Denial = "* sts.amazonaws.com/**".parse().unwrap();
        assert!(matches(&host_denial, &Method::GET, &"sts.amazonaws.com".parse().unwrap(), "/"));
        assert!(!matches(&host_denial, &Method::GET, &host, "/"));
        for bad in ["POST", "POST x", "a b /x", "POST /A", "POST /%41"] {
            assert!(bad.parse::<Denial>().is_err(), "{bad}");
        }
    }
}
