//! Where values come from that are not kept in the store.

pub mod flight;
pub mod hashicorp;
