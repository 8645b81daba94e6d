//! `agent add --create-user`: a user of the host for one agent.

use std::path::{Path, PathBuf};

use onecli_launch::worker::USERS;
use onecli_launch::{AgentsDir, LaunchUser};
use onecli_model::{AgentId, AgentName};

use super::program;

/// Where agents' homes are, in place of the default: for root, who has an environment of their own choice.
const AGENTS_DIR_VARIABLE: &str = "ONECLI_AGENTS_DIR";
/// The shell of accounts without login (nologin(8)).
pub(super) const NO_LOGIN: &str = "/usr/sbin/nologin";
/// Longest name that useradd(8) takes.
const MAX_NAME: usize = 32;

/// Why there is no user.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    /// Only root makes users.
    #[error("only root creates or changes a user of this host\nhelp: use sudo")]
    NotRoot,
    /// The agent's name makes no user name.
    #[error("'{0}' is too long for a user name\nhelp: give a shorter one with --user")]
    Name(String),
    /// There is one already.
    #[error(
        "there is a user '{0}' already\nhelp: leave --create-user out to use it, or name another with --user"
    )]
    Exists(String),
    /// Its home could not be made.
    #[error("cannot make or move the user's home: {0}")]
    Home(std::io::Error),
    /// It is not there after it was made.
    #[error("{0}")]
    Lookup(String),
    /// Somebody could put another directory in its place while it is moved, and have that one moved and given away.
    #[error(
        "the home {} of user '{user}' cannot be moved: others can exchange it, because {why}\n\
         help: move it below a directory that only root can write (usermod --move-home --home), then run this again",
        home.display()
    )]
    Exchangeable {
        /// The user.
        user: String,
        /// Its home in passwd(5).
        home: PathBuf,
        /// By what.
        why: String,
    },
    /// The home belongs to another user, so it is not moved.
    #[error(
        "user '{user}' can write its home {}, which belongs to another user\n\
         help: take the right away (chmod g-w,o-w), or give it another home (usermod --home), then run this again",
        home.display()
    )]
    WritableHome {
        /// The user.
        user: String,
        /// Its home in passwd(5).
        home: PathBuf,
    },
    /// Processes run as it.
    #[error("processes run as user '{0}'\nhelp: end them first")]
    Busy(String),
    /// A program failed.
    #[error("cannot make or change the user: {program}: {message}")]
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

/// [Makes](create) the user of an agent, with the name that `--user` says or else the usual one.
pub(super) fn make(named: Option<String>, agent: &AgentName) -> Result<String, UserError> {
    let name = named.map_or_else(|| name_for(agent), Ok)?;
    create(&name)?;
    Ok(name)
}

/// The directory of the agents' homes.
pub(super) fn agents_dir() -> AgentsDir {
    match std::env::var_os(AGENTS_DIR_VARIABLE).map(PathBuf::from) {
        Some(path) if path.is_absolute() => AgentsDir::at(path),
        _ => AgentsDir::default(),
    }
}

/// Makes a user without password and login shell, whom the launcher takes for agents. Its home in passwd(5) is empty and
/// root's, so that no service of the host finds a file there that an agent wrote; the launcher shows the agent another.
pub(super) fn create(name: &str) -> Result<(), UserError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(UserError::NotRoot);
    }
    if matches!(nix::unistd::User::from_name(name), Ok(Some(_))) {
        return Err(UserError::Exists(name.to_owned()));
    }
    run("groupadd", &["--system", "--force", USERS])?;
    let agents = agents_dir();
    let home = agents.make_passwd_home(name).map_err(UserError::Home)?;
    let home = home.display().to_string();
    run(
        "useradd",
        &[
            "--system",
            "--user-group",
            "--groups",
            USERS,
            "--no-create-home",
            "--home-dir",
            &home,
            "--shell",
            NO_LOGIN,
            "--comment",
            "OneCLI agent",
            name,
        ],
    )?;
    let user = LaunchUser::find(name).map_err(|error| UserError::Lookup(error.to_string()))?;
    agents.make_home(name, user.uid.as_raw(), user.gid.as_raw()).map_err(UserError::Home)?;
    Ok(())
}

/// Takes back what [`create`] made, for an agent that was not added.
pub(super) fn remove(name: &str) -> Result<(), UserError> {
    run("userdel", &[name])?;
    let agents = agents_dir();
    for home in [agents.passwd_home(name), agents.home(name)] {
        delete(&home)?;
    }
    Ok(())
}

/// Deletes the temporary files of agents that were removed.
pub(super) fn delete_kept(present: &[AgentId]) -> Result<(), UserError> {
    let agents = agents_dir();
    for agent in agents.kept_agents().iter().filter(|agent| !present.contains(agent)) {
        delete(&agents.agent(*agent))?;
    }
    Ok(())
}

/// Removes a directory of the agents', which no user but root can exchange. rm(1) takes trees of any depth.
fn delete(path: &Path) -> Result<(), UserError> {
    run("rm", &["--recursive", "--force", "--one-file-system", "--", &path.display().to_string()])
}

pub(super) fn run(name: &'static str, args: &[&str]) -> Result<(), UserError> {
    program::run(name, args).map_err(|message| UserError::Program { program: name, message })
}
