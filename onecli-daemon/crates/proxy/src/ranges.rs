//! Ranges (RFC 9110 section 14). A response that is searched for values comes whole: a range would cut a value in two.

use http::header::{self, HeaderMap, HeaderValue};

use super::scrub::Scrubber;

/// What a request has to do with ranges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranges {
    /// The upstream is asked for a part.
    pub(super) is_asked: bool,
    /// Sessions were opened for it, whose values are searched for.
    has_session: bool,
}

impl Ranges {
    /// Of a request with these header fields.
    pub(super) fn of(headers: &HeaderMap, has_session: bool) -> Ranges {
        Ranges { is_asked: headers.contains_key(header::RANGE) && !has_session, has_session }
    }

    /// Must the response be whole?
    pub(super) fn is_whole_only(self, scrubber: &Scrubber) -> bool {
        !self.is_asked || scrubber.has_host_values()
    }

    /// Does not let a response promise ranges that are not served (RFC 9110 section 14.3). A client that relies on the
    /// promise asks for parts, and gets the whole each time.
    pub(super) fn correct(self, scrubber: &Scrubber, headers: &mut HeaderMap) {
        if (self.has_session || scrubber.has_host_values()) && headers.contains_key(header::ACCEPT_RANGES) {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
        }
    }
}
