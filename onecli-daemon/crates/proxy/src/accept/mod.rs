//! Connections of agents: accepting them, detecting their protocol, and serving it.

pub(crate) mod explicit;
mod half_closed;
mod intercept;
pub(crate) mod serve;
pub(crate) mod transparent;
