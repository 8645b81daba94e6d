//! The reasons why a command cannot be started.

use std::io;
use std::path::PathBuf;

use super::text::shown;

/// Exit code if the command was never started.
pub const EXIT_NOT_STARTED: u8 = 125;

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
    #[error("cannot make the agent's view of the files: {step} {}: {source}", shown(path))]
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
            _ => EXIT_NOT_STARTED,
        }
    }
}
