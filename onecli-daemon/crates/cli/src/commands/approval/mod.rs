//! `onecli approval ...`.

mod command;
mod request;
mod show;
mod watch;

pub(crate) use command::{ApprovalCommand, run};
