//! The size limit of heads, for requests and responses. Over HTTP/1.1 it applies to a request while it is read.
//!
//! h2 itself refuses an oversized head without content, or ends the whole connection. So h2 gets a higher limit.
//! Heads between the two limits are refused here, with an explanation.

use http::{HeaderMap, Request, Response, Version};
use onecli_model::{Code, Refusal};

use crate::http::h1::MAX_HEAD;

/// Largest header list that h2 reads, in bytes: the fields, plus 32 bytes for each (RFC 9113 section 6.5.2).
pub(crate) const MAX_READ: u32 = 256 << 10;
/// Bytes of an HTTP/1.1 field besides its name and value: `: ` and CR LF.
const AROUND_FIELD: usize = 4;

/// Refuses an HTTP/2 request whose head exceeds the limit for HTTP/1.1.
///
/// # Errors
/// [`Code::HeadTooLarge`].
pub(crate) fn check_request<B>(request: &Request<B>) -> Result<(), Refusal> {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let size = size_of(request.headers()) + target;
    if request.version() != Version::HTTP_2 || size <= MAX_HEAD {
        return Ok(());
    }
    Err(Refusal::new(
        Code::HeadTooLarge,
        format!("the request's header section has {size} bytes, and the limit is {MAX_HEAD}"),
        "send fewer and shorter fields",
    ))
}

/// Refuses a response with an oversized head. Over HTTP/1.1, hyper applies the limit only approximately.
///
/// # Errors
/// [`Code::UpstreamProtocol`].
pub(crate) fn check_response<B>(response: &Response<B>) -> Result<(), Refusal> {
    let size = size_of(response.headers());
    if size <= MAX_HEAD {
        return Ok(());
    }
    Err(refused_response(&format!("has {size} bytes, and the limit is {MAX_HEAD}")))
}

/// The refusal for a response with an oversized head.
pub(crate) fn refused_response(what: &str) -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the header section of the upstream's response {what}"),
        "the upstream may have processed the request; let it send fewer and shorter header fields, for \
         example cookies",
    )
}

pub(crate) fn size_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND_FIELD).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks an HTTP/2 head whose fields have `size` bytes.
    fn check(size: usize) -> bool {
        let value = "a".repeat(size - "x".len() - AROUND_FIELD);
        let head = Request::builder().version(Version::HTTP_2).uri("/").header("x", &value);
        let request = check_request(&head.body(()).unwrap()).is_ok();
        let head = Response::builder().version(Version::HTTP_2).header("x", value);
        assert_eq!(
            request,
            check_response(&head.body(()).unwrap()).is_ok(),
            "the target contributes no byte here"
        );
        request
    }

    #[test]
    fn http2_head_limit_equals_http11_limit() {
        assert!(check(MAX_HEAD - 1));
        assert!(!check(MAX_HEAD + 1));
    }
}
