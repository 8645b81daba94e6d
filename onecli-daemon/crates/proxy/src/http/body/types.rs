//! The types of all bodies.

use bytes::Bytes;
use http_body::SizeHint;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// The reason that a body broke off. hyper gets it and resets the stream.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response to an agent.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that the daemon wrote.
pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An empty body.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// Returns the size hint of a body after `bytes` are added to it.
pub(crate) fn add(hint: &SizeHint, bytes: u64) -> SizeHint {
    let mut sum = SizeHint::new();
    sum.set_lower(hint.lower().saturating_add(bytes));
    if let Some(upper) = hint.upper() {
        sum.set_upper(upper.saturating_add(bytes));
    }
    sum
}

/// Returns a length in bytes as the counters' type.
pub(crate) fn len(data: &[u8]) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}
