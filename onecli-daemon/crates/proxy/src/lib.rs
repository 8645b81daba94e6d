//! The data plane: the path from an accepted connection to an answered request.
//!
//! `accept` takes connections and detects their protocol. `session` holds what one connection needs, and `upstream` opens
//! connections to upstreams. The protocols stand side by side: `http` and `tunnel`.

#![forbid(unsafe_code)]

mod accept;
mod data_plane;
#[cfg(feature = "fuzz")]
pub mod fuzzed;
mod http;
mod limits;
mod session;
mod tunnel;
mod upstream;

pub use accept::listener_scheme::ListenerScheme;
pub use data_plane::{DataPlane, DataPlaneParts};
pub use http::upstream::daemon_client::{DaemonClient, DaemonClientParts, DaemonRecorder};
pub use limits::capacity::Capacity;
pub use session::counters::Counters;
pub use upstream::UpstreamTimeouts;
pub use upstream::connector::UpstreamProxy;
