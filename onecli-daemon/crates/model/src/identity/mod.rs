//! Identities: agents, the users that may act as them, their tokens and placeholders.

pub mod agent;
pub mod command_cgroup;
pub mod ids;
pub mod placeholder_scan;
pub mod placeholder_shape;
pub mod runner;
pub mod token;
