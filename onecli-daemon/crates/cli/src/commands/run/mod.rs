//! `onecli run` and `onecli launcher`.

mod args;
mod command;
mod directories;
mod hidden_command;
mod launcher;

pub(crate) use args::{LauncherArgs, RunArgs};
pub(crate) use command::{EXIT_NOT_STARTED, run};
pub(crate) use launcher::run as launcher;
