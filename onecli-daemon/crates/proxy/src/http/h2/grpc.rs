//! Refusals that gRPC clients can read: status and message in the head, and no body ("Trailers-Only" in gRPC over
//! HTTP/2).
//!
//! A gRPC client drops the body of any other response, and reports only its HTTP status.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::http::body::reject::Reason;
use crate::http::body::{Body, empty};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Characters that `grpc-message` escapes, besides bytes outside printable ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Returns whether it is a gRPC request.
pub(super) fn is_request(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Converts the daemon's own refusal to the gRPC form. Other responses remain unchanged.
pub(super) fn refusal(response: Response<Body>) -> Response<Body> {
    let Some(reason) = response.extensions().get::<Reason>() else { return response };
    let status = status_of(response.status());
    let message = utf8_percent_encode(&reason.0, ESCAPED).to_string();
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::OK;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(STATUS, HeaderValue::from(status));
    if let Ok(message) = HeaderValue::from_str(&message) {
        parts.headers.insert(MESSAGE, message);
    }
    Response::from_parts(parts, empty())
}

/// The gRPC status that clients derive from an HTTP status, so that their retries do not change (gRPC's
/// `http-grpc-status-mapping.md`).
fn status_of(status: StatusCode) -> u16 {
    const UNKNOWN: u16 = 2;
    const PERMISSION_DENIED: u16 = 7;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use onecli_model::{Code, Refusal};

    use super::*;
    use crate::http::body::reject;

    #[test]
    fn grpc_refusal_is_in_the_head() {
        let refused = Refusal::new(Code::EgressDenied, "50 % of \u{fc}ber", "ask\nan administrator");
        let response = refusal(reject::answer(&refused, None));
        assert_eq!(response.status(), StatusCode::OK);
        let field = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(field("grpc-status"), "7");
        assert_eq!(field("grpc-message"), "egress_denied: 50 %25 of %C3%BCber; ask%0Aan administrator");
        assert_eq!(
            (field("content-type").as_str(), field("x-onecli-error").as_str()),
            ("application/grpc", "egress_denied")
        );
        assert!(response.body().is_end_stream() && !response.headers().contains_key("content-length"));
    }

    #[test]
    fn upstream_response_is_unchanged() {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::FORBIDDEN;
        assert_eq!(refusal(response).status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn grpc_is_recognised_by_content_type() {
        for (value, expected) in
            [("application/grpc", true), ("application/grpc+proto", true), ("application/json", false)]
        {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_request(&headers), expected, "{value}");
        }
        assert!(!is_request(&HeaderMap::new()));
    }
}
