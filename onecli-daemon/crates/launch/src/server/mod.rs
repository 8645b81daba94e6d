//! The launcher's socket and its clients.

pub(crate) mod client_list;
pub(crate) mod socket;
