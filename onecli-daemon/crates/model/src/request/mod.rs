//! What a request names in addition to its URL, the connection that it came on, and its refusal.

pub mod flow;
pub mod named;
pub mod refusal;
pub mod scheme;
