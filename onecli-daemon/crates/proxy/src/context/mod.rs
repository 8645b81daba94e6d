//! The state that all connections share.

pub(crate) mod counters;
pub(crate) mod gateway;
mod policy_watch;
pub(crate) mod wire;
