//! OneCLI's daemon.

pub mod kernel;
pub mod model;
