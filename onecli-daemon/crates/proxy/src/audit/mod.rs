//! Refusals and alerts on their way to the audit log.

pub(crate) mod recorder;
pub(crate) mod refusals;
