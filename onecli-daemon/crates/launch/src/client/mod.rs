//! The client side, which the user starts.

pub(crate) mod confirm;
pub(crate) mod reset;
pub(crate) mod session;
