//! The executor: a process that runs the host's commands that print values, as a separate user.
//!
//! The serving process may not execute programs. The helper must not: it has privileges that a command must not have,
//! and its system call filter, which a command would inherit, lets no program run. So this is a third process. It has
//! no privileges, and its user is not the daemon's, who can read the root key and the database.
//!
//! The executor is a child of the daemon, forked while the daemon still ran as root. Under a service manager it is a
//! separate service ([`service`]).

mod client;
mod command;
mod protocol;
mod server;

pub(crate) use client::{HostExecutor, own_uids};
pub(crate) use server::service;
