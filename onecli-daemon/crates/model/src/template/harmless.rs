//! Requests that show whether a service accepts a credential, and that change nothing there.

use std::collections::BTreeMap;
use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};

use crate::host::authority::{Authority, Host};
use crate::identity::ids::{RequestId, SecretId};

/// Statuses that mean that the service refused the credential, unless a template names others (RFC 9110 section
/// 15.5.2).
const REFUSED: [u16; 1] = [401];

/// A harmless request from a template, and the meaning of its responses.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarmlessRequest {
    /// Method and path with query: `GET /v1/models`.
    pub request: RequestLine,
    /// The host. `None` for the secret's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Additional header fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The AWS region and service that it is signed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Statuses that mean that the service refused the credential. The default is 401.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<u16>,
    /// Texts in a response that mean the same, regardless of its status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_text: Vec<String>,
}

/// `METHOD /path?query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestLine {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
}

impl FromStr for RequestLine {
    type Err = String;

    fn from_str(text: &str) -> Result<RequestLine, String> {
        let (method, target) = text.split_once(' ').ok_or("write METHOD /path")?;
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("'{method}' is not a method"))?;
        if !target.starts_with('/') {
            return Err(format!("'{target}' is not a path"));
        }
        Ok(RequestLine { method, target: target.to_owned() })
    }
}

impl TryFrom<String> for RequestLine {
    type Error = String;

    fn try_from(text: String) -> Result<RequestLine, String> {
        text.parse()
    }
}

impl From<RequestLine> for String {
    fn from(line: RequestLine) -> String {
        format!("{} {}", line.method, line.target)
    }
}

/// The result of a test of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestVerdict {
    /// The service accepted it.
    Accepted,
    /// The service refused it.
    Refused,
    /// The response does not show it.
    Unknown,
}

impl TestVerdict {
    /// Returns the meaning of a status and the beginning of a body according to `known`. Without it, 2xx means
    /// accepted, and 401 refused.
    pub fn of(known: Option<&HarmlessRequest>, status: u16, body: &str) -> TestVerdict {
        let refused = known.map(|known| known.refused.as_slice()).filter(|refused| !refused.is_empty());
        let says_so = known.is_some_and(|known| known.refused_text.iter().any(|text| body.contains(text)));
        match status {
            _ if says_so || refused.unwrap_or(&REFUSED).contains(&status) => TestVerdict::Refused,
            200..=299 => TestVerdict::Accepted,
            _ => TestVerdict::Unknown,
        }
    }
}

/// One test request with a secret, as specified by an administrator.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// The secret.
    pub secret: SecretId,
    /// The destination, within the secret's scope.
    pub authority: Authority,
    /// Whether it is sent over TLS.
    pub tls: bool,
    /// Method, path and query.
    pub line: RequestLine,
    /// Additional header fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The user of Basic authentication, for a secret that is only the password.
    pub user: Option<String>,
    /// The AWS region and service.
    pub scope: Option<String>,
    /// The uid of the administrator.
    pub uid: u32,
}

/// The response of the service.
#[derive(Debug, Clone)]
pub struct TestAnswer {
    /// The status.
    pub status: u16,
    /// The host in its `Location`, if it has one. For a `Location` without a host, the host of the request.
    pub redirect_host: Option<String>,
    /// The beginning of its body as text, without any secret.
    pub text: String,
    /// The id of its records in the audit log.
    pub request_id: Option<RequestId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operations;
    use crate::operation::Asked;
    use crate::path::{CanonicalPath, PathReadings};
    use crate::template::Template;

    #[test]
    fn verdict_depends_on_status_and_text() {
        let of = |name: &str| Template::find(name).unwrap().test.as_ref();
        let check = |known, status, body, expected| {
            assert_eq!(TestVerdict::of(known, status, body), expected, "{status} {body}");
        };
        check(None, 204, "", TestVerdict::Accepted);
        check(None, 401, "", TestVerdict::Refused);
        check(None, 403, "", TestVerdict::Unknown);
        check(None, 302, "", TestVerdict::Unknown);
        check(of("openai"), 200, "{\"data\":[]}", TestVerdict::Accepted);
        check(of("google-ai"), 400, "", TestVerdict::Refused);
        check(of("slack"), 200, "{\"ok\":false,\"error\":\"invalid_auth\"}", TestVerdict::Refused);
        check(of("slack"), 200, "{\"ok\":true}", TestVerdict::Accepted);
        check(of("aws"), 403, "<Code>AccessDenied</Code>", TestVerdict::Unknown);
        check(of("aws"), 403, "<Code>SignatureDoesNotMatch</Code>", TestVerdict::Refused);
    }

    #[test]
    fn templates_name_requests_that_they_allow() {
        let tested = Template::all().iter().filter_map(|template| Some((template, template.test.as_ref()?)));
        let mut count = 0;
        for (template, test) in tested {
            let name = &template.name;
            let RequestLine { method, target } = &test.request;
            assert!([Method::GET, Method::HEAD].contains(method), "{name}: a method that changes nothing");
            let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(p, q)| (p, Some(q)));
            let path = CanonicalPath::parse(path).unwrap();
            let path = PathReadings::new(&path);
            let operations = Operations::of(query, &http::HeaderMap::new());
            if let Some(host) = &test.host {
                assert!(template.hosts.iter().any(|own| own.matches(host)), "{name}: {host}");
                let asked = Asked { method, host, path: &path, operations: &operations };
                assert!(!template.denies(&asked), "{name}: its own denials refuse {target}");
            }
            for (field, value) in &test.headers {
                assert!(
                    field.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok(),
                    "{name}"
                );
            }
            count += 1;
        }
        assert!(count >= 25, "{count}");
    }
}
