//! `onecli agent ...`.

mod account;
mod add;
mod command;
mod enable;
mod env;
mod env_args;
mod list;
mod remove;
mod rotate;
mod runners;
mod set;
mod show;
mod view;

pub(crate) use account::checks as account_checks;
pub(crate) use command::{AgentCommand, run};
