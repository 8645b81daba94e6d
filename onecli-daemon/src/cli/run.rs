//! `onecli run`: becomes the agent's command.

use super::args::RunArgs;
use super::client::{Client, ClientError};
use super::complain;
use crate::admin::api::{Session, SessionRequest, routes};
use crate::launch::{AgentEnvironment, Launch, LaunchError, LaunchUser, environment};

/// Exit code where the command was never started.
pub(super) const OURS: u8 = 125;

/// Why the command was not started.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Returns only if the command was not started.
pub(super) fn run(client: &Client, args: RunArgs) -> u8 {
    let error = match start(client, args) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    complain(&error);
    match error {
        RunError::Launch(error) => error.exit_code(),
        RunError::Client(_) => OURS,
    }
}

fn start(client: &Client, args: RunArgs) -> Result<std::convert::Infallible, RunError> {
    let request = SessionRequest { user: args.user, caller: None };
    let session: Session = client.post(&routes::agent_action(&args.agent, "session"), &request)?;
    if session.cgroup.is_none() {
        complain(&format!(
            "note: connections are not redirected on this host; agent '{}' is guided by proxy variables only",
            session.agent
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(LaunchError::NotRoot.into());
    }
    let user = LaunchUser::find(&session.user)?;
    let agent = AgentEnvironment {
        ca_bundle: session.ca_bundle,
        placeholders: session.placeholders,
        proxy: session.proxy,
    };
    let env = environment(std::env::vars_os(), &args.keep_env, &user, &agent)?;
    let mut command = args.command.into_iter();
    let program = command.next().unwrap_or_default();
    let launch = Launch { user, cgroup: session.cgroup, env, program, args: command.collect() };
    Ok(launch.exec(&mut |notice| complain(&notice))?)
}
