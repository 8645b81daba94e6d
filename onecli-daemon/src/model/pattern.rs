//! Where a secret may go: patterns over hosts, methods and paths. Checked when they are stored.

use std::fmt;
use std::str::FromStr;

use http::Method;
use serde::{Deserialize, Serialize};

use super::authority::{AuthorityError, Host};
use super::path::{CanonicalPath, PathError};

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The host part does not parse.
    #[error("bad host pattern '{pattern}': {source}")]
    Host {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with its host.
        source: AuthorityError,
    },
    /// A wildcard over a public suffix would match hosts of unrelated owners.
    #[error(
        "bad host pattern '{pattern}': '{suffix}' is a public suffix, whose names belong to different owners"
    )]
    PublicSuffix {
        /// The pattern as it was given.
        pattern: String,
        /// The public suffix (publicsuffix.org).
        suffix: String,
    },
    /// `*` anywhere but as the whole first label.
    #[error("bad host pattern '{0}': '*.' or '**.' may only stand at the beginning, before a DNS name")]
    Wildcard(String),
    /// The path part does not parse.
    #[error("bad path pattern '{pattern}': {source}")]
    Path {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        source: PathError,
    },
    /// The pattern itself holds what servers read in different ways.
    #[error("bad path pattern '{pattern}': it holds {ambiguity}, which servers read in different ways")]
    AmbiguousPath {
        /// The pattern as it was given.
        pattern: String,
        /// What is ambiguous.
        ambiguity: super::path::Ambiguity,
    },
    /// Not a method name (RFC 9110 section 9.1), or one that is never forwarded.
    #[error("bad method '{0}': give a method name such as GET or POST (CONNECT and TRACE are never allowed)")]
    Method(String),
    /// More hosts than one secret may have.
    #[error("more than {0} hosts: use a wildcard, or another secret")]
    TooManyHosts(usize),
}

/// A set of hosts: `api.x.com`, `*.x.com` (one label), `**.x.com` (any depth), or an address literal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This host only.
    Exact(Host),
    /// Exactly one label before this suffix.
    OneLabel(String),
    /// One or more labels before this suffix.
    AnyDepth(String),
}

impl HostPattern {
    /// Does the pattern contain `host`?
    pub fn matches(&self, host: &Host) -> bool {
        match self {
            HostPattern::Exact(own) => own == host,
            HostPattern::OneLabel(suffix) => {
                prefix_of(host, suffix).is_some_and(|prefix| !prefix.contains('.'))
            }
            HostPattern::AnyDepth(suffix) => prefix_of(host, suffix).is_some(),
        }
    }

    /// Parses a pattern that may stand for hosts of unrelated owners, such as `**.com`: only to refuse them.
    ///
    /// # Errors
    /// As [`HostPattern::from_str`], but for [`PatternError::PublicSuffix`].
    pub fn of_any_owner(text: &str) -> Result<HostPattern, PatternError> {
        HostPattern::parse(text, |_| true)
    }

    /// Greater is more specific: exact, then one label, then any depth; longer suffixes first.
    pub fn specificity(&self) -> (u8, usize) {
        match self {
            HostPattern::Exact(_) => (2, 0),
            HostPattern::OneLabel(suffix) => (1, suffix.len()),
            HostPattern::AnyDepth(suffix) => (0, suffix.len()),
        }
    }
}

/// The labels of `host` before `.suffix`.
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
    /// `may` tells whether a wildcard may stand before this suffix.
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
/// `/v1/**` matches everything below `/v1/`, not `/v1` itself; `/a/**/b` matches `/a/b` too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    Glob(String),
    AnyDepth,
}

impl PathPattern {
    /// The pattern that matches every path: `/**`.
    pub fn everything() -> PathPattern {
        PathPattern { text: "/**".to_owned(), segments: vec![Segment::AnyDepth] }
    }

    /// Does it match every path, ambiguous ones too?
    pub fn is_everything(&self) -> bool {
        self.segments == [Segment::AnyDepth]
    }

