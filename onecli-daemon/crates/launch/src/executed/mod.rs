//! Detects changes by an agent to files that other programs execute: git hooks and configuration, editor tasks, package
//! scripts.
//!
//! An agent may write its project. A program that the user later starts there (git, an editor, npm, a shell with
//! direnv) takes commands from files of the project, and runs them as that user. The launcher compares these files
//! before and after a command, and reports the differences.

mod file_version;
mod git;
mod git_config;
mod names;
mod report;
mod snapshot;
#[cfg(test)]
mod tests;
mod user_config;
mod walk;

pub(crate) use report::cut;
pub(crate) use snapshot::{GitPlaces, Snapshot};
pub(crate) use user_config::UserConfig;
pub use user_config::configs_of_environment;
