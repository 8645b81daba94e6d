//! The peers of the socket: their rights, and their turns.

pub(crate) mod admission;
pub(crate) mod peer;
