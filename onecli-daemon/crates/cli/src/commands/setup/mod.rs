//! `onecli setup`.

mod admin;
mod args;
mod command;
mod context;
mod credentials;
mod files;
mod netrc;
mod sources;

pub(crate) use args::SetupArgs;
pub(crate) use command::setup;
