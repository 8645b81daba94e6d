//! Runs one command of one client: starts it as the agent, and watches it until it ends.
//!
//! The worker is root and not in the agent's cgroup. The command is its child and leads its own process group in the
//! worker's session, so that it can be stopped and continued as by a shell.

mod admit;
mod children;
pub(crate) mod env;
pub(crate) mod launch;
pub(crate) mod permission;
mod prepare;
mod report;
mod running;
mod serve;
mod start;
mod watch;

pub use permission::{Authorised, Caller, Permission, PermissionQuery, Refused, Rules, USERS};
pub use serve::serve;
pub use start::default_action;
