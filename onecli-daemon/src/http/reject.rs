//! The one place that turns refusals into answers.

use http::header::{self, HeaderValue};
use http::{HeaderName, Response, StatusCode};
use serde_json::json;

use super::body::{Body, empty, full};
use crate::model::refusal::Challenge;
use crate::model::{Code, Refusal, RequestId};

/// Carries the code of every refusal; never let through from an upstream.
pub(super) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-onecli-error");

/// `{"error":{"code","message","hint","request_id"}}` with the code's status.
pub(super) fn answer(refusal: &Refusal, request: Option<RequestId>) -> Response<Body> {
    let body = json!({"error": {
        "code": refusal.code.as_str(),
        "message": refusal.message,
        "hint": refusal.hint,
        "request_id": request.map(|id| id.to_string()),
    }});
    let body = format!("{body}\n");
    let length = body.len();
    let mut response = Response::new(full(body));
    *response.status_mut() =
        StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR_HEADER, HeaderValue::from_static(refusal.code.as_str()));
    if let Some(wait) = refusal.retry_after {
        // Whole seconds, rounded up: who comes back then finds room.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    match refusal.code {
        Code::ProxyAuthRequired | Code::TokenUnknown => {
            headers.insert(header::PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"OneCLI\""));
        }
        Code::PlaceholderMissing => {
            let challenge = match refusal.challenge {
                Some(Challenge::Basic) => "Basic realm=\"OneCLI\"",
                _ => "Bearer realm=\"OneCLI\"",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        _ => {}
    }
    response
}

/// Our own answer to HEAD, without its body (RFC 9110 section 9.3.2): HTTP/2 would send one.
pub(super) fn without_body(mut response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(ERROR_HEADER) {
        *response.body_mut() = empty();
    }
    response
}
