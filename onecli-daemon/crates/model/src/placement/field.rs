//! Names of header fields and query parameters that may carry a credential.

use std::str::FromStr;

use http::{HeaderName, header};

use super::error::PlacementError;

/// Parses the name of a header field that may carry a credential.
pub(super) fn field_name(name: &str) -> Result<HeaderName, PlacementError> {
    let bad = |_| PlacementError::Header(name.chars().take(80).flat_map(char::escape_default).collect());
    let name = HeaderName::from_str(name.trim()).map_err(bad)?;
    if is_reserved(&name) { Err(PlacementError::ReservedHeader(name.to_string())) } else { Ok(name) }
}

/// Parses the name of a query parameter that needs no escaping.
pub(super) fn parameter_name(name: &str) -> Result<String, PlacementError> {
    let ok = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
    if ok {
        Ok(name.to_owned())
    } else {
        Err(PlacementError::Query(name.chars().flat_map(char::escape_default).collect()))
    }
}

/// Returns whether a header determines the end or the destination of a message (RFC 9110 section 7, RFC 9112 section
/// 6), or is rewritten so that responses can be scanned.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    [
        header::ACCEPT_ENCODING,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::IF_RANGE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::SEC_WEBSOCKET_EXTENSIONS,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}