    /// Does the pattern contain `path`? An ambiguous path is only in `/**`.
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        if self.is_everything() {
            return true;
        }
        if path.ambiguity().is_some() {
            return false;
        }
        let segments: Vec<&str> = path.segments().collect();
        matches_segments(&self.segments, &segments)
    }

    /// Could some server take `path` for one that the pattern contains? For what refuses: a path that servers read in
    /// different ways is in every pattern, and letter case, escapes and a slash at the end tell nothing apart.
    pub fn matches_any_spelling(&self, path: &CanonicalPath) -> bool {
        if self.is_everything() || path.ambiguity().is_some() {
            return true;
        }
        let folded: Vec<String> = path.segments().map(fold).collect();
        let mut segments: Vec<&str> = folded.iter().map(String::as_str).collect();
        if segments.len() > 1 && segments.last() == Some(&"") {
            segments.pop();
        }
        let pattern: Vec<Segment> = self.segments.iter().map(Segment::folded).collect();
        if matches_segments(&pattern, &segments) {
            return true;
        }
        segments.push("");
        matches_segments(&pattern, &segments)
    }

    /// The same where `%2F` stands within segments: it separates nothing, and a path is no longer ambiguous for that alone.
    pub fn matches_opaque(&self, path: &CanonicalPath) -> bool {
        if self.matches(path) {
            return true;
        }
        path.is_plain_but_for_encoded_slashes()
            && matches_segments(&self.segments, &path.segments().collect::<Vec<_>>())
    }

    /// Greater is more specific: fewer `**`, more literal text.
    pub fn specificity(&self) -> (std::cmp::Reverse<usize>, usize) {
        let depth = self.segments.iter().filter(|s| **s == Segment::AnyDepth).count();
        let literal = self.text.bytes().filter(|b| *b != b'*').count();
        (std::cmp::Reverse(depth), literal)
    }
}

/// Glob matching with one remembered restart point, so at worst `pattern * path` steps.
fn matches_segments(pattern: &[Segment], path: &[&str]) -> bool {
    if let [rest @ .., Segment::AnyDepth] = pattern {
        // A last `**` wants at least one segment, an empty one after a trailing slash included.
        return (0..path.len()).any(|cut| matches_middle(rest, &path[..cut]));
    }
    matches_middle(pattern, path)
}

fn matches_middle(pattern: &[Segment], path: &[&str]) -> bool {
    let (mut p, mut s) = (0, 0);
    let mut restart = None;
    loop {
        match (pattern.get(p), path.get(s)) {
            (None, None) => return true,
            (Some(Segment::AnyDepth), _) => {
                p += 1;
                restart = Some((p, s));
                continue;
            }
            (Some(own), Some(segment)) if own.matches(segment) => {
                p += 1;
                s += 1;
                continue;
            }
            _ => {}
        }
        match restart {
            Some((after, from)) if from < path.len() => {
                restart = Some((after, from + 1));
                (p, s) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// A segment without its escapes and in lower case. What is not UTF-8 is one character like another.
fn fold(segment: &str) -> String {
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
    let text = String::from_utf8_lossy(&bytes).to_lowercase();
    // File systems of Windows, and servers on them, pass over what stands behind: `a.`, `a `, `a::$data`.
    let name = text.split_once("::").map_or(text.as_str(), |(name, _)| name);
    let bare = name.trim_end_matches(['.', ' ', '\t', '\0']);
    if bare.is_empty() { text } else { bare.to_owned() }
}

impl Segment {
    fn folded(&self) -> Segment {
        match self {
            // An escaped `*` becomes one that stands for anything: it refuses more, not less.
            Segment::Literal(own) | Segment::Glob(own) => Segment::Glob(fold(own)),
            Segment::AnyDepth => Segment::AnyDepth,
        }
    }

    fn matches(&self, segment: &str) -> bool {
        match self {
            Segment::Literal(own) => own == segment,
            Segment::Glob(own) => glob(own.as_bytes(), segment.as_bytes()),
            Segment::AnyDepth => true,
        }
    }
}

/// `*` is any run of bytes, the empty one too.
pub(super) fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut restart = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                p += 1;
                restart = Some((p, t));
                continue;
            }
            (Some(a), Some(b)) if a == b => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match restart {
            Some((after, from)) if from < text.len() => {
                restart = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<PathPattern, PatternError> {
        let path = CanonicalPath::parse(text)
            .map_err(|source| PatternError::Path { pattern: text.to_owned(), source })?;
        if let Some(ambiguity) = path.ambiguity() {
            return Err(PatternError::AmbiguousPath { pattern: text.to_owned(), ambiguity });
        }
        let segments = path
            .segments()
            .map(|segment| match segment {
                "**" => Segment::AnyDepth,
                glob if glob.contains('*') => Segment::Glob(glob.to_owned()),
                literal => Segment::Literal(literal.to_owned()),
            })
            .collect();
        Ok(PathPattern { text: path.as_str().to_owned(), segments })
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

/// The methods a secret may be used with; empty means all that are ever forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct MethodSet(Vec<Method>);

impl MethodSet {
    /// Is `method` in the set? CONNECT and TRACE never are.
    pub fn contains(&self, method: &Method) -> bool {
        *method != Method::CONNECT
            && *method != Method::TRACE
            && (self.0.is_empty() || self.0.contains(method))
    }

    /// Does it hold every method?
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<Vec<String>> for MethodSet {
    type Error = PatternError;

    /// Method names are case-sensitive (RFC 9110 section 9.1); lower-case input is raised, as people type it.
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
