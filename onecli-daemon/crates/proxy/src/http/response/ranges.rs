//! Ranges (RFC 9110 section 14). A response that is searched for values is requested whole, because a range would
//! split a value.

use http::header::{self, HeaderMap, HeaderValue};

use crate::http::scrub::Scrubber;

/// How a request uses ranges.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranges {
    /// Set if the request asks the upstream for a part.
    pub(crate) is_asked: bool,
    /// Set if sessions were opened for the request; responses are searched for their values.
    has_session: bool,
}

impl Ranges {
    /// Returns the ranges of a request with these header fields.
    pub(crate) fn of(headers: &HeaderMap, has_session: bool) -> Ranges {
        Ranges { is_asked: headers.contains_key(header::RANGE) && !has_session, has_session }
    }

    /// Returns whether the response must be whole.
    pub(super) fn is_whole_only(self, scrubber: &Scrubber) -> bool {
        !self.is_asked || scrubber.has_host_values()
    }

    /// Removes promises of ranges that are not served (RFC 9110 section 14.3). A client that relied on the promise
    /// would request parts, and get the whole each time.
    pub(crate) fn correct(self, scrubber: &Scrubber, headers: &mut HeaderMap) {
        if (self.has_session || scrubber.has_host_values()) && headers.contains_key(header::ACCEPT_RANGES) {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
        }
    }
}
