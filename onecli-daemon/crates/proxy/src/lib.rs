//! HTTP: the path from an accepted connection to an answered request.
//!
//! `accept` serves connections and detects their protocol. `exchange` handles one request. The other modules are its
//! steps, from `h1` and `h2`, which read requests, to `response`, which delivers what the upstream sent.

#![forbid(unsafe_code)]

mod accept;
mod audit;
mod body;
mod context;
mod decode;
mod exchange;
mod fields;
#[cfg(feature = "fuzz")]
pub mod fuzzed;
mod h1;
mod h2;
mod limits;
mod placeholders;
mod placement;
mod request;
mod response;
mod scheme;
mod scrub;
mod scrub_values;
mod session;
mod session_cookies;
mod upstream;
mod websocket;

pub use accept::explicit::serve_explicit;
pub use accept::transparent::serve_transparent;
pub use context::counters::Counters;
pub use context::gateway::{Gateway, GatewayParts, UpstreamTimeouts};
pub use context::listener_scheme::ListenerScheme;
pub use limits::capacity::Capacity;
pub use upstream::connector::UpstreamProxy;
pub use upstream::daemon_client::{DaemonClient, DaemonClientParts, DaemonRecorder};
