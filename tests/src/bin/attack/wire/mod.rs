//! The bytes and frames that an agent sends and receives, with their boundaries.

pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod tunnel;
pub(crate) mod websocket;

pub(crate) use http1::Answer;
pub(crate) use tunnel::Tunnel;
