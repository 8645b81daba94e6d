//! The state that all connections share.

pub(crate) mod gateway;
