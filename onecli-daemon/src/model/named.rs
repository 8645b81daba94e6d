//! Resources that a request names besides its URL: the source of a copy, the target of a move.
//!
//! A server acts on such a resource with the request's credential. Policy therefore matches it like the request's own
//! host and path. Bodies are not read for it.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::authority::Authority;
use super::path::CanonicalPath;

/// Most resources that a request may name besides its URL.
pub const MAX_NAMED: usize = 8;

/// A resource that a header or a query parameter names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedResource {
    /// The name of the header or parameter, in lower case; at most 64 characters of it.
    pub field: String,
    /// How a server uses it, as a method: GET for a source, PUT for a destination.
    pub use_as: Method,
    /// Every place that a server may take it for. Policy must allow all of them. Empty if it cannot be read.
    pub places: Vec<(Authority, CanonicalPath)>,
}

/// The request in which a resource is named.
#[derive(Debug)]
pub struct Naming<'r> {
    /// Its method.
    pub method: &'r Method,
    /// Where it goes.
    pub authority: &'r Authority,
    /// Its path.
    pub path: &'r CanonicalPath,
}

/// How a value names its resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// URL, or `/bucket/key`, where the bucket may be the first label of the host; COS: `host/key`.
    Bucket,
    /// URL, or a path below the same host (in a bucket's host: the same bucket).
    Path,
    /// URL or absolute path (RFC 4918 section 10.3), or `container/object` (Swift) below the account in the URL.
    Destination,
    /// `container/object` below the account in the URL, or below the one that this field names (Swift).
    Container(&'static str),
    /// URLs in angle brackets outside of parentheses: the tagged lists of `If` (RFC 4918 section 10.4).
    Tagged,
}

/// Endings of fields that name a source: AWS S3, Azure, Google, and the services that copied the form (Alibaba OSS,
/// Baidu BCE, Huawei OBS, JD, Kingsoft KS3, `NetEase` NOS, `QingStor`, Tencent COS, `UCloud`, Upyun, Volcengine TOS).
const SOURCES: [&str; 3] = ["-copy-source", "-move-source", "-rename-source"];

/// Fields with names of their own.
const NAMES: [(&str, Form); 5] = [
    ("destination", Form::Destination),
    ("if", Form::Tagged),
    // Swift: "Copy object" and "Create or replace object" of the Object Storage API reference.
    ("x-copy-from", Form::Container("x-copy-from-account")),
    // Alibaba OSS, PutSymlink: a later GET of the link answers with this object.
    ("x-oss-symlink-target", Form::Path),
    // Azure Page Blob, Get Page Ranges.
    ("x-ms-previous-snapshot-url", Form::Path),
];

/// In a host's name, what stands behind the bucket.
const BUCKET_ENDS: [&str; 8] =
    [".s3.", ".s3-", ".oss-", ".cos.", ".obs.", ".tos-", ".ks3-", ".storage.googleapis.com"];

/// How a field's name reads to servers that take any other character for `-` (CGI, WSGI), in lower case.
pub fn folded_name(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return Cow::Borrowed(name);
    }
    let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    Cow::Owned(name.chars().map(fold).collect())
}

fn form_of(name: &str, method: &Method) -> Option<Form> {
    if SOURCES.iter().any(|end| name.ends_with(end)) {
        return Some(Form::Bucket);
    }
    let form = NAMES.iter().find(|(own, _)| *own == name).map(|(_, form)| *form)?;
    // Elsewhere, `Destination` is a field of the application.
    let moves = || matches!(method.as_str(), "COPY" | "MOVE");
    (form != Form::Destination || moves()).then_some(form)
}

/// The resources that header fields and query parameters of a request name. `fields` gives names and values, which need
/// not be UTF-8. `None`: more than [`MAX_NAMED`].
pub fn named_resources<'f, I: Iterator<Item = (&'f str, &'f [u8])>>(
    request: &Naming<'_>,
    fields: impl Fn() -> I,
    query: Option<&str>,
) -> Option<Vec<NamedResource>> {
    let mut named = Vec::new();
    for (name, value) in fields() {
        let folded = folded_name(name);
        if let Some(form) = form_of(&folded, request.method) {
            let account =
                |wanted: &str| fields().find(|(name, _)| folded_name(name) == wanted).map(|(_, value)| value);
            request.read(form, name, value, account, &mut named);
        }
        if named.len() > MAX_NAMED {
            return None;
        }
    }
    for (name, value) in pairs(query.unwrap_or_default()) {
        // SDKs of AWS move headers of a presigned request into its query.
        if let Some(form) = form_of(&folded_name(&name), request.method).filter(|form| *form == Form::Bucket)
        {
            request.read(form, &name, value.as_bytes(), |_| None, &mut named);
        }
        if named.len() > MAX_NAMED {
            return None;
        }
    }
    request.mount(query.unwrap_or_default(), &mut named);
    Some(named)
}

/// Parameters of a query that may name a resource, decoded.
fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split(['&', ';']).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode_str(name).decode_utf8_lossy(), percent_decode_str(value).decode_utf8_lossy())
    })
}

