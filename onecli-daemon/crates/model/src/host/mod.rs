//! Hosts, authorities and addresses.

pub mod address_scope;
pub mod authority;
pub mod metadata;
pub mod upstream_proxy;
