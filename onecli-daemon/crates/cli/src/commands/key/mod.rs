//! `onecli key ...`.

mod args;
mod command;

pub(crate) use args::KeyCommand;
pub(crate) use command::key;
