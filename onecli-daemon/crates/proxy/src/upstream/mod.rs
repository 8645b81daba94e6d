//! Connections to upstreams, for every protocol.

pub(crate) mod connector;

use std::sync::Arc;
use std::time::Duration;

use self::connector::UpstreamConnector;

/// How long the daemon waits for a connected upstream.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamTimeouts {
    /// Time limit for the head of the response, from the last progress in sending the request.
    pub head: Duration,
    /// Time limit for each piece of a response that has begun. A stream as a whole may last longer.
    pub idle: Duration,
}

/// The way to upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// Opens connections.
    pub(crate) connector: Arc<UpstreamConnector>,
    pub(crate) timeouts: UpstreamTimeouts,
}
