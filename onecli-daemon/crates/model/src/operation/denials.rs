//! Whether templates deny a request.

use http::Method;

use super::reading::Reading;
use super::{AWS_ACTION, Operations, RequestPart};
use crate::host::authority::Host;
use crate::path::{Names, PathReadings};
use crate::template::Template;
use crate::template::condition::Condition;
use crate::template::denial::Denial;

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

impl Condition {
    /// Returns whether the request meets the condition. For [`Condition::Operation`], `is_in_path` returns whether
    /// the path names the operation.
    pub fn holds(&self, operations: &Operations, is_in_path: impl FnOnce() -> bool) -> bool {
        match self {
            Condition::Parameter { name, value, in_body } => {
                operations.has_mention(RequestPart::Query, name, value.as_deref())
                    || *in_body && operations.has_mention(RequestPart::Body, name, value.as_deref())
            }
            Condition::Header { name, value } => {
                operations.has_mention(RequestPart::Header, name.as_str(), Some(value))
            }
            Condition::Word(word) => {
                operations.has_mention(RequestPart::Body, word, None)
                    || operations.has_mention(RequestPart::Query, word, None)
            }
            Condition::Operation { name, .. } => {
                operations.has_mention(RequestPart::Query, AWS_ACTION, Some(name))
                    || operations.has_mention(RequestPart::Body, AWS_ACTION, Some(name))
                    || operations.names_target(name)
                    || is_in_path()
            }
        }
    }
}

impl Template {
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

impl Denial {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CanonicalPath;

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
