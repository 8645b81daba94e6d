//! The destinations of a secret: patterns over hosts, methods and paths. They are validated when they are stored.

pub(crate) mod glob;
pub mod host_scope;
pub mod host_set;

use std::fmt;
use std::str::FromStr;

use http::Method;
use serde::{Deserialize, Serialize};

use self::glob::{End, Globs};
use crate::host::authority::{AuthorityError, Host};
use crate::path::{CanonicalPath, Names, PathError, PathReadings, fold};

mod covers;

/// The reason why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The host part does not parse.
    #[error("bad host pattern '{pattern}': {source}")]
    Host {
        /// The pattern as entered.
        pattern: String,
        /// The fault of its host.
        source: AuthorityError,
    },
    /// A wildcard over a public suffix would match hosts of unrelated owners.
    #[error(
        "bad host pattern '{pattern}': '{suffix}' is a public suffix, whose names belong to different owners"
    )]
    PublicSuffix {
        /// The pattern as entered.
        pattern: String,
        /// The public suffix (publicsuffix.org).
        suffix: String,
    },
    /// A `*` is not the whole first label.
    #[error("bad host pattern '{0}': '*.' or '**.' is only allowed at the beginning, before a DNS name")]
    Wildcard(String),
    /// The path part does not parse.
    #[error("bad path pattern '{pattern}': {source}")]
    Path {
        /// The pattern as entered.
        pattern: String,
        /// The fault of its path.
        source: PathError,
    },
    /// Servers read the path of the pattern in different ways.
    #[error("bad path pattern '{pattern}': it contains {ambiguity}, which servers read in different ways")]
    AmbiguousPath {
        /// The pattern as entered.
        pattern: String,
        /// The ambiguity.
        ambiguity: crate::path::Ambiguity,
    },
    /// The path pattern exceeds [`MAX_PATTERN`] or [`MAX_PATTERN_SEGMENTS`].
    #[error(
        "bad path pattern: it is longer than {MAX_PATTERN} bytes or has more than {MAX_PATTERN_SEGMENTS} segments; \
         use '**'"
    )]
    TooLong,
    /// The text is not a method name (RFC 9110 section 9.1), or names a method that is never forwarded.
    #[error("bad method '{0}': use a method name such as GET or POST (CONNECT and TRACE are never allowed)")]
    Method(String),
    /// The secret has more hosts than permitted.
    #[error("more than {0} hosts: use a wildcard, or another secret")]
    TooManyHosts(usize),
}

/// A set of hosts: `api.x.com`, `*.x.com` (one label), `**.x.com` (any depth), or an address literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// Exactly this host.
    Exact(Host),
    /// Exactly one label before this suffix.
    OneLabel(String),
    /// One or more labels before this suffix.
    AnyDepth(String),
}

impl HostPattern {
    /// Returns whether the pattern contains `host`.
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            HostPattern::Exact(own) => own == host,
            HostPattern::OneLabel(suffix) => {
                prefix_of(host, suffix).is_some_and(|prefix| !prefix.contains('.'))
            }
            HostPattern::AnyDepth(suffix) => prefix_of(host, suffix).is_some(),
        }
    }

    /// Parses a pattern that may cover hosts of unrelated owners, such as `**.com`. Such a pattern may only be used
    /// to refuse.
    ///
    /// # Errors
    /// As for [`HostPattern::from_str`], except [`PatternError::PublicSuffix`].
    pub fn of_any_owner(text: &str) -> Result<HostPattern, PatternError> {
        HostPattern::parse(text, |_| true)
    }

    /// Returns a rank; greater is more specific. Exact ranks first, then one label, then any depth; longer suffixes
    /// rank higher.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            HostPattern::Exact(_) => (2, 0),
            HostPattern::OneLabel(suffix) => (1, suffix.len()),
            HostPattern::AnyDepth(suffix) => (0, suffix.len()),
        }
    }
}

