//! The commands: a room for each noun, with the options beside the command.

pub(crate) mod agent;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod ca;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod grant;
pub(crate) mod key;
pub(crate) mod manual;
pub(crate) mod ps;
pub(crate) mod recipe;
pub(crate) mod rule;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod template;
pub(crate) mod vault;
