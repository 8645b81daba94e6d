//! Runs one command of one client: starts it as the agent, and watches it until it ends.
//!
//! The worker is root and not in the agent's cgroup. The command is its child and leads its own process group in the
//! worker's session, so that it can be stopped and continued as by a shell.

mod admit;
mod children;
mod prepare;
mod start;
mod watch;

pub use start::default_action;

use jiff::Timestamp;
use onecli_model::{AgentId, Clock as _};
use onecli_sys::SystemClock;

use super::agents_dir::AgentsDir;
use super::wire::{Event, Subject, Wire};
use super::{AgentEnvironment, OURS};
use admit::{Authorisation, REQUEST_TIME, authorise, receive};
use prepare::prepare;
use watch::watch;

/// The default group of users for agents.
pub const USERS: &str = "onecli-agents";

/// The process that requests a command, according to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Path in the cgroup2 hierarchy.
    pub cgroup: Option<String>,
}

/// The daemon's answer for a caller who may run the agent.
#[derive(Debug)]
pub struct Permission {
    /// The agent.
    pub agent: AgentId,
    /// The user that runs the command.
    pub user: String,
    /// Directory of the agent's cgroup; `None` if connections are not redirected.
    pub cgroup: Option<std::path::PathBuf>,
    /// Variables for the environment.
    pub environment: AgentEnvironment,
    /// Directories that the command must not see.
    pub hidden: Vec<std::path::PathBuf>,
    /// Whether the command may change the configuration and the hooks of git repositories.
    pub allow_git_config: bool,
    /// Messages for the caller.
    pub notes: Vec<String>,
}

/// Asks the daemon for a caller's permission. Errors are sentences.
pub type Ask<'a> = &'a dyn Fn(&Subject, &Caller) -> Result<Permission, String>;

/// Returns a summary of the agent's refused requests since a time; the agent is given by name. `None` if there were
/// none.
pub type Refused<'a> = &'a dyn Fn(&str, Timestamp) -> Option<String>;

/// The launcher's rules for users, and the place of their files.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The group whose members are users for agents. A caller other than root may run commands only as these users.
    pub users: String,
    /// The directory of agents' homes and state.
    pub agents: AgentsDir,
}

/// Called once the daemon has authorised the caller, before resources are spent on its command. The launcher's limits
/// for unauthorised callers no longer apply then.
pub type Authorised<'a> = &'a dyn Fn();

/// Serves the client at the other end of `wire` until its command ends.
pub fn serve(
    wire: &Wire,
    caller: &Caller,
    rules: &Rules,
    (ask, refused_since): (Ask<'_>, Refused<'_>),
    authorised: Authorised<'_>,
) {
    let begun = SystemClock.now();
    let refused = |message: String| {
        let _ = wire.send(&Event::Failed { code: OURS, message }, &[]);
    };
    let _ = wire.set_write_timeout(Some(REQUEST_TIME));
    let received = authorise(wire, caller, ask).and_then(|authorisation| {
        let Some((subject, permission)) = authorisation else { return Ok(None) };
        let since = SystemClock.instant();
        authorised();
        let received = receive(wire, caller, subject)?;
        Ok(received.map(|(request, descriptors)| (request, Authorisation { permission, since }, descriptors)))
    });
    let (request, authorisation, descriptors) = match received {
        Ok(Some(received)) => received,
        Ok(None) => return,
        Err(message) => return refused(message),
    };
    let _ = wire.set_write_timeout(None);
    let started = prepare(wire, caller, rules, ask, authorisation, &request, descriptors);
    match started {
        Ok(command) => {
            let summary = || if request.quiet { None } else { refused_since(&request.agent, begun) };
            if let Err(error) = watch(wire, command, &summary) {
                refused(format!("the launcher cannot watch the command: {error}"));
            }
        }
        Err((code, message)) => {
            let _ = wire.send(&Event::Failed { code, message }, &[]);
        }
    }
}
