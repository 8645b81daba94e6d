//! The data plane: the path from an accepted connection to an answered request.
//!
//! `accept` takes connections and detects their protocol, `session` holds what one connection needs, `upstream` opens
//! connections to upstreams, and `http` serves HTTP.

#![forbid(unsafe_code)]

mod accept;
mod context;
#[cfg(feature = "fuzz")]
pub mod fuzzed;
mod http;
mod limits;
mod session;
mod upstream;

pub use accept::explicit::serve_explicit;
pub use accept::listener_scheme::ListenerScheme;
pub use accept::transparent::serve_transparent;
pub use context::gateway::{Gateway, GatewayParts, UpstreamTimeouts};
pub use http::upstream::daemon_client::{DaemonClient, DaemonClientParts, DaemonRecorder};
pub use limits::capacity::Capacity;
pub use session::counters::Counters;
pub use upstream::connector::UpstreamProxy;
