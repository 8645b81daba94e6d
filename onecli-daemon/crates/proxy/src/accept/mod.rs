//! Connections of agents: accepting them, detecting their protocol, and serving it.

pub(crate) mod explicit;
mod intercept;
pub(crate) mod transparent;
