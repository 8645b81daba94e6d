//! Agents: their records, their sessions, and the rules that they lack.

pub(crate) mod environment;
pub(crate) mod learn;
mod manage;
pub(crate) mod running;
pub(crate) mod session;
mod session_token;
pub(crate) mod set;
mod users;

pub(crate) use manage::{add, allow, list, remove, rotate, set_enabled, set_runner, show};
