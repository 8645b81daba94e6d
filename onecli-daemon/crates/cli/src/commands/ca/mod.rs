//! `onecli ca ...`.

mod args;
mod command;

pub(crate) use args::CaCommand;
pub(crate) use command::ca;
