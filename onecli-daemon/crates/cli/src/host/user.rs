//! `agent add --create-user`: a user of the host for one agent.

use std::path::{Path, PathBuf};

use onecli_launch::worker::USERS;
use onecli_launch::{AgentsDir, LaunchUser};
use onecli_model::{AgentId, AgentName};

use super::program;

/// The variable that overrides the directory of agents' homes. Only for root, who controls the environment.
const AGENTS_DIR_VARIABLE: &str = "ONECLI_AGENTS_DIR";
/// The shell of accounts without login (nologin(8)).
pub(crate) const NO_LOGIN: &str = "/usr/sbin/nologin";
/// The longest name that useradd(8) accepts.
const MAX_NAME: usize = 32;

/// Why a user could not be created or converted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// Only root creates users.
    #[error("only root may create or change a user of this host\nhelp: use sudo")]
    NotRoot,
    /// The agent's name cannot be used in a user name.
    #[error("'{0}' is too long for a user name\nhelp: choose a shorter one with --user")]
    Name(String),
    /// The user already exists.
    #[error("user '{0}' already exists\nhelp: omit --create-user to use it, or name another with --user")]
    Exists(String),
    /// The home could not be created.
    #[error("cannot create or move the user's home: {0}")]
    Home(std::io::Error),
    /// The user cannot be found after it was created.
    #[error("{0}")]
    Lookup(String),
    /// Another user could replace the home during the move, so that root would move another directory and change its
    /// owner.
    #[error(
        "the home {} of user '{user}' cannot be moved: other users can replace it, because {why}\n\
         help: move it below a directory that only root can write (usermod --move-home --home), then run this \
         again",
        home.display()
    )]
    Exchangeable {
        /// The user.
        user: String,
        /// Its home in passwd(5).
        home: PathBuf,
        /// The reason.
        why: String,
    },
    /// The home belongs to another user, so it is not moved.
    #[error(
        "user '{user}' can write its home {}, which belongs to another user\n\
         help: remove the write permission (chmod g-w,o-w), or assign another home (usermod --home), then run \
         this again",
        home.display()
    )]
    WritableHome {
        /// The user.
        user: String,
        /// Its home in passwd(5).
        home: PathBuf,
    },
    /// Processes run as this user.
    #[error("processes run as user '{0}'\nhelp: end them first")]
    Busy(String),
    /// A program failed.
    #[error("cannot create or change the user: {program}: {message}")]
    Program {
        /// The program.
        program: &'static str,
        /// Its error output.
        message: String,
    },
}

/// Returns the default user of an agent without `--user`: `onecli-a-NAME`.
pub(super) fn name_for(agent: &AgentName) -> Result<String, UserError> {
    let name = format!("onecli-a-{}", agent.as_str().replace('.', "_"));
    if name.len() > MAX_NAME { Err(UserError::Name(name)) } else { Ok(name) }
}

/// [Creates](create) the user of an agent, with the name in `--user` or the default name.
pub(crate) fn make(named: Option<String>, agent: &AgentName) -> Result<String, UserError> {
    let name = named.map_or_else(|| name_for(agent), Ok)?;
    create(&name)?;
    Ok(name)
}

/// Returns the directory of the agents' homes.
pub(crate) fn agents_dir() -> AgentsDir {
    match std::env::var_os(AGENTS_DIR_VARIABLE).map(PathBuf::from) {
        Some(path) if path.is_absolute() => AgentsDir::at(path),
        _ => AgentsDir::default(),
    }
}

/// Creates a user without password and login shell, which the launcher accepts for agents. Its home in passwd(5) is an
/// empty directory that root owns, so host services find no file there that an agent wrote. The launcher shows the
/// agent a different home.
pub(crate) fn create(name: &str) -> Result<(), UserError> {
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

/// Removes the user that [`create`] created, for an agent that was not added.
pub(crate) fn remove(name: &str) -> Result<(), UserError> {
    run("userdel", &[name])?;
    let agents = agents_dir();
    for home in [agents.passwd_home(name), agents.home(name)] {
        delete(&home)?;
    }
    Ok(())
}

/// Deletes the temporary files of removed agents.
pub(crate) fn delete_leftovers(present: &[AgentId]) -> Result<(), UserError> {
    let agents = agents_dir();
    for agent in agents.kept_agents().iter().filter(|agent| !present.contains(agent)) {
        delete(&agents.agent(*agent))?;
    }
    Ok(())
}

/// Removes a directory of an agent that only root can replace. rm(1) handles trees of any depth.
fn delete(path: &Path) -> Result<(), UserError> {
    run("rm", &["--recursive", "--force", "--one-file-system", "--", &path.display().to_string()])
}

pub(crate) fn run(name: &'static str, args: &[&str]) -> Result<(), UserError> {
    program::run(name, args).map_err(|message| UserError::Program { program: name, message })
}
