//! Converts refusals to responses. No other module does.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;
use onecli_model::refusal::Challenge;
use onecli_model::{Code, Refusal, RequestId};
use serde_json::json;

use super::types::{Body, empty, full};
use crate::http::fields::names::ERROR_HEADER;

/// The reason for a refusal by the daemon, in one line. It is stored in the extensions of the response.
#[derive(Debug, Clone)]
pub(crate) struct Reason(pub(crate) String);

/// Returns `{"error":{"code","message","hint","request_id"}}` with the code's status.
pub(crate) fn answer(refusal: &Refusal, request: Option<RequestId>) -> Response<Body> {
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
    let reason = format!("{}: {}; {}", refusal.code, refusal.message, refusal.hint);
    response.extensions_mut().insert(Reason(reason));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR_HEADER, HeaderValue::from_static(refusal.code.as_str()));
    if let Some(wait) = refusal.retry_after {
        // Whole seconds, rounded up, so that a client that returns then is not refused again.
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

/// Removes the body of the daemon's own response to HEAD (RFC 9110 section 9.3.2). HTTP/2 would send it.
pub(crate) fn without_body(mut response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(ERROR_HEADER) {
        *response.body_mut() = empty();
    }
    response
}

/// Returns the refusal of a CONNECT. Most clients drop its body, but many print the reason phrase, so the code is put
/// there (RFC 9112 section 4).
pub(crate) fn connect(refusal: &Refusal, request: Option<RequestId>) -> Response<Body> {
    let mut response = answer(refusal, request);
    let standard = response.status().canonical_reason().unwrap_or("Refused");
    if let Ok(phrase) = ReasonPhrase::try_from(format!("{standard} ({})", refusal.code)) {
        response.extensions_mut().insert(phrase);
    }
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    /// Each code has one of these HTTP statuses, and a complete JSON error.
    #[tokio::test]
    async fn every_code_has_a_readable_error_response() {
        let id = RequestId(uuid::Uuid::from_u128(7));
        let mut seen = std::collections::HashSet::new();
        for code in Code::ALL.iter().copied() {
            assert!(seen.insert(code.as_str()), "{code} is defined twice");
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{code}");
            let allowed = [
                400, 401, 403, 405, 407, 408, 413, 414, 417, 421, 429, 431, 499, 500, 501, 502, 503, 504, 505,
            ];
            assert!(allowed.contains(&code.status()), "{code}: {}", code.status());
            let response = answer(&Refusal::new(code, "what happened", "what to do"), Some(id));
            assert_eq!(response.status().as_u16(), code.status(), "{code}");
            let headers = response.headers().clone();
            assert_eq!(headers[ERROR_HEADER], code.as_str());
            assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{code}");
            assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{code}");
            // RFC 9110 sections 11.7.1 and 11.6.1: these two statuses name a way to authenticate.
            assert_eq!(headers.contains_key(header::PROXY_AUTHENTICATE), code.status() == 407, "{code}");
            assert_eq!(headers.contains_key(header::WWW_AUTHENTICATE), code.status() == 401, "{code}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(headers[header::CONTENT_LENGTH], body.len().to_string(), "{code}");
            let error: Value = serde_json::from_slice(&body).unwrap();
            let expected = json!({"error": {
                "code": code.as_str(),
                "message": "what happened",
                "hint": "what to do",
                "request_id": id.to_string(),
            }});
            assert_eq!(error, expected, "{code}");
        }
    }
}
