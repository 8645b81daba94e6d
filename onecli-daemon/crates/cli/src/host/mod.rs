//! This machine: users, programs, the trust store and the service manager.

pub(crate) mod program;
pub(crate) mod systemd_unit;
pub(crate) mod trust;
pub(crate) mod user;
