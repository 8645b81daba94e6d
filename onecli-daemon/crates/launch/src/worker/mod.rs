//! One command of one client: started as the agent, watched to its end.
//!
//! The worker is root and not in the agent's cgroup; the command is its child, the leader of a process group of its own
//! in the worker's session, so that it can be stopped and continued as by a shell.

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

/// The group of users for agents, unless told otherwise.
pub const USERS: &str = "onecli-agents";

/// Who asks for a command, in the kernel's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
    /// Path in the cgroup2 hierarchy.
    pub cgroup: Option<String>,
}

/// What the daemon answers for a caller who may run the agent.
#[derive(Debug)]
pub struct Permission {
    /// The agent.
    pub agent: AgentId,
    /// The user to run as.
    pub user: String,
    /// Directory of the agent's cgroup; none where connections are not redirected.
    pub cgroup: Option<std::path::PathBuf>,
    /// What belongs into the environment.
    pub environment: AgentEnvironment,
    /// Directories that the command shall not see.
    pub hidden: Vec<std::path::PathBuf>,
    /// Whether the command may change the configuration and the hooks of git repositories.
    pub allow_git_config: bool,
    /// What the person should know.
    pub notes: Vec<String>,
}

/// Asks the daemon for a caller's permission; errors are sentences.
pub type Ask<'a> = &'a dyn Fn(&Subject, &Caller) -> Result<Permission, String>;

/// Tells what an agent, by its name, was refused since then; `None` if that is nothing.
pub type Refused<'a> = &'a dyn Fn(&str, Timestamp) -> Option<String>;

/// How a launcher judges users, and where it keeps what is theirs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The group whose members are users for agents: whom somebody who is not root may start a command as.
    pub users: String,
    /// Where agents' homes are, and what is kept for them.
    pub agents: AgentsDir,
}

/// Called once the daemon has authorised the caller, before anything is spent on its command. The launcher's limits for
/// unauthorised callers end there.
pub type Authorised<'a> = &'a dyn Fn();

/// Does what the client at the other end of `wire` wants, to the command's end.
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
                refused(format!("the launcher lost its command: {error}"));
            }
        }
        Err((code, message)) => {
            let _ = wire.send(&Event::Failed { code, message }, &[]);
        }
    }
}
