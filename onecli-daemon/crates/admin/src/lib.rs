//! The admin socket: peer authorization and the operations of the admin API.
//!
//! [`bind`] opens the socket and [`serve`] serves it until shutdown. [`Handles`] contains every dependency of the
//! handlers.

#![forbid(unsafe_code)]

pub mod host;

mod admission;
mod agent_set;
mod agents;
mod approvals;
mod audit;
mod backup;
mod ca;
mod doctor;
mod doubts;
mod edit;
mod environment;
mod error;
mod explain;
mod grants;
mod import;
mod key;
mod learn;
mod peer;
mod rates;
mod recipes;
mod refusals;
mod rollback;
mod router;
mod rules;
mod runner;
mod running;
mod secret_test;
mod secrets;
mod server;
mod session;
mod socket;
mod state;
mod status;
mod vault;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use backup::remove_left_over;
pub use host::{CgroupInfo, Host, Processes};
pub use server::serve;
pub use socket::{SocketError, bind};
pub use state::{AuditProgress, Handles};
