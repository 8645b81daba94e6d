//! The admin socket: who may speak on it, and what can be asked.

pub mod api;
pub mod host;

pub use host::{CgroupInfo, Host, Transparent};
