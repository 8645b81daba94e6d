//! HTTP: from an accepted connection to an answered request.
//!
//! `explicit` and `transparent` take connections, `intercept` finds out what they speak, `exchange` is the life of
//! one request; the others are its steps.

mod answer;
mod assemble;
mod aws_chunked;
mod body;
mod buffer;
mod capacity;
mod connection;
mod decode;
mod exchange;
mod explicit;
mod frames;
mod front;
mod gateway;
mod head;
mod inject;
mod intercept;
mod json;
mod limits;
mod outbound;
mod place;
mod pool;
mod reject;
mod replace;
mod revoked;
mod scrub;
mod serve;
mod shares;
mod signing;
mod sigv4;
mod trail;
mod transparent;
mod upgrade;
mod websocket;

pub use capacity::Capacity;
pub use explicit::serve_explicit;
pub use gateway::{Counters, Gateway, GatewayParts};
pub use outbound::OwnRequests;
pub use transparent::serve_transparent;

#[cfg(test)]
mod tests;
