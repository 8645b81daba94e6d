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
mod tests {
    use super::*;

    /// The places of a request's resources, as text, `?` for one that cannot be read.
    fn places(line: &str, fields: &[(&str, &str)]) -> Vec<String> {
        let (method, url) = line.split_once(' ').unwrap();
        let (authority, path) = url.split_at(url.find('/').unwrap());
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let request = Naming {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            authority: &Authority::parse(authority, Some(443)).unwrap(),
            path: &CanonicalPath::parse(path).unwrap(),
        };
        let fields = || fields.iter().map(|(name, value)| (*name, value.as_bytes()));
        let named = named_resources(&request, fields, query).unwrap();
        let text = |(authority, path): &(Authority, CanonicalPath)| format!("{authority}{path}");
        let all = |one: &NamedResource| match one.places.as_slice() {
            [] => vec!["?".to_owned()],
            places => places.iter().map(text).collect(),
        };
        named.iter().flat_map(all).collect()
    }

    #[test]
    fn sources_of_copies() {
        let check = |host: &str, name: &str, value: &str, expected: &str| {
            assert_eq!(
                places(&format!("PUT {host}/x"), &[(name, value)]),
                [expected],
                "{host} {name} {value}"
            );
        };
        let amz = "x-amz-copy-source";
        check("s3.test", amz, "/b/private/k?versionId=3", "s3.test:443/b/private/k");
        check("s3.test", amz, "b/private/k%20x", "s3.test:443/b/private/k%20x");
        check("s3.test", "x_amz_copy_source", "/b/k", "s3.test:443/b/k");
        assert_eq!(places("PUT b.test/x", &[(amz, "/b/k")]), ["b.test:443/k", "b.test:443/b/k"]);
        check("b.s3.eu-west-1.amazonaws.com", amz, "/b/k", "b.s3.eu-west-1.amazonaws.com:443/k");
        check("b.s3.eu-west-1.amazonaws.com", amz, "/c/k", "c.s3.eu-west-1.amazonaws.com:443/k");
        check("b.c.s3-fips.us-east-1.amazonaws.com", amz, "/d/k", "d.s3-fips.us-east-1.amazonaws.com:443/k");
        check("s3.test", amz, "arn:aws:s3:eu-west-1:1:accesspoint/a/object/k", "?");
        check("s3.test", amz, "/b/k?x", "?");
        check("s3.test", amz, "/b/é", "?");
        check("s3.test", amz, "k", "?");
        check(
            "b-1.cos.ap-x.myqcloud.com",
            "x-cos-copy-source",
            "c-1.cos.ap-x.myqcloud.com/k",
            "c-1.cos.ap-x.myqcloud.com:443/k",
        );
        check("a.blob.test", "x-ms-copy-source", "https://b.blob.test/c/d?sig=1", "b.blob.test:443/c/d");
        check("a.blob.test", "x-ms-copy-source", "https://me@b.test/c", "?");
        check("a.dfs.test", "x-ms-rename-source", "/fs/p", "a.dfs.test:443/fs/p");
        check("a.test", "x-ms-previous-snapshot-url", "https://a.test/p", "a.test:443/p");
        check(
            "b.oss-x.aliyuncs.com",
            "x-oss-symlink-target",
            "private/k",
            "b.oss-x.aliyuncs.com:443/private/k",
        );
        for service in ["goog", "oss", "bce", "obs", "tos", "kss", "nos", "qs", "upyun"] {
            check("h.test", &format!("x-{service}-copy-source"), "/b/k", "h.test:443/b/k");
            check("h.test", &format!("x-{service}-move-source"), "/b/k", "h.test:443/b/k");
        }
    }

    #[test]
    fn destinations_and_tags() {
        let destination = |line: &str, value: &str| places(line, &[("Destination", value)]);
        assert_eq!(destination("COPY h.test/a/b", "https://h.test/c"), ["h.test:443/c"]);
        assert_eq!(destination("MOVE h.test/a", "/c/d"), ["h.test:443/c/d"]);
        assert_eq!(destination("COPY h.test/v1/A/c/o", "/d/p"), ["h.test:443/d/p", "h.test:443/v1/A/d/p"]);
        assert_eq!(destination("COPY h.test/v1/A/c/o", "d/p"), ["h.test:443/v1/A/d/p"]);
        assert_eq!(destination("COPY h.test/a", "d/p"), ["?"]);
        assert!(destination("GET h.test/a", "JFK").is_empty());
        let account = [("Destination", "d/p"), ("Destination-Account", "B")];
        assert_eq!(places("COPY h.test/v1/A/c/o", &account), ["h.test:443/v1/B/d/p"]);
        assert_eq!(places("PUT h.test/v1/A/c/o", &[("X-Copy-From", "/d/p")]), ["h.test:443/v1/A/d/p"]);
        let from = [("X-Copy-From-Account", "B"), ("X-Copy-From", "d/p")];
        assert_eq!(places("PUT h.test/v1/A/c/o", &from), ["h.test:443/v1/B/d/p"]);
        let lists = "<https://h.test/a> (<urn:x> [\"e\"]) </b> (Not <DAV:no-lock>)";
        assert_eq!(places("PUT h.test/x", &[("If", lists)]), ["h.test:443/a", "h.test:443/b"]);
        assert!(places("PUT h.test/x", &[("If", "(<opaquelocktoken:1/2>)")]).is_empty());
    }

    #[test]
    fn queries_name_resources_too() {
        assert_eq!(places("PUT h.test/x?X-Amz-Copy-Source=%2Fb%2Fk", &[]), ["h.test:443/b/k"]);
        let mount = "POST h.test/v2/mine/app/blobs/uploads/?mount=sha256:1&from=other/app";
        assert_eq!(places(mount, &[]), ["h.test:443/v2/other/app/blobs/sha256:1"]);
        assert!(places("POST h.test/x?mount=a&from=b", &[]).is_empty());
    }

    #[test]
    fn their_number_is_bounded() {
        let authority = Authority::parse("h.test", Some(443)).unwrap();
        let path = CanonicalPath::parse("/x").unwrap();
        let request = Naming { method: &Method::PUT, authority: &authority, path: &path };
        let of = |count: usize| {
            let fields = || std::iter::repeat_n(("x-amz-copy-source", &b"/b/k"[..]), count);
            named_resources(&request, fields, None).map(|named| named.len())
        };
        assert_eq!((of(MAX_NAMED), of(MAX_NAMED + 1)), (Some(MAX_NAMED), None));
        let lists = "<http://h/>".repeat(1000);
        assert!(named_resources(&request, || std::iter::once(("if", lists.as_bytes())), None).is_none());
    }
}
