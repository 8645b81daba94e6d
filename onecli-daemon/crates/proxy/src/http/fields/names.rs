//! Field names that a server behind the proxy may read as other names: CGI, WSGI and PHP treat `_` and some other
//! characters as `-`.

use http::{HeaderMap, HeaderName};
use onecli_model::named::folded_name;
use onecli_model::{Code, Refusal};

/// The members of a list field (RFC 9110 section 5.6.1), from all its lines. Lines that are not text are skipped.
pub(crate) fn members<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|member| !member.is_empty())
}

/// Fields that frame, route or authenticate a message, or describe its sender, in their regular spelling.
/// [`OVERRIDES`] has further ones.
const SENSITIVE: [&str; 24] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // The client's address, in the fields of proxies and content delivery networks.
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-real-ip",
];

/// Header fields that frameworks and gateways accept in place of the method or URL. Policy has judged the method and
/// URL only.
pub(crate) static OVERRIDES: [&str; 30] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-forwarded-method",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
    // Fields that override the host. In a multi-tenant service the host selects whose data is accessed.
    "forwarded",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-rewrite-host",
    // Fields in which reverse proxies pass the original URL to a service.
    "x-envoy-original-path",
    "x-ms-original-url",
    "x-waws-unencoded-url",
    "x-http-path-override",
    "x-path-override",
    "x-original-path",
    "x-rewrite-path",
    "x-request-uri",
    "x-script-name",
    // Rack::Sendfile reads these fields from requests, and maps files by them.
    "x-accel-mapping",
    "x-sendfile-type",
];

/// Headers that describe the body before a value was put into it.
pub(crate) static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// The header with the code of every refusal. A response from an upstream never passes with it.
pub(crate) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-onecli-error");

/// Returns whether a field of this name frames, routes or authenticates a message, describes its sender, or overrides
/// its method or URL.
pub(crate) fn is_sensitive(name: &str) -> bool {
    SENSITIVE.contains(&name) || OVERRIDES.contains(&name) || name.starts_with("x-forwarded-")
}

/// Refuses the first field whose name some server reads as a sensitive one, although it is a different name.
///
/// # Errors
/// [`Code::BadRequest`].
pub(crate) fn refuse_misread(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some((name, read)) = headers.keys().find_map(|name| {
        let name = name.as_str();
        let read = folded_name(name);
        (*read != *name && is_sensitive(&read)).then_some((name, read))
    }) else {
        return Ok(());
    };
    Err(Refusal::new(
        Code::BadRequest,
        format!("some servers read the header field '{name}' as '{read}'"),
        "spell the name with hyphens, or use another name",
    ))
}

/// Removes every field of this name, including spellings with `_`, which some servers read as the same name.
pub(crate) fn remove_copies(headers: &mut HeaderMap, name: &HeaderName) {
    let same = |other: &HeaderName| {
        other.as_str().len() == name.as_str().len()
            && other.as_str().bytes().zip(name.as_str().bytes()).all(|(a, b)| {
                let dash = |c: u8| if c == b'_' { b'-' } else { c };
                dash(a) == dash(b)
            })
    };
    let copies: Vec<HeaderName> = headers.keys().filter(|other| same(other)).cloned().collect();
    for copy in copies {
        headers.remove(copy);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn misread_names_are_refused() {
        let check = |name: &str, refused: bool| {
            let mut headers = HeaderMap::new();
            headers.append("accept", HeaderValue::from_static("*/*"));
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("1"));
            assert_eq!(refuse_misread(&headers).is_err(), refused, "{name}");
        };
        for name in SENSITIVE.iter().chain(&OVERRIDES).chain(&["x-forwarded-anything"]) {
            check(name, false);
            if name.contains('-') {
                check(&name.replace('-', "_"), true);
                check(&name.replacen('-', ".", 1), true);
                check(&name.replacen('-', "~", 1), true);
            }
        }
        check("Transfer_Encoding", true);
        check("content_LENGTH", true);
        check("x_request_id", false);
        check("x_api_key", false);
        check("authorization_", false);
    }
}
