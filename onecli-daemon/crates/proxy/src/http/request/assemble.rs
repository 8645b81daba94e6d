//! Assembles the outgoing request from parsed values. No byte of the client's head is forwarded as it was received.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Version};
use http_body::Body as _;
use onecli_model::{Code, Refusal};

use super::head::Head;
use crate::http::body::replay::AttemptBody;
use crate::http::fields::names::OVERRIDES;
use crate::http::upstream::pool::Upstream;
use onecli_model::Scheme;

/// Headers that could make a response impossible to scan: codings and charsets that hide a value, ranges that split
/// it.
static UNSCANNABLE: [HeaderName; 4] =
    [header::ACCEPT_ENCODING, header::ACCEPT_CHARSET, header::RANGE, header::IF_RANGE];

/// Requests a response that can be scanned: whole, not compressed, and in the server's own charset (RFC 9110 sections
/// 12.5.2, 12.5.3 and 14.2: a server may ignore `Range`). `ranged` retains the range headers.
pub(crate) fn ask_scannable(headers: &mut HeaderMap, ranged: bool) {
    for name in UNSCANNABLE.iter().filter(|name| !ranged || !matches!(name.as_str(), "range" | "if-range")) {
        headers.remove(name);
    }
    remove_charsets(headers);
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // gRPC compresses each message individually.
    headers.remove("grpc-accept-encoding");
}

/// Removes the charset from `Accept: text/plain;charset=...`. Some servers choose the charset of their response by
/// it.
fn remove_charsets(headers: &mut HeaderMap) {
    for value in headers.iter_mut().filter(|(name, _)| *name == header::ACCEPT).map(|(_, value)| value) {
        let lower = value.as_bytes().to_ascii_lowercase();
        if memchr::memmem::find(&lower, b"charset").is_none() {
            continue;
        }
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let ranges = text.split(',').map(|range| {
            let parts = range.split(';').filter(|part| !part.to_ascii_lowercase().contains("charset"));
            parts.collect::<Vec<_>>().join(";")
        });
        let ranges = HeaderValue::try_from(ranges.collect::<Vec<_>>().join(","));
        *value = ranges.unwrap_or(HeaderValue::from_static("*/*"));
    }
}

/// Removes [`OVERRIDES`]. Other spellings of them are refused earlier ([`crate::http::fields::names`]).
pub(crate) fn strip_overrides(headers: &mut HeaderMap) {
    let overriding: Vec<HeaderName> = headers
        .keys()
        .filter(|name| OVERRIDES.contains(&name.as_str().replace('_', "-").as_str()))
        .cloned()
        .collect();
    for name in overriding {
        headers.remove(name);
    }
}

/// Query parameters with the same effect, in lower case: those of frameworks, of `SharePoint` and Salesforce, and of
/// Google.
static OVERRIDING_PARAMETERS: [&str; 7] = [
    "_method",
    "_httpmethod",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "$httpmethod",
    "$httpheaders",
];

/// Returns the parameter by which a server may take the request for a different one. The request is refused. Removing
/// the parameter would make a third request, which the client did not intend.
pub(crate) fn overriding_parameter(query: &str) -> Option<&'static str> {
    // Some servers also separate parameters with `;`.
    query.split(['&', ';']).find_map(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
        // Some servers treat the first element of an array or a map as the same parameter.
        let name = name.split('[').next().unwrap_or_default().trim();
        OVERRIDING_PARAMETERS.into_iter().find(|known| *known == name)
    })
}

/// Joins cookie fields. HTTP/2 may split a cookie field into its pairs; other versions need one field (RFC 9113
/// section 8.2.3).
fn one_cookie(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(mut whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        whole.set_sensitive(headers.get_all(header::COOKIE).iter().any(HeaderValue::is_sensitive));
        headers.insert(header::COOKIE, whole);
    }
}

