//! `onecli doctor`.

mod agent_environment;
mod args;
mod command;
mod examine;
mod probe;
mod probe_command;
mod running;
mod self_test;

pub(crate) use args::DoctorArgs;
pub(crate) use command::doctor;
pub(crate) use probe_command::probe;
