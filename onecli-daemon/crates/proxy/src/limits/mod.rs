//! Limits on connections, requests and time.

pub(crate) mod agent_quota;
pub(crate) mod capacity;
pub(crate) mod capped;
pub(crate) mod connection_slot;
pub(crate) mod failures;
pub(crate) mod idle_timeout;
pub(crate) mod write_timeout;
