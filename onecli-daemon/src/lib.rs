//! OneCLI for Linux: lets agents use credentials without having them.

pub mod model;
pub mod net;
pub mod policy;
pub mod tls;
