//! The audit log of this host: opening it, copying it into the store, and sending its checkpoints to witnesses.

mod open;
pub(crate) mod ship;
mod signing_key;
pub(crate) mod witness;

pub(crate) use open::open_audit;
