//! The listeners of this host and the connections that they accept.

mod cgroup_events;
mod connections;
mod listeners;
mod namespaces;

pub(crate) use connections::Front;
pub(crate) use listeners::Stand;
pub(crate) use namespaces::Namespaces;
