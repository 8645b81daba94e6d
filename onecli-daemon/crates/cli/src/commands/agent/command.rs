//! `onecli agent ...`.

use clap::Subcommand;
use onecli_model::{AgentName, Runner};

use super::add::{self, AgentAddArgs};
use super::env_args::EnvArgs;
use super::set::{self, AgentSetArgs};
use super::{account, enable, env, list, remove, rotate, runners, show};
use crate::client::Client;
use crate::commands::rule;
use crate::error::CliError;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Add an agent. Its token is shown once.
    Add(AgentAddArgs),
    /// List all agents.
    List,
    /// Show an agent and its grants.
    Show {
        /// The agent.
        name: AgentName,
    },
    /// Create a new token and new placeholders for an agent. The old ones become invalid.
    Rotate {
        /// The agent.
        name: AgentName,
    },
    /// Refuse all of an agent's requests, starting with the next one.
    Disable {
        /// The agent.
        name: AgentName,
    },
    /// Enable a disabled agent.
    Enable {
        /// The agent.
        name: AgentName,
    },
    /// Print the settings with which a container or another environment runs as an agent: a session token, the CA,
    /// placeholders.
    Env(EnvArgs),
    /// Allow a user or the members of a group to start commands as an agent, and to see the requests of their own runs.
    AllowRun {
        /// The agent.
        name: AgentName,
        /// The user, or the group with '@': alice, @devs.
        #[arg(value_name = "USER|@GROUP")]
        runner: Runner,
        /// Whether they may also see the requests of runs that others started (with --all). Default: unchanged;
        /// initially no.
        #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
        see_all: Option<String>,
    },
    /// Revoke a permission of 'allow-run'. Running commands continue; 'agent disable' stops their access.
    DenyRun {
        /// The agent.
        name: AgentName,
        /// The user, or the group with '@': alice, @devs.
        #[arg(value_name = "USER|@GROUP")]
        runner: Runner,
    },
    /// Change an agent, and print the changes.
    Set(AgentSetArgs),
    /// Remove an agent with its token, sessions, grants and rules. Its audit records remain.
    ///
    /// The daemon refuses this while processes run in the agent's cgroup: they would outlive the agent, and then belong
    /// to the next agent of that cgroup. To revoke the access of running processes without ending them, use 'agent
    /// disable'.
    Remove {
        /// The agent.
        name: AgentName,
        /// Kill the processes in the agent's cgroup (SIGKILL), after revoking their access.
        #[arg(long)]
        kill: bool,
    },
    /// Convert accounts that agents run as: no login shell, and a home that no host service trusts.
    ///
    /// The files of the home move to a directory that only the agent sees, at the same path as before. The home itself
    /// becomes an empty directory that belongs to root. Requires root; does not require the daemon.
    ConvertUser {
        /// The users.
        #[arg(required_unless_present = "made", value_name = "USER")]
        users: Vec<String>,
        /// Convert all users that 'agent add --create-user' created.
        #[arg(long)]
        made: bool,
    },
    /// Print the rules that would allow an agent's refused requests. For a permitted runner: the requests of their own
    /// runs.
    Learn {
        /// The agent.
        name: AgentName,
        /// Include every run of the agent. Administrators always see every run; a runner needs 'allow-run --see-all
        /// yes'.
        #[arg(long)]
        all: bool,
    },
}

pub(crate) fn run(client: &Client, command: AgentCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        AgentCommand::Add(args) => add::add(client, args, output),
        AgentCommand::List => list::list(client, output),
        AgentCommand::Show { name } => show::show(client, &name, output),
        AgentCommand::Rotate { name } => rotate::rotate(client, &name, output),
        AgentCommand::Disable { name } => enable::set_enabled(client, &name, false, output),
        AgentCommand::Enable { name } => enable::set_enabled(client, &name, true, output),
        AgentCommand::Env(args) => env::env(client, &args, output),
        AgentCommand::Set(args) => set::set(client, &args, output),
        AgentCommand::AllowRun { name, runner, see_all } => {
            runners::allow_run(client, &name, &runner, see_all.as_deref(), output)
        }
        AgentCommand::DenyRun { name, runner } => runners::deny_run(client, &name, &runner, output),
        AgentCommand::Remove { name, kill } => remove::remove(client, &name, kill, output),
        AgentCommand::ConvertUser { users, made } => account::convert(&users, made, output),
        AgentCommand::Learn { name, all } => rule::learn(client, &name, all, output),
    }
}
