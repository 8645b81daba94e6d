//! HTTP: the path from an accepted connection to an answered request.
//!
//! `explicit` and `transparent` serve connections, and `intercept` detects their protocol. `exchange` handles one
//! request; the other modules are its steps.

#![forbid(unsafe_code)]

mod answer;
mod assemble;
mod aws_chunked;
mod aws_hosts;
mod body;
mod body_memory;
mod buffer;
mod capacity;
mod capped;
mod connection;
mod content_scan;
mod decode;
mod disguised;
mod early_answer;
mod exchange;
mod expect;
mod explicit;
mod frames;
mod front;
#[cfg(feature = "fuzz")]
pub mod fuzzed;
mod gateway;
mod half_closed;
mod head;
mod head_size;
mod hold;
mod http1_sender;
mod http2;
mod inject;
mod intercept;
mod issued;
mod json;
mod limits;
mod names;
mod outbound;
mod outward;
mod paced;
mod patience;
mod peer_body;
mod place;
mod pool;
mod pool_scope;
mod ranges;
mod read_filter;
mod refusals;
mod reject;
mod replace;
mod replay;
mod retry;
mod returned;
mod revoked;
mod scrub;
mod scrub_values;
mod scrubbed;
mod secret_test;
mod send;
mod send_failure;
mod serve;
mod session_cookies;
mod shares;
mod signing;
mod sigv4;
mod stall;
mod trail;
mod trailers;
mod transparent;
mod upgrade;
mod websocket;
mod websocket_head;
mod websocket_scan;

pub use capacity::Capacity;
pub use explicit::{Wire, serve_explicit};
pub use gateway::{Counters, Gateway, GatewayParts, UpstreamPatience};
pub use outbound::{OwnRecords, OwnRequests, OwnWay};
pub use outward::UpstreamProxy;
pub use transparent::serve_transparent;

#[cfg(test)]
mod tests;
