//! `onecli secret ...`.

mod add;
mod add_args;
mod command;
mod doubtful;
mod edit;
mod edit_args;
mod enable;
mod import;
mod import_args;
mod list;
mod placement_args;
mod remove;
mod rollback;
mod rotate;
mod show;
mod test;
mod view;

pub(crate) use command::{SecretCommand, run};
pub(crate) use import::of_vault;
pub(crate) use import_args::ImportArgs;
