//! Placeholders in the content of requests.

pub(crate) mod content_scan;
pub(crate) mod disguised;
pub(crate) mod json;
