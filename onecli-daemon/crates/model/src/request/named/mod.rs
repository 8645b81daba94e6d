//! Resources that a request names in addition to its URL: the source of a copy, the target of a move.
//!
//! A server acts on such a resource with the request's credential. Policy therefore matches it like the request's own
//! host and path. Bodies are not read for it.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::host::authority::Authority;
use crate::path::CanonicalPath;
use buckets::{Hosting, Split, hosting};
pub use fields::folded_name;
use fields::{Form, of_field, of_parameter};

mod buckets;
mod fields;

/// The maximum number of resources that a request may name in addition to its URL.
pub const MAX_NAMED: usize = 8;

/// A resource that a header or a query parameter names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedResource {
    /// The name of the header or parameter, in lower case and truncated to 64 characters.
    pub field: String,
    /// The server's use of the resource as a method: GET for a source, PUT for a destination.
    pub use_as: Method,
    /// Every place that a server may resolve the name to. Policy must allow all of them. Empty if the name cannot be
    /// read.
    pub places: Vec<(Authority, CanonicalPath)>,
    /// Whether the resource is every object whose name begins like these places.
    pub is_prefix: bool,
}

/// The places at which a server may find a resource; `None` if the name cannot be read.
type ResourceUrls = Option<Vec<(Authority, CanonicalPath)>>;

/// The request in which a resource is named.
#[derive(Debug)]
pub struct Naming<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Its host and port.
    pub authority: &'r Authority,
    /// Its path.
    pub path: &'r CanonicalPath,
}

/// Returns whether a header field with this [`folded_name`] may name a resource, or the account of one.
pub fn is_naming_field(name: &str) -> bool {
    let copy = Method::from_bytes(b"COPY").unwrap_or_default();
    name.ends_with("-account") || of_field(name, b"saveas", &copy).is_some()
}

/// Returns the resources that header fields and query parameters of a request name. `fields` provides names and
/// values, which need not be UTF-8. `None` if there are more than [`MAX_NAMED`].
pub fn named_resources<'f, I: Iterator<Item = (&'f str, &'f [u8])>>(
    request: &Naming<'_>,
    fields: impl Fn() -> I,
    query: Option<&str>,
) -> Option<Vec<NamedResource>> {
    let query = query.unwrap_or_default();
    let mut named = Vec::new();
    for (name, value) in fields() {
        let folded = folded_name(name);
        if let Some(form) = of_field(&folded, value, request.method) {
            request.read(form, name, value, |wanted| accounts(fields(), query, wanted), &mut named);
        }
        if named.len() > MAX_NAMED {
            return None;
        }
    }
    for (name, value) in pairs(query) {
        if let Some(form) = of_parameter(&folded_name(&name), &value, request.method) {
            let accounts = |wanted: &str| accounts(fields(), query, wanted);
            request.read(form, &name, value.as_bytes(), accounts, &mut named);
        }
        if named.len() > MAX_NAMED {
            return None;
        }
    }
    request.mount(query, &mut named);
    (named.len() <= MAX_NAMED).then_some(named)
}

/// Returns every value of this account field, because a server may use any of them. At most one more than
/// [`MAX_NAMED`].
fn accounts<'f>(fields: impl Iterator<Item = (&'f str, &'f [u8])>, query: &str, wanted: &str) -> Vec<String> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let in_fields = fields
        .filter(|(name, _)| folded_name(name) == wanted)
        .map(|(_, value)| String::from_utf8_lossy(value).trim().to_owned());
    let in_query =
        pairs(query).filter(|(name, _)| folded_name(name) == wanted).map(|(_, value)| value.into());
    in_fields.chain(in_query).take(MAX_NAMED + 1).collect()
}

/// Returns the parameters of a query, decoded, in every way in which servers split it. Some servers split at `;`, and
/// others treat it as part of the value.
fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let parts = query.split('&').flat_map(|part| {
        let whole = part.contains(';').then_some(part);
        part.split(';').chain(whole)
    });
    parts.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).decode_utf8_lossy(), percent_decode_str(value).decode_utf8_lossy())
    })
}

