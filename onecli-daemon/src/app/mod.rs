//! What wires the modules together.

pub mod ship;
