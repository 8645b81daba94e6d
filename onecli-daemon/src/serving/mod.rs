//! The listeners of this host and the connections that they accept.

mod cgroup_events;
mod connections;
mod listeners;
mod namespaces;

pub(crate) use connections::ServerContext;
pub(crate) use listeners::{Listeners, OpenListeners, Serving};
pub(crate) use namespaces::Namespaces;
