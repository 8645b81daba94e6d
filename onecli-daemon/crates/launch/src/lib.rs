//! Starts a command as an agent: in its cgroup, as its user, without privileges, with a view of the files without the
//! host's services, and with an environment without secrets.
//!
//! [`run`] is the client side, which the user starts. [`worker::serve`] is the launcher side, which runs as root: it
//! asks the daemon whether the user may start the command, and forks. The child becomes the command ([`Launch::exec`]).
//! Between the two sides is a [`Wire`]: to the launcher's socket or, if the user is root, within one program.

mod agents_dir;
mod cgroup;
mod client;
mod clients;
mod confine;
mod confirm;
mod confirmed;
mod deadline;
mod decide;
mod devices;
mod env;
mod executed;
mod gate;
mod git_dir;
mod handover;
mod hold;
mod homes;
mod leftovers;
mod mounts;
mod permitted;
mod places;
mod program;
mod project;
mod protect;
mod reset;
mod runs;
mod scope;
mod seccomp;
mod server;
mod set_id;
mod start;
mod subordinate;
mod terminal;
mod tree;
mod truststore;
mod user;
mod watched;
mod way;
mod wire;
pub mod worker;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use project::Mapped;

pub use agents_dir::{AGENTS_DIR, AgentsDir};
pub use client::{Ending, Standard, run};
pub use clients::{Trust, installed_clients};
pub use env::{AgentEnvironment, CA_VARIABLES, environment, proxy_environment, taken_over};
pub use executed::configs_of_environment;
pub use homes::{Homes, is_system};
pub use mounts::{BUNDLE, JAVA_TRUST_STORE, View};
pub use program::find as find_program;
pub use runs::clean_up;
pub use server::{DEFAULT_SOCKET, ServerError, beside, in_process, listener, serve};
pub use terminal::size as terminal_size;
pub use tree::shown;
pub use truststore::java_trust_store;
pub use user::{LaunchUser, is_no_login};
pub use wire::{MAX_SHARES, Project, Request, Subject, Wire};
pub use worker::{Ask, Authorised, Caller, Permission, Rules, default_action};

/// Exit code if the command was never started.
pub const OURS: u8 = 125;