impl Naming<'_> {
    fn read(
        &self,
        form: Form,
        field: &str,
        value: &[u8],
        accounts: impl Fn(&str) -> Vec<String>,
        named: &mut Vec<NamedResource>,
    ) {
        let text = std::str::from_utf8(value).map_or("\0", str::trim);
        if form == Form::Tagged {
            let tagged = tags(text).filter(|tag| tag.contains('/'));
            named.extend(tagged.take(MAX_NAMED + 1).map(|tag| resource(field, self.path_or_url(tag))));
            return;
        }
        let places = match form {
            Form::Bucket => self.bucket(text),
            Form::Destination => self.destination(text, &accounts("destination-account")),
            Form::Container(field) => self.container(text, &accounts(field)),
            Form::Prefix => self.prefix(text),
            Form::Path => self.path_or_url(text),
            Form::Namespace => self.namespace(text),
            Form::Tagged | Form::Unreadable => None,
        };
        named.push(NamedResource { is_prefix: form == Form::Prefix, ..resource(field, places) });
    }

    fn here(&self, path: &str) -> Option<(Authority, CanonicalPath)> {
        Some((self.authority.clone(), CanonicalPath::parse(path).ok()?))
    }

    /// Reads `http://host/path?query` or `/path?query`.
    fn path_or_url(&self, text: &str) -> ResourceUrls {
        if let Some(place) = url(text) {
            return Some(vec![place.ok()?]);
        }
        let path = text.split('?').next().unwrap_or_default();
        if is_reference(path) {
            return None;
        }
        Some(vec![self.here(&rooted(path))?])
    }

    fn bucket(&self, text: &str) -> ResourceUrls {
        if let Some(place) = url(text) {
            return Some(vec![place.ok()?]);
        }
        // The version is not part of the name. Any other text after a `?` might be.
        let (path, version) = text.split_once('?').unwrap_or((text, ""));
        if !(version.is_empty() || version.starts_with("versionId=")) || path.starts_with("arn:") {
            return None;
        }
        // Servers decode the value as a whole, so some clients escape its slashes too.
        let path = path.replace("%2F", "/").replace("%2f", "/");
        let (bucket, key) = path.strip_prefix('/').unwrap_or(&path).split_once('/')?;
        if bucket.is_empty() {
            return None;
        }
        if !path.starts_with('/') && bucket.contains(".cos.") {
            let host = Authority::parse(bucket, Some(self.authority.port())).ok()?;
            return Some(vec![(host, object(key)?)]);
        }
        let whole = format!("/{bucket}/{key}");
        match hosting(self.authority.host()) {
            Hosting::Path => {
                // The first label of the host may still be the bucket.
                let name = self.authority.host().as_name().unwrap_or_default();
                let is_own = name.split('.').next() == Some(bucket);
                let below = is_own.then(|| Some((self.authority.clone(), object(key)?)));
                let places = below.into_iter().chain([self.here(&whole)]);
                places.collect()
            }
            Hosting::Host(split) => Some(vec![self.in_host(split, bucket, key)?]),
            Hosting::Either(split) => Some(vec![self.in_host(split, bucket, key)?, self.here(&whole)?]),
            Hosting::AccessPoint => None,
        }
    }

    /// Returns an object in a bucket whose name precedes the endpoint.
    fn in_host(&self, own: Split<'_>, bucket: &str, key: &str) -> Option<(Authority, CanonicalPath)> {
        // Directory buckets have separate endpoints.
        if own.endpoint.contains(".amazonaws.")
            && bucket.ends_with("--x-s3") != own.bucket.ends_with("--x-s3")
        {
            return None;
        }
        if bucket == own.bucket {
            return Some((self.authority.clone(), object(key)?));
        }
        let other = format!("{bucket}{}:{}", own.endpoint, self.authority.port());
        Some((Authority::parse(&other, None).ok()?, object(key)?))
    }

    fn destination(&self, text: &str, accounts: &[String]) -> ResourceUrls {
        if text.contains("://") {
            return self.path_or_url(text);
        }
        let swift = self.container(text, accounts);
        if !text.starts_with('/') {
            return swift;
        }
        let mut places = self.path_or_url(text)?;
        if swift.is_none() && !accounts.is_empty() {
            return None;
        }
        places.extend(swift.into_iter().flatten());
        Some(places)
    }

    /// Returns the places below `/v1/ACCOUNT` for each of the accounts. `None` if the request's path does not begin
    /// in this way.
    fn container(&self, text: &str, accounts: &[String]) -> ResourceUrls {
        let text = text.split('?').next().unwrap_or_default();
        let object = text.strip_prefix('/').unwrap_or(text);
        let mut segments = self.path.segments();
        let (version, own) = (segments.next()?, segments.next()?);
        segments.next()?;
        if accounts.len() > MAX_NAMED {
            return None;
        }
        let of = |account: &str| self.here(&format!("/{version}/{account}/{object}"));
        if accounts.is_empty() {
            return Some(vec![of(own)?]);
        }
        accounts.iter().map(|account| of(account)).collect()
    }

    /// `/v1/secret/x` in the namespace `a/b` is `/v1/a/b/secret/x`.
    fn namespace(&self, text: &str) -> ResourceUrls {
        let (version, rest) = self.path.as_str()[1..].split_once('/')?;
        let text = text.trim_matches('/');
        Some(vec![self.here(&format!("/{version}/{text}/{rest}"))?])
    }

    /// Two names with this prefix represent all of them: one in the same container, and one below.
    fn prefix(&self, text: &str) -> ResourceUrls {
        let text = text.split('?').next().unwrap_or_default();
        let text =
            if text.trim_start_matches('/').contains('/') { text.to_owned() } else { format!("{text}/") };
        let mut places = self.container(&format!("{text}~"), &[])?;
        places.extend(self.container(&format!("{text}~/~"), &[])?);
        Some(places)
    }

    /// `POST .../blobs/uploads/?mount=DIGEST&from=NAME` copies a layer from another repository (OCI distribution
    /// specification, "Mounting a blob from another repository"). Without `from`, the registry chooses the
    /// repository.
    fn mount(&self, query: &str, named: &mut Vec<NamedResource>) {
        let of = |wanted: &'static str| {
            pairs(query).filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
        };
        if of("mount").next().is_none() || *self.method != Method::POST || !self.is_upload() {
            return;
        }
        for digest in of("mount").take(MAX_NAMED + 1) {
            for from in of("from").take(MAX_NAMED + 1) {
                named.push(resource("from", self.repository(&from, &digest)));
            }
        }
        if of("from").next().is_none() {
            named.push(resource("mount", None));
        }
    }

    /// Returns whether a server might read the path as `/v2/NAME/blobs/uploads/`.
    fn is_upload(&self) -> bool {
        self.path.ambiguity().is_some() || self.path.as_str().to_ascii_lowercase().contains("/blobs/uploads")
    }

    /// Returns a blob in another repository of the same registry, which may be below a prefix.
    fn repository(&self, name: &str, digest: &str) -> ResourceUrls {
        let own = self.path.as_str();
        let is_root = |at: &usize| own[*at..].starts_with("/v2/");
        let slashes = own.match_indices('/').map(|(at, _)| at);
        let mut prefixes: Vec<&str> = slashes.filter(is_root).map(|at| &own[..at]).collect();
        if prefixes.len() > MAX_NAMED {
            return None;
        }
        if prefixes.is_empty() {
            prefixes.push("");
        }
        prefixes.iter().map(|prefix| self.here(&format!("{prefix}/v2/{name}/blobs/{digest}"))).collect()
    }
}