/// Returns the labels of `host` before `.suffix`.
fn prefix_of<'h>(host: &'h Host, suffix: &str) -> Option<&'h str> {
    host.as_name()?.strip_suffix(suffix)?.strip_suffix('.').filter(|prefix| !prefix.is_empty())
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<HostPattern, PatternError> {
        HostPattern::parse(text, |suffix| psl::suffix_str(suffix).is_none_or(|public| public != suffix))
    }
}

impl HostPattern {
    /// `may` returns whether a wildcard may precede this suffix.
    fn parse(text: &str, may: impl Fn(&str) -> bool) -> Result<HostPattern, PatternError> {
        let (any_depth, suffix) = match (text.strip_prefix("**."), text.strip_prefix("*.")) {
            (Some(suffix), _) => (true, suffix),
            (None, Some(suffix)) => (false, suffix),
            (None, None) => {
                if text.contains('*') {
                    return Err(PatternError::Wildcard(text.to_owned()));
                }
                let host =
                    text.parse().map_err(|source| PatternError::Host { pattern: text.to_owned(), source })?;
                return Ok(HostPattern::Exact(host));
            }
        };
        let host =
            suffix.parse().map_err(|source| PatternError::Host { pattern: text.to_owned(), source })?;
        let Host::Name(suffix) = host else {
            return Err(PatternError::Wildcard(text.to_owned()));
        };
        if !may(&suffix) {
            return Err(PatternError::PublicSuffix { pattern: text.to_owned(), suffix });
        }
        Ok(if any_depth { HostPattern::AnyDepth(suffix) } else { HostPattern::OneLabel(suffix) })
    }
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<HostPattern, PatternError> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> String {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => host.fmt(f),
            HostPattern::OneLabel(suffix) => write!(f, "*.{suffix}"),
            HostPattern::AnyDepth(suffix) => write!(f, "**.{suffix}"),
        }
    }
}

/// A set of paths: exact, or with `*` (any characters within a segment) and `**` (whole segments).
///
/// `/v1/**` matches everything below `/v1/`, not `/v1` itself; `/a/**/b` matches `/a/b` too. A pattern has at most
/// [`MAX_PATTERN`] bytes and [`MAX_PATTERN_SEGMENTS`] segments.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    text: String,
    /// The pattern as written.
    exact: Globs,
    /// The folded pattern, for comparison with every spelling of a path.
    folded: Globs,
}

/// The maximum length of a path pattern, in bytes.
pub const MAX_PATTERN: usize = 2048;
/// The maximum number of segments of a path pattern.
pub const MAX_PATTERN_SEGMENTS: usize = 64;

const EVERYTHING: &str = "/**";

impl PathPattern {
    /// Returns the pattern that matches every path: `/**`.
    pub fn everything() -> PathPattern {
        PathPattern::compile(EVERYTHING)
    }

    fn compile(text: &str) -> PathPattern {
        let segments = || text[1..].split('/');
        PathPattern {
            text: text.to_owned(),
            exact: Globs::new(segments(), End::Something, str::to_owned),
            // An escaped `*` becomes a wildcard here, so restrictions cover more, not less.
            folded: Globs::new(segments(), End::Something, |segment| fold(segment).into_owned()),
        }
    }

    /// Returns whether the pattern matches every path, including ambiguous ones.
    pub fn is_everything(&self) -> bool {
        self.text == EVERYTHING
    }

    /// Returns whether the pattern contains `path`. An ambiguous path is only in `/**`. A path with full-width
    /// delimiters is only in patterns that contain all of its readings.
    pub fn matches(&self, path: &PathReadings<'_>) -> bool {
        self.is_everything() || (path.ambiguity().is_none() && self.contains(path))
    }

    fn contains(&self, path: &PathReadings<'_>) -> bool {
        self.exact.matches(path.plain())
            && (!path.path().is_respelled() || path.spellings().all(|names| self.matches_folded(names)))
    }

