//! `agent add --create-user`: a user of the host for one agent.

use super::program;
use crate::launch::worker::USERS;
use crate::model::AgentName;

/// Where such users have their home directories.
const HOMES: &str = "/var/lib/onecli-agents";
/// Longest name that useradd(8) takes.
const MAX_NAME: usize = 32;

/// Why there is no user.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    /// Only root makes users.
    #[error("--create-user makes a user of this host: run it as root")]
    NotRoot,
    /// The agent's name makes no user name.
    #[error("'{0}' is too long for a user name: give a shorter one with --user")]
    Name(String),
    /// There is one already.
    #[error("there is a user '{0}' already: leave --create-user out to use it, or name another with --user")]
    Exists(String),
    /// A program failed.
    #[error("cannot make the user: {program}: {message}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        message: String,
    },
}

/// The user of an agent, unless `--user` names it: `onecli-a-NAME`.
pub(super) fn name_for(agent: &AgentName) -> Result<String, UserError> {
    let name = format!("onecli-a-{}", agent.as_str().replace('.', "_"));
    if name.len() > MAX_NAME { Err(UserError::Name(name)) } else { Ok(name) }
}

/// Makes a user with a home directory and no password, whom the launcher takes for agents.
pub(super) fn create(name: &str) -> Result<(), UserError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(UserError::NotRoot);
    }
    if matches!(nix::unistd::User::from_name(name), Ok(Some(_))) {
        return Err(UserError::Exists(name.to_owned()));
    }
    run("groupadd", &["--system", "--force", USERS])?;
    run("install", &["--directory", "--mode=0755", HOMES])?;
    let home = format!("{HOMES}/{name}");
    run(
        "useradd",
        &[
            "--system",
            "--user-group",
            "--groups",
            USERS,
            "--create-home",
            "--home-dir",
            &home,
            "--key",
            "HOME_MODE=0700",
            "--shell",
            "/bin/sh",
            "--comment",
            "OneCLI agent",
            name,
        ],
    )
}

/// Takes back what [`create`] made, for an agent that was not added.
pub(super) fn remove(name: &str) -> Result<(), UserError> {
    run("userdel", &["--remove", name])
}

fn run(name: &'static str, args: &[&str]) -> Result<(), UserError> {
    program::run(name, args).map_err(|message| UserError::Program { program: name, message })
}
