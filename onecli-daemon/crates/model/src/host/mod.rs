//! Hosts, authorities and addresses.

pub mod authority;
pub mod metadata;
pub mod reach;
pub mod upstream_proxy;
