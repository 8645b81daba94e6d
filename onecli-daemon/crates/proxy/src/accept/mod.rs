//! Connections of agents: accepting them, detecting their protocol, and serving it.

pub(crate) mod explicit;
mod intercept;
pub(crate) mod listener_scheme;
pub(crate) mod transparent;