/// Writes `head` in the form that `upstream` requires.
///
/// # Errors
/// [`Code::BadRequest`] if the head does not fit a URI.
pub(crate) fn assemble(
    head: Head,
    body: AttemptBody,
    upstream: &Upstream,
) -> Result<Request<AttemptBody>, Refusal> {
    let malformed = |error: &dyn std::fmt::Display| {
        Refusal::new(
            Code::BadRequest,
            format!("the URL cannot be forwarded: {error}"),
            "percent-encode it (RFC 3986)",
        )
    };
    let target = match &head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path.as_str().to_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|e| malformed(&e))?;
    let mut head = head;
    one_cookie(&mut head.headers);
    let host = upstream.authority().to_header(head.scheme.default_port());
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    if upstream.is_h2() {
        let scheme = if head.scheme == Scheme::Https { "https" } else { "http" };
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query(target)
            .build()
            .map_err(|e| malformed(&e))?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = head.headers;
        if let Some(trailer) = head.trailers.field().filter(|_| !request.body().is_end_stream()) {
            request.headers_mut().insert(header::TRAILER, trailer);
        }
    } else {
        let mut headers = HeaderMap::with_capacity(head.headers.len() + 4);
        headers.insert(header::HOST, HeaderValue::try_from(host.as_str()).map_err(|e| malformed(&e))?);
        headers.extend(head.headers);
        *request.uri_mut() = Uri::from(target);
        // Without this field, hyper sends no body of unknown length for GET, HEAD and CONNECT.
        if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            if let Some(trailer) = head.trailers.field() {
                headers.insert(header::TRAILER, trailer);
            }
        }
        if headers.contains_key(header::TE) {
            // RFC 9110 section 10.1.4.
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if let Some(relay) = upstream.relay() {
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.scheme = Some(http::uri::Scheme::HTTP);
            parts.authority = Some(host.parse().map_err(|e| malformed(&e))?);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|e| malformed(&e))?;
            if let Some(authorization) = &relay.authorization {
                headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
            }
        }
        if head.websocket {
            // No extension is negotiated, because compressed frames could not be scrubbed.
            headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        *request.headers_mut() = headers;
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_are_removed_from_accept() {
        let check = |accept: &'static str, expected: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_CHARSET, HeaderValue::from_static("utf-16, ibm037"));
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            ask_scannable(&mut headers, true);
            assert!(!headers.contains_key(header::ACCEPT_CHARSET));
            assert_eq!(headers[header::ACCEPT], expected, "{accept}");
        };
        check("text/html, */*;q=0.8", "text/html, */*;q=0.8");
        check("text/plain;charset=ibm037, text/xml;q=0.5", "text/plain, text/xml;q=0.5");
        check("text/plain; q=0.3 ;CharSet=\"utf-16\"", "text/plain; q=0.3 ");
    }

    #[test]
    fn cookie_fields_are_joined() {
        let check = |cookies: &[&'static str], expected: &[&str]| {
            let mut headers = HeaderMap::new();
            for cookie in cookies {
                headers.append(header::COOKIE, HeaderValue::from_static(cookie));
            }
            one_cookie(&mut headers);
            assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), expected);
        };
        check(&[], &[]);
        check(&["a=1; b=2"], &["a=1; b=2"]);
        check(&["a=1", "b=2; c=3", "d=4"], &["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn overriding_query_parameter_is_found() {
        let check = |query: &str, expected: Option<&str>| {
            assert_eq!(overriding_parameter(query), expected, "{query}");
        };
        check("_method=delete", Some("_method"));
        check("a=1&_METHOD=delete", Some("_method"));
        check("a=1;%5fmethod", Some("_method"));
        check("_method[]=put", Some("_method"));
        check("_HttpMethod=PATCH", Some("_httpmethod"));
        check("X-HTTP-Method-Override=PUT", Some("x-http-method-override"));
        check("%24httpHeaders=Authorization:x", Some("$httpheaders"));
        check("method=a&q=_method&my_method=x&_methods=1", None);
        check("", None);
    }

    #[test]
    fn method_and_url_overrides_are_removed() {
        let kept = ["accept", "x-forwarded-for", "x-forwarded-proto", "x-http-methods", "x-original"];
        let spelled = ["x_http_method_override", "X-Original_URL", "X-HTTP-Method-Override"];
        let mut headers = HeaderMap::new();
        for name in OVERRIDES.iter().chain(&spelled).chain(&kept) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name.clone(), HeaderValue::from_static("DELETE"));
            headers.append(name, HeaderValue::from_static("/admin"));
        }
        strip_overrides(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, kept);
    }
}