/// Reasons why a command could not be started as the agent.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The caller is not root.
    #[error("only root can start an agent: run the command with sudo")]
    NotRoot,
    /// The user does not exist.
    #[error(
        "there is no user '{0}' on this host: create it with 'useradd --system {0}', or name another with --user"
    )]
    NoUser(String),
    /// An agent must not be uid 0.
    #[error("an agent never runs as root ('{0}' has uid or gid 0): name another user with --user")]
    RootUser(String),
    /// The user database could not be queried.
    #[error("cannot look up user '{user}': {source}")]
    UserLookup {
        /// The user.
        user: String,
        /// The error of `getpwnam_r(3)` or getgrouplist(3).
        source: io::Error,
    },
    /// A name for `--keep-env` that is not a valid variable name.
    #[error("'{0}' is not a valid name for an environment variable")]
    EnvName(String),
    /// The directory is not in a cgroup2 file system.
    #[error("{} is not in a cgroup2 file system", .0.display())]
    NotCgroup(PathBuf),
    /// A cgroup file could not be read or written.
    #[error("cannot enter the agent's cgroup: {}: {source}", path.display())]
    Cgroup {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The kernel placed the process in another cgroup than requested.
    #[error("the command should be in cgroup {expected}, but the kernel reports {actual}")]
    WrongCgroup {
        /// The expected cgroup, below the mount.
        expected: String,
        /// The actual cgroup.
        actual: String,
    },
    /// systemd did not move the process into the agent's slice.
    #[error("systemd cannot move the command into {slice}: {message}")]
    Scope {
        /// The slice.
        slice: String,
        /// The error output of busctl(1).
        message: String,
    },
    /// The agent's own view of the files could not be made. Nothing was started.
    #[error("cannot make the agent's view of the files: {step} {}: {source}", tree::shown(path))]
    View {
        /// The failed operation.
        step: &'static str,
        /// The path it failed on.
        path: PathBuf,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The requested directory cannot be handed to the agent.
    #[error("{0}")]
    Project(String),
    /// A privilege could not be given up. Nothing was started.
    #[error("cannot confine the agent: {step}: {source}")]
    Confine {
        /// The system call, and its purpose.
        step: &'static str,
        /// The error of the kernel.
        source: io::Error,
    },
    /// A privilege is still present after it was dropped. Nothing was started.
    #[error("cannot confine the agent: {0}")]
    StillPrivileged(String),
    /// The command does not exist.
    #[error("{0}: command not found in the agent's PATH")]
    NotFound(String),
    /// The command exists but cannot be executed.
    #[error("{command}: cannot be executed as user '{user}': {source}")]
    NotExecutable {
        /// The command as the user named it.
        command: String,
        /// The user that should run it.
        user: String,
        /// The error of execve(2).
        source: io::Error,
    },
}

impl LaunchError {
    /// Returns the exit status of `run`, with the meanings of env(1) and nohup(1): 127 not found, 126 not executable,
    /// 125 failed before the command.
    pub fn exit_code(&self) -> u8 {
        match self {
            LaunchError::NotFound(_) => 127,
            LaunchError::NotExecutable { .. } => 126,
            _ => OURS,
        }
    }
}

/// A command that is ready to start.
pub struct Launch {
    /// The user that runs it.
    pub user: LaunchUser,
    /// Uid of the user who launches it.
    pub caller: u32,
    /// Directory of the managed cgroup to enter; `None` leaves the cgroup unchanged.
    pub cgroup: Option<PathBuf>,
    /// The complete environment, from [`environment`].
    pub env: Vec<(OsString, OsString)>,
    /// The command: a path, or a name that the user looks up in the PATH of `env`.
    pub program: OsString,
    /// Arguments after the command's name.
    pub args: Vec<OsString>,
    /// The command's own view of the files; `None` leaves the host's.
    pub view: Option<View>,
    /// The directory in which it starts, as a path in that view.
    pub directory: PathBuf,
    /// Device and inode of that directory on the host. In the view, another one may be at its path.
    pub directory_id: Option<(u64, u64)>,
}

/// Omits arguments and environment, which may contain the user's own credentials.
impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch")
            .field("user", &self.user.name)
            .field("cgroup", &self.cgroup)
            .field("program", &self.program)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Launch {
    /// Replaces this process with the command. Returns only on failure. The process may have dropped privileges by then
    /// and can only exit.
    ///
    /// `directories` are mounted in the view, and then `entered` is called. `notice` receives messages for the user at
    /// the terminal.
    ///
    /// # Errors
    /// [`LaunchError`].
    fn exec(
        self,
        directories: Vec<Mapped<'_>>,
        entered: &dyn Fn(),
        notice: &mut dyn FnMut(&str),
    ) -> Result<Infallible, LaunchError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LaunchError::NotRoot);
        }
        if let Some(directory) = &self.cgroup {
            cgroup::enter(directory, self.caller)?;
        }
        confine::close_inherited_files()?;
        confine::forbid_core_files()?;
        if let Some(view) = &self.view {
            view.enter(&self.user, directories, notice)?;
            entered();
        }
        confine::become_user(&self.user)?;
        confine::drop_capabilities()?;
        confine::check_unprivileged(&self.user)?;
        self.settle_directory(notice);
        confine::forbid_new_privileges()?;
        if !scope::restrict()? {
            notice(
                "this kernel cannot restrict abstract sockets and signals (needs Landlock of Linux 6.12): \
                 the agent can reach those of the host",
            );
        }
        seccomp::install()?;

        let path = self.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let command = || self.program.to_string_lossy().into_owned();
        let file = program::find(&self.program, path.unwrap_or_default())
            .ok_or_else(|| LaunchError::NotFound(command()))?;
        let error = Command::new(file).arg0(&self.program).args(&self.args).env_clear().envs(self.env).exec();
        Err(LaunchError::NotExecutable { command: command(), user: self.user.name, source: error })
    }

    /// Whether the current directory is the requested one. The view's own `/tmp` may contain an old mount point of the
    /// same name.
    fn is_in_directory(&self) -> bool {
        let here = nix::sys::stat::stat(".").ok().map(|found| (found.st_dev, found.st_ino));
        self.directory_id.is_none() || here == self.directory_id
    }

    /// Changes to a directory that the user can enter. Otherwise programs fail in ways that are hard to understand.
    fn settle_directory(&self, notice: &mut dyn FnMut(&str)) {
        // By path: a descriptor would refer to the host's view.
        if std::env::set_current_dir(&self.directory).is_ok() && self.is_in_directory() {
            return;
        }
        let fallback = [self.user.home.as_path(), Path::new("/")]
            .into_iter()
            .find(|directory| std::env::set_current_dir(directory).is_ok());
        if let Some(directory) = fallback {
            notice(&format!(
                "user '{}' cannot enter the current directory; starting in {}",
                self.user.name,
                tree::shown(directory)
            ));
        }
    }
}

#[cfg(test)]
mod tests;
