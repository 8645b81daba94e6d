//! Secrets.

mod add;
mod checks;
pub(crate) mod edit;
pub(crate) mod import;
mod manage;
mod plausibility;
mod retained;
pub(crate) mod rollback;
pub(crate) mod test;
mod value;
mod view;

pub(crate) use add::add;
pub(crate) use manage::{list, remove, rotate, set_enabled, show};
