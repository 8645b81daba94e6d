//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::secret_args::SecretAddArgs;
use crate::admin::api::{AuditQuery, DEFAULT_SOCKET};
use crate::model::{AgentName, CgroupName, Egress, Factors, SecretName, TemplateName};

/// OneCLI: let agents use credentials without having them.
#[derive(Debug, Parser)]
#[command(
    name = "onecli",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 daemon not reachable, 4 not permitted;
'run' exits with its command's code, or 125 (not started), 126 (not executable), 127 (not found).

Example, from a credential to its use:
  onecli secret add openai --host api.openai.com --bearer --env OPENAI_API_KEY
  onecli agent add coder --user coder
  onecli grant coder openai
  sudo onecli run --agent coder -- python3 agent.py"
)]
pub(super) struct Args {
    /// The daemon's admin socket.
    #[arg(long, global = true, env = "ONECLI_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,
    /// Answer in JSON: lists are arrays, audit is one object per line.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a command as an agent: in its cgroup, as its user, with placeholders and CA trust.
    Run(RunArgs),
    /// Who may use credentials.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Credentials, where they may go, and how they are placed.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Common services that a secret can be stored for with --template.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Let an agent use a secret, from its next request on.
    Grant {
        /// The agent.
        agent: AgentName,
        /// The secret.
        secret: SecretName,
    },
    /// Take a grant back, from the next request on.
    Ungrant {
        /// The agent.
        agent: AgentName,
        /// The secret.
        secret: SecretName,
    },
    /// What agents asked for, what was decided, what came of it.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The authority that agents trust in place of the services'.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Is the daemon well?
    Status,
}

/// Start a command as an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The command starts in the agent's cgroup, as the agent's user, without capabilities and with no way to gain any.
Its environment is made anew: PATH, TERM, COLORTERM, LANG, LC_* and TZ are taken over, HOME, USER, LOGNAME and SHELL
are the user's, the usual CA variables name a bundle with OneCLI's authority in it, and each granted secret's variable
holds a placeholder. Everything else stays out unless --keep-env names it.

Examples:
  sudo onecli run --agent coder -- curl https://api.openai.com/v1/models
  sudo onecli run --agent coder --user alice --keep-env EDITOR -- bash")]
pub(super) struct RunArgs {
    /// The agent.
    #[arg(long)]
    pub(super) agent: AgentName,
    /// Run as this user instead of the agent's own; never root.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Take this variable over from the caller too; may be given again.
    #[arg(long, value_name = "VAR")]
    pub(super) keep_env: Vec<OsString>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Add an agent; its token is shown once.
    Add(AgentAddArgs),
    /// All agents.
    List,
    /// One agent, and what it may use.
    Show {
        /// The agent.
        name: AgentName,
    },
    /// Give an agent a new token and new placeholders; the old ones end with this.
    Rotate {
        /// The agent.
        name: AgentName,
    },
    /// Refuse an agent everything, from its next request on.
    Disable {
        /// The agent.
        name: AgentName,
    },
    /// Let a disabled agent in again.
    Enable {
        /// The agent.
        name: AgentName,
    },
    /// Remove an agent with its token, sessions and grants. Its audit records stay.
    ///
    /// Refused while processes run in its cgroup: they would outlive the agent, and be the next one that is bound to
    /// the cgroup. To take its rights from running processes and let them live, disable it.
    Remove {
        /// The agent.
        name: AgentName,
        /// Kill what runs in its cgroup (SIGKILL), after its rights are gone.
        #[arg(long)]
        kill: bool,
    },
}

/// Add an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Factors are what an agent must prove before a credential is used for it: 'token' (its token, or a secret's
placeholder) and 'cgroup' (where its process runs, in the kernel's word). The default is both, or the token alone
where the daemon runs without eBPF.

Where a process runs is who it is: an agent is not added to a cgroup in which processes live already.

Examples:
  onecli agent add coder --user coder
  onecli agent add container --factors token
  onecli agent add crawler --user crawler --egress allow")]
pub(super) struct AgentAddArgs {
    /// Its name: a-z, 0-9, '-', '_', '.'.
    pub(super) name: AgentName,
    /// token, cgroup, or token,cgroup.
    #[arg(long)]
    pub(super) factors: Option<Factors>,
    /// Its cgroup, a direct child of the agents root; by default one made from its name.
    #[arg(long, value_name = "NAME")]
    pub(super) cgroup: Option<CgroupName>,
    /// The user its commands run as: existing, not root, no other agent's.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Hosts that no grant names: deny or allow (without any credential).
    #[arg(long, default_value = "deny")]
    pub(super) egress: Egress,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Store a credential.
    Add(Box<SecretAddArgs>),
    /// All secrets, without their values, which are never shown.
    List,
    /// One secret, without its value.
    Show {
        /// The secret.
        name: SecretName,
    },
    /// Give a secret a new value, from the next request on. Placeholders stay as they are.
    Rotate {
        /// The secret.
        name: SecretName,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Never use a secret, from the next request on.
    Disable {
        /// The secret.
        name: SecretName,
    },
    /// Use a disabled secret again.
    Enable {
        /// The secret.
        name: SecretName,
    },
    /// Remove a secret with all versions of its value and all grants for it.
    Remove {
        /// The secret.
        name: SecretName,
    },
}

/// Where a value is read from. Without either, a terminal is prompted.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ValueArgs {
    /// Read the value from standard input.
    #[arg(long, conflicts_with = "value_file")]
    pub(super) value_stdin: bool,
    /// Read the value from a file.
    #[arg(long, value_name = "FILE")]
    pub(super) value_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// The newest records, oldest first.
    List {
        /// Of this agent only.
        #[arg(long)]
        agent: Option<AgentName>,
        /// At most so many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(AuditQuery::MAX_LIMIT)))]
        limit: u32,
    },
    /// The last records, and with -f those to come.
    Tail {
        /// Of this agent only.
        #[arg(long)]
        agent: Option<AgentName>,
        /// Begin with so many.
        #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=i64::from(AuditQuery::MAX_LIMIT)))]
        lines: u32,
        /// Go on until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// All of them.
    List,
    /// One: its hosts, its placement, its variables, and what it refuses.
    Show {
        /// The template.
        name: TemplateName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Print the authority's certificate (PEM); its key never leaves the daemon.
    Export,
}
