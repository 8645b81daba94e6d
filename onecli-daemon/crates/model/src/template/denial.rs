//! Requests that a template refuses.

use std::str::FromStr;

use http::Method;
use serde::{Deserialize, Serialize};

use super::condition::Condition;
use crate::path::fold;
use crate::pattern::glob::{End, Globs};
use crate::pattern::host_scope::HostScope;

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
    pub(crate) method: Option<Method>,
    /// `None` for all hosts of the secret.
    pub(crate) host: Option<HostScope>,
    pub(crate) path: Globs,
    /// The path after a prefix.
    pub(crate) mounted: Globs,
    /// The action that the request must name in addition.
    pub(crate) condition: Option<Condition>,
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
}
