//! The state that all handlers share, and the turn to change it.

mod admin_context;
mod handles;
mod lookup;
pub(crate) mod rates;
mod runners;

pub(crate) use admin_context::{AdminContext, ChangeGuard};
pub use handles::{AuditProgress, Handles};
pub(crate) use lookup::Lookup;
pub(crate) use runners::RunnableAgent;
