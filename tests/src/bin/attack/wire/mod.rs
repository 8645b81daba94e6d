//! What an agent sends and sees: bytes, frames, and how they were cut into pieces.

pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod tunnel;
pub(crate) mod websocket;

pub(crate) use http1::Answer;
pub(crate) use tunnel::Tunnel;
