//! `onecli run` and `onecli launcher`.

mod args;
mod command;
mod directories;
mod hidden_command;
mod launcher;

pub(crate) use args::{LauncherArgs, RunArgs};
pub(crate) use command::{OURS, run};
pub(crate) use launcher::run as launcher;
