//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use onecli_api::DEFAULT_SOCKET;
use onecli_model::{AgentName, SecretName};

use super::commands::agent::AgentCommand;
use super::commands::approval::ApprovalCommand;
use super::commands::audit::AuditCommand;
use super::commands::backup::RestoreArgs;
use super::commands::ca::CaCommand;
use super::commands::doctor::DoctorArgs;
use super::commands::key::KeyCommand;
use super::commands::recipe::RecipeCommand;
use super::commands::rule::{RuleCommand, WhyArgs};
use super::commands::run::{LauncherArgs, RunArgs};
use super::commands::secret::SecretCommand;
use super::commands::setup::SetupArgs;
use super::commands::template::TemplateCommand;
use super::commands::vault::VaultCommand;

/// OneCLI lets AI agents use credentials without access to their values.
#[derive(Debug, Parser)]
#[command(
    name = "onecli",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 success, 1 failure, 2 usage, 3 daemon not reachable, 4 not permitted;
'run' exits with its command's code, or 125 (not started), 126 (not executable), 127 (not found).

Example, from storing a credential to its use:
  onecli secret add openai --host api.openai.com --bearer --env OPENAI_API_KEY
  onecli agent add coder --user coder
  onecli grant coder openai
  sudo onecli run --agent coder -- python3 agent.py"
)]
pub(super) struct Args {
    /// The path of the daemon's admin socket.
    #[arg(long, global = true, env = "ONECLI_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// Print JSON: lists are arrays, the audit log is one object per line, errors are objects on standard error.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) color: colorchoice_clap::Color,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a command as an agent: in its cgroup, as its user, with placeholders and trust in OneCLI's CA.
    Run(RunArgs),
    /// Start agents for users other than root; run by the service manager.
    #[command(hide = true)]
    Launcher(LauncherArgs),
    /// Connect to an address from this process; 'doctor' runs it in an agent's cgroup.
    #[command(hide = true)]
    SelfTestProbe {
        /// The address.
        address: SocketAddr,
    },
    /// Set up a first agent with a first credential.
    Setup(SetupArgs),
    /// Manage agents.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Manage secrets: credentials, their destinations and their placement in requests.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Show the built-in templates of common services, for --template.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Show the built-in recipes of common agent programs, for --recipe.
    #[command(subcommand)]
    Recipe(RecipeCommand),
    /// Allow an agent to use a secret, starting with its next request.
    Grant {
        /// The agent.
        agent: AgentName,
        /// The secret.
        secret: SecretName,
    },
    /// Revoke a grant, starting with the next request.
    Ungrant {
        /// The agent.
        agent: AgentName,
        /// The secret.
        secret: SecretName,
    },
    /// Manage rules, which allow, deny, limit or require approval for agents' requests.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Explain the decision about a request.
    Why(WhyArgs),
    /// Manage requests that await approval.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// Query, export and verify the audit log.
    #[command(subcommand)]
    Audit(Box<AuditCommand>),
    /// Manage the certificate authority that agents trust.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Manage the HashiCorp Vault or OpenBao server that values are fetched from.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// Manage the keys that open the vault.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Write a consistent copy of the database while the daemon runs. The copy does not contain the key.
    #[command(after_help = "\
Store the keys that open the vault ('onecli key status') in another place: without one of them, the backup is useless.

This command, not the daemon, writes the file. The file must not exist, and gets mode 0600. It contains agents, grants,
audit records, and secrets in sealed form.

Example:
  sudo onecli backup /srv/onecli-$(date +%F).db")]
    Backup {
        /// The file to write.
        file: PathBuf,
    },
    /// Replace the database by a backup. The daemon must be stopped; the old database is retained under another name.
    Restore(RestoreArgs),
    /// Show the daemon's state. Counters start with the daemon; rates cover the last minute.
    Status,
    /// List the agents that run now, with their users, cgroups, processes, connections and start times.
    Ps,
    /// Check this host and the daemon, and print a fix for each problem.
    Doctor(DoctorArgs),
    /// Write the manual pages into a directory, for packages.
    #[command(hide = true)]
    Manual {
        /// The directory; created if it does not exist.
        directory: PathBuf,
    },
    /// Print a shell completion script. The Debian package installs these scripts.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Returns the definition of this command line, for completion scripts and manual pages.
pub fn definition() -> clap::Command {
    Args::command()
}
