//! OneCLI for Linux: lets agents use credentials without having them.

pub mod app;
pub mod audit;
pub mod model;
pub mod policy;
pub mod store;
pub mod vault;
