//! `onecli status`.

mod command;
mod counters;

pub(crate) use command::status;
