//! OneCLI for Linux: lets agents use credentials without having them.

pub mod admin;
pub mod app;
pub mod audit;
pub mod cli;
pub mod config;
pub mod dns;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod http;
pub mod kernel;
pub mod launch;
pub mod model;
pub mod net;
pub mod policy;
pub mod privilege;
pub mod store;
pub mod tls;
pub mod vault;
