//! The launcher's socket and its clients.

pub(crate) mod places;
pub(crate) mod socket;
