//! Maps requests to handlers, with axum.

mod access;
mod agents;
mod extract;
mod operations;
mod policy;
mod router;
mod runner;
mod secrets;
mod vault;

pub(crate) use extract::{Caller, Received};
pub(crate) use operations::refuse;
pub(crate) use router::{Routers, answer};
