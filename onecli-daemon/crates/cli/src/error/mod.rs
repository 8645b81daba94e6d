//! Why a command failed.

mod cli_error;
mod env_error;
mod findings;

pub(crate) use cli_error::CliError;
pub(crate) use env_error::EnvError;
