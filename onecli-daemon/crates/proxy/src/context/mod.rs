//! The state that all connections share.

pub(crate) mod counters;
pub(crate) mod gateway;
pub(crate) mod listener_scheme;
mod policy_watch;
