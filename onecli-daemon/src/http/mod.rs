//! HTTP: from an accepted connection to an answered request.
//!
//! `explicit` and `transparent` take connections, `intercept` finds out what they speak, `exchange` is the life of
//! one request; the others are its steps.

mod answer;
mod assemble;
mod body;
mod capacity;
mod connection;
mod decode;
mod exchange;
mod explicit;
mod frames;
mod front;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzzed;
mod gateway;
mod head;
mod inject;
mod intercept;
mod limits;
mod outward;
mod patience;
mod place;
mod pool;
mod refusals;
mod reject;
mod revoked;
mod scrub;
mod serve;
mod shares;
mod stall;
mod trail;
mod transparent;
mod upgrade;
mod websocket;

pub use capacity::Capacity;
pub use explicit::serve_explicit;
pub use gateway::{Counters, Gateway, GatewayParts};
pub use outward::UpstreamProxy;
pub use transparent::serve_transparent;

#[cfg(test)]
mod tests;
