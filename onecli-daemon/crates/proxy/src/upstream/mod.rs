//! Connections to upstreams, for every protocol.

pub(crate) mod connector;
