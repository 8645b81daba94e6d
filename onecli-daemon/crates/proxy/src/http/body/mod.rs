//! Message bodies: streamed and counted, never buffered as a whole.

pub(crate) mod aws_chunked;
pub(crate) mod body_memory;
pub(crate) mod buffer;
pub(crate) mod expect;
mod h2_body;
pub(crate) mod paced;
pub(crate) mod peer_body;
pub(crate) mod reject;
pub(crate) mod replay;
mod request_body;
mod types;

pub(crate) use self::h2_body::{H2Body, Unread};
pub(crate) use self::request_body::{Payload, Progress, RequestBody};
#[cfg(test)]
pub(crate) use self::types::full;
pub(crate) use self::types::{Body, BodyError, add, empty, len};
