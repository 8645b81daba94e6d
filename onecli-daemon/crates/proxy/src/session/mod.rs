//! One connection of an agent, and the audit records of its requests.

pub(crate) mod connection;
pub(crate) mod counters;
pub(crate) mod policy_watch;
pub(crate) mod recorder;
pub(crate) mod refusals;
pub(crate) mod refused;
pub(crate) mod request_audit;
