//! The admin socket: peer authorization and the operations of the admin API.
//!
//! [`bind`] opens the socket and [`serve`] serves it until shutdown. [`Handles`] contains every dependency of the
//! handlers.

#![forbid(unsafe_code)]

pub mod host;

mod access;
mod context;
mod error;
mod handlers;
mod routing;
mod server;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use context::{AuditProgress, Handles};
pub use handlers::backup::remove_left_over;
pub use host::{CgroupInfo, DaemonControl, Processes};
pub use server::{SocketError, bind, serve};
