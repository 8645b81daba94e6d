//! The outgoing request, written from our own values; no byte of the client's head is passed on as it came.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Request, Version};

use super::body::RequestBody;
use super::connection::Scheme;
use super::head::Head;
use super::pool::Upstream;
use crate::model::{Code, Refusal};

/// Headers that would keep an answer from being scanned: encodings that hide a value, ranges that cut it.
static UNSCANNABLE: [HeaderName; 3] = [header::ACCEPT_ENCODING, header::RANGE, header::IF_RANGE];

/// Asks for answers in a form that can be scanned: whole, and not compressed (RFC 9110 sections 12.5.3 and 14.2:
/// a server may ignore `Range`).
pub(super) fn ask_scannable(headers: &mut HeaderMap) {
    for name in &UNSCANNABLE {
        headers.remove(name);
    }
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Writes `head` as `upstream` wants it.
///
/// # Errors
/// [`Code::BadRequest`] where the head does not fit a URI.
pub(super) fn assemble(
    head: Head,
    body: RequestBody,
    upstream: &Upstream,
) -> Result<Request<RequestBody>, Refusal> {
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
    } else {
        *request.uri_mut() = Uri::from(target);
        let mut headers = HeaderMap::with_capacity(head.headers.len() + 3);
        headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|e| malformed(&e))?);
        headers.extend(head.headers);
        if head.websocket {
            // No extension is negotiated: frames are scrubbed, and could not be if they were compressed.
            headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        *request.headers_mut() = headers;
    }
    Ok(request)
}