/// Returns the path of a key below its bucket. `None` if a server might resolve it to a place outside the bucket.
fn object(key: &str) -> Option<CanonicalPath> {
    let path = CanonicalPath::parse(&format!("/{key}")).ok()?;
    (!path.may_climb()).then_some(path)
}

fn rooted(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') { Cow::Borrowed(path) } else { format!("/{path}").into() }
}

/// Returns whether this is a URL without its scheme (`//host/path`), or with a scheme in another format
/// (`https:path`).
fn is_reference(path: &str) -> bool {
    let two = path.get(..2).is_some_and(|two| two.bytes().all(|byte| matches!(byte, b'/' | b'\\')));
    let first = path.split('/').next().unwrap_or_default();
    two || first.contains(':')
}

fn resource(field: &str, places: ResourceUrls) -> NamedResource {
    let writes = matches!(&*folded_name(field), "destination" | "x-versions-location" | "x-history-location");
    let use_as = if writes { Method::PUT } else { Method::GET };
    let field = folded_name(field).chars().take(64).collect();
    NamedResource { field, use_as, places: places.unwrap_or_default(), is_prefix: false }
}

/// Parses a URL's host and path. `None` if the text is not a URL, an error if the URL cannot be read.
fn url(text: &str) -> Option<Result<(Authority, CanonicalPath), Unreadable>> {
    let (scheme, rest) = text.split_once("://")?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" => 80,
        _ => return Some(Err(Unreadable)),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let place = || {
        let path = if path.is_empty() { "/" } else { path };
        Some((Authority::parse(authority, Some(port)).ok()?, CanonicalPath::parse(path).ok()?))
    };
    Some(place().ok_or(Unreadable))
}

/// A URL without a readable host and path.
struct Unreadable;

/// Returns the texts in angle brackets outside of parentheses.
fn tags(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find(['<', '('])?;
            let close = if rest[at..].starts_with('<') { '>' } else { ')' };
            let inner = &rest[at + 1..];
            let end = inner.find(close).unwrap_or(inner.len());
            rest = inner.get(end + 1..).unwrap_or_default();
            if close == '>' {
                return Some(&inner[..end]);
            }
        }
    })
}

#[cfg(test)]
mod tests;