    /// Servers treat a path with an empty segment at the end like the path without it.
    fn matches_folded(&self, names: Names<'_>) -> bool {
        self.folded.matches(names.without_last()) || self.folded.matches(names)
    }

    /// Returns whether some server could read `path` as one that the pattern contains. For restrictions: a path that
    /// servers read in different ways is in every pattern, and letter case, escapes and a slash at the end are
    /// ignored.
    pub fn matches_any_spelling(&self, path: &PathReadings<'_>) -> bool {
        self.is_everything()
            || path.ambiguity().is_some()
            || path.spellings().any(|names| self.matches_folded(names))
    }

    /// Matches like [`PathPattern::matches`] for services with `%2F` within segments. It separates nothing there, and
    /// a path is not ambiguous because of it alone.
    pub fn matches_opaque(&self, path: &PathReadings<'_>) -> bool {
        self.matches(path) || (path.is_plain_but_for_encoded_slashes() && self.contains(path))
    }

    /// Returns whether this pattern matches every path that `other` matches. `false` if that is not evident from the
    /// segments: see [`covers::covers`].
    pub fn covers(&self, other: &PathPattern) -> bool {
        covers::covers(&self.text, &other.text)
    }

    /// Returns a rank; greater is more specific. Fewer `**` rank first, then more literal text.
    pub fn specificity(&self) -> (std::cmp::Reverse<usize>, usize) {
        let depth = self.text.split('/').filter(|segment| *segment == "**").count();
        let literal = self.text.bytes().filter(|b| *b != b'*').count();
        (std::cmp::Reverse(depth), literal)
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &PathPattern) -> bool {
        self.text == other.text
    }
}

impl Eq for PathPattern {}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<PathPattern, PatternError> {
        let path = CanonicalPath::parse(text)
            .map_err(|source| PatternError::Path { pattern: text.to_owned(), source })?;
        if let Some(ambiguity) = path.ambiguity() {
            return Err(PatternError::AmbiguousPath { pattern: text.to_owned(), ambiguity });
        }
        if text.len() > MAX_PATTERN || path.segments().count() > MAX_PATTERN_SEGMENTS {
            return Err(PatternError::TooLong);
        }
        Ok(PathPattern::compile(path.as_str()))
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<PathPattern, PatternError> {
        text.parse()
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> String {
        pattern.text
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// The methods a secret may be used with. Empty means all methods that are ever forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct MethodSet(Vec<Method>);

impl MethodSet {
    /// Returns whether `method` is in the set. CONNECT and TRACE never are.
    pub fn contains(&self, method: &Method) -> bool {
        *method != Method::CONNECT
            && *method != Method::TRACE
            && (self.0.is_empty() || self.0.contains(method))
    }

    /// Returns whether every method of this set is in `other`.
    pub fn is_within(&self, other: &MethodSet) -> bool {
        other.is_all() || (!self.is_all() && self.0.iter().all(|method| other.0.contains(method)))
    }

    /// Returns whether the set contains every method.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for MethodSet {
    type Error = PatternError;

    /// Method names are case-sensitive (RFC 9110 section 9.1). Lower-case input is converted to upper case, because
    /// people type it.
    fn try_from(names: Vec<String>) -> Result<MethodSet, PatternError> {
        let mut methods = names
            .into_iter()
            .map(|name| match Method::from_bytes(name.to_ascii_uppercase().as_bytes()) {
                Ok(method) if method != Method::CONNECT && method != Method::TRACE => Ok(method),
                _ => Err(PatternError::Method(name.chars().flat_map(char::escape_default).collect())),
            })
            .collect::<Result<Vec<_>, _>>()?;
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        Ok(MethodSet(methods))
    }
}

impl From<MethodSet> for Vec<String> {
    fn from(set: MethodSet) -> Vec<String> {
        set.0.iter().map(|method| method.as_str().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests;
