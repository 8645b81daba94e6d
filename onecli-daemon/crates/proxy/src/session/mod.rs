//! One connection of an agent, and the audit records of its requests.

pub(crate) mod connection;
pub(crate) mod refused;
pub(crate) mod request_audit;