impl Naming<'_> {
    fn read<'v>(
        &self,
        form: Form,
        field: &str,
        value: &'v [u8],
        account: impl Fn(&str) -> Option<&'v [u8]>,
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
            Form::Destination => {
                let swift = account("destination-account").map(String::from_utf8_lossy);
                self.destination(text, swift.as_deref())
            }
            Form::Container(field) => {
                self.container(text, account(field).map(String::from_utf8_lossy).as_deref())
            }
            Form::Path | Form::Tagged => self.path_or_url(text),
        };
        named.push(resource(field, places));
    }

    /// `http://host/path?query` or `/path?query`.
    fn path_or_url(&self, text: &str) -> Option<Vec<(Authority, CanonicalPath)>> {
        if let Some(place) = url(text) {
            return Some(vec![place.ok()?]);
        }
        let path = text.split('?').next().unwrap_or_default();
        let path = if path.starts_with('/') { Cow::Borrowed(path) } else { format!("/{path}").into() };
        Some(vec![(self.authority.clone(), CanonicalPath::parse(&path).ok()?)])
    }

    fn bucket(&self, text: &str) -> Option<Vec<(Authority, CanonicalPath)>> {
        if let Some(place) = url(text) {
            return Some(vec![place.ok()?]);
        }
        // The version is no part of the name; anything else behind a `?` might be.
        let (path, version) = text.split_once('?').unwrap_or((text, ""));
        if !(version.is_empty() || version.starts_with("versionId=")) || path.starts_with("arn:") {
            return None;
        }
        let (bucket, key) = path.strip_prefix('/').unwrap_or(path).split_once('/')?;
        if !path.starts_with('/') && bucket.contains(".cos.") {
            let host = Authority::parse(bucket, Some(self.authority.port())).ok()?;
            return Some(vec![(host, CanonicalPath::parse(&format!("/{key}")).ok()?)]);
        }
        let host = self.authority.host().to_string();
        let end = BUCKET_ENDS.iter().filter_map(|end| host.find(end)).min();
        let own = end.map(|end| &host[..end]).or_else(|| host.split_once('.').map(|(first, _)| first));
        let here = |path: String| Some((self.authority.clone(), CanonicalPath::parse(&path).ok()?));
        let (below, whole) = (format!("/{key}"), format!("/{bucket}/{key}"));
        Some(match (own, end) {
            (Some(own), Some(_)) if own == bucket => vec![here(below)?],
            (_, Some(end)) => {
                let other = format!("{bucket}{}:{}", &host[end..], self.authority.port());
                vec![(Authority::parse(&other, None).ok()?, CanonicalPath::parse(&below).ok()?)]
            }
            // The first label may be the bucket, or a part of the server's name.
            (Some(own), None) if own == bucket => vec![here(below)?, here(whole)?],
            _ => vec![here(whole)?],
        })
    }

    fn destination(&self, text: &str, account: Option<&str>) -> Option<Vec<(Authority, CanonicalPath)>> {
        let swift = (!text.contains("://")).then(|| self.container(text, account)).flatten();
        if !text.contains("://") && !text.starts_with('/') {
            return swift;
        }
        let mut places = self.path_or_url(text)?;
        places.extend(swift.into_iter().flatten());
        Some(places)
    }

    /// Below `/v1/ACCOUNT`; `None` where the request's path has no such beginning.
    fn container(&self, text: &str, account: Option<&str>) -> Option<Vec<(Authority, CanonicalPath)>> {
        let mut segments = self.path.segments();
        let (version, own) = (segments.next()?, segments.next()?);
        segments.next()?;
        let account = account.unwrap_or(own);
        let text = text.split('?').next().unwrap_or_default();
        let path = format!("/{version}/{account}/{}", text.strip_prefix('/').unwrap_or(text));
        Some(vec![(self.authority.clone(), CanonicalPath::parse(&path).ok()?)])
    }

    /// `POST .../blobs/uploads/?mount=DIGEST&from=NAME` takes a layer of another repository (OCI distribution
    /// specification, "Mounting a blob from another repository").
    fn mount(&self, query: &str, named: &mut Vec<NamedResource>) {
        let of = |wanted: &str| pairs(query).find(|(name, _)| name == wanted).map(|(_, value)| value);
        let uploads = self.path.as_str().trim_end_matches('/').ends_with("/blobs/uploads");
        if let (true, Some(digest), Some(from)) = (uploads, of("mount"), of("from")) {
            let path = CanonicalPath::parse(&format!("/v2/{from}/blobs/{digest}")).ok();
            let places = path.map(|path| vec![(self.authority.clone(), path)]);
            named.push(resource("from", places));
        }
    }
}

fn resource(field: &str, places: Option<Vec<(Authority, CanonicalPath)>>) -> NamedResource {
    let use_as = if folded_name(field) == "destination" { Method::PUT } else { Method::GET };
    let field = folded_name(field).chars().take(64).collect();
    NamedResource { field, use_as, places: places.unwrap_or_default() }
}

/// A URL's host and path: `None` for what is no URL, an error for one that cannot be read.
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

/// A URL that names no host and path.
struct Unreadable;

/// What stands in angle brackets outside of parentheses.
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
