//! `onecli audit ...`.

mod args;
mod command;
mod export;
mod ocsf;
mod verify;

pub(crate) use args::AuditCommand;
pub(crate) use command::run;
