//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use onecli_api::DEFAULT_SOCKET;
use onecli_model::recipe::RecipeName;
use onecli_model::{AgentName, CgroupName, Egress, Factors, MaskIssued, Runner, SecretName, TemplateName};

use super::approval::ApprovalCommand;
use super::audit_args::AuditCommand;
use super::ca_args::CaCommand;
use super::env_args::EnvArgs;
use super::import_args::ImportArgs;
use super::key_args::{KeyCommand, RestoreArgs};
use super::recipe_args::{AgentSetArgs, RecipeArgs, RecipeCommand};
use super::rule::RuleCommand;
use super::secret_args::SecretAddArgs;
use super::secret_edit_args::SecretEditArgs;
use super::secret_test::SecretTestArgs;
use super::setup::SetupArgs;
use super::vault::VaultCommand;
use super::why::WhyArgs;

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
    /// Answer in JSON: lists are arrays, audit is one object per line, errors are objects on standard error.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) color: colorchoice_clap::Color,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start a command as an agent: in its cgroup, as its user, with placeholders and CA trust.
    Run(RunArgs),
    /// Start agents for users who are not root; run by the service manager.
    #[command(hide = true)]
    Launcher(LauncherArgs),
    /// Speak to an address from where this process is; 'doctor' starts it in an agent's cgroup.
    #[command(hide = true)]
    SelfTestProbe {
        /// The address.
        address: SocketAddr,
    },
    /// Lead from an installed package to a first agent with a first credential.
    Setup(SetupArgs),
    /// Who may use credentials.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Credentials, where they may go, and how they are placed.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Common services that a secret can be stored for with --template.
    #[command(subcommand)]
    Template(TemplateCommand),
    /// What common agent programs need besides their credentials, for --recipe.
    #[command(subcommand)]
    Recipe(RecipeCommand),
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
    /// What agents may do besides their grants, and may not in spite of them.
    #[command(subcommand)]
    Rule(RuleCommand),
    /// What would be decided about a request, and why.
    Why(WhyArgs),
    /// Requests that wait for a person's word.
    #[command(subcommand)]
    Approval(ApprovalCommand),
    /// What agents asked for, what was decided, what came of it.
    #[command(subcommand)]
    Audit(Box<AuditCommand>),
    /// The authority that agents trust in place of the services'.
    #[command(subcommand)]
    Ca(CaCommand),
    /// The HashiCorp Vault or OpenBao server that values are fetched from.
    #[command(subcommand)]
    Vault(VaultCommand),
    /// The keys that open the vault.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Write a consistent copy of the database while the daemon serves. The key is not in it.
    #[command(after_help = "\
The file is new, mode 0600, and written by this command, not by the daemon. It holds agents, grants, audit records, and
secrets in sealed form: keep what opens the vault ('onecli key status') apart from it, or it is of no use.

Example:
  sudo onecli backup /srv/onecli-$(date +%F).db")]
    Backup {
        /// The file to write.
        file: PathBuf,
    },
    /// Put a backup in the database's place. The daemon must be stopped; the old database is kept aside.
    Restore(RestoreArgs),
    /// Is the daemon well? Counters count since its start; rates are those of the last minute.
    Status,
    /// Agents that run now: their users, cgroups, processes and connections, and since when.
    Ps,
    /// Is everything as it should be on this host, and what can be done about what is not?
    Doctor(DoctorArgs),
    /// Write the manual pages into a directory, for packages.
    #[command(hide = true)]
    Manual {
        /// It is made if it is missing.
        directory: PathBuf,
    },
    /// Print a script that completes this command's words in a shell. The Debian package has them in place.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Look at the host and the daemon.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Each line is OK, WARN or FAIL, with what to do about it. Exit code 1 when something is FAIL. Works with the daemon up
or down. As root it looks at everything; others see what the daemon tells, and what anybody may see.

The self-test adds an agent and a secret, sends the secret to a service of this command's own through the explicit proxy
and from the agent's cgroup, and removes both; its requests are in the audit log.")]
pub(super) struct DoctorArgs {
    /// The daemon's configuration file, read where no daemon answers; /etc/onecli/config.toml by default.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Only look: add no agent, and send nothing.
    #[arg(long)]
    pub(super) no_self_test: bool,
}

/// Start a command as an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The command starts in the agent's cgroup, as the agent's user, without capabilities and with no way to gain any.
Its environment is made anew: PATH, TERM, COLORTERM, LANG, LC_* and TZ are taken over, HOME, USER, LOGNAME and SHELL
are the user's, the usual CA variables name a bundle with OneCLI's authority in it, and each granted secret's variable
holds a placeholder. Everything else stays out unless --keep-env names it.

The agent works in the current directory, and changes files there as you. The first time you are asked on the terminal; a
script names the directory: --dir and its physical path. A home directory, and a hidden directory of one, has to be named
so. The agent does not see home directories, except its own and what --share adds. It has a /tmp and /var/tmp of its own,
which are kept between its runs, and deleted when it is removed.

Examples:
  onecli run --agent coder --dir /home/alice/project --share /home/alice/.nvm -- npm test
  sudo onecli run --agent coder -- curl https://api.openai.com/v1/models
  sudo onecli run --agent coder --keep-env EDITOR -- bash")]
pub(super) struct RunArgs {
    /// The agent; by default the only one that you may run.
    #[arg(long)]
    pub(super) agent: Option<AgentName>,
    /// Run as this user instead of the agent's own; never root.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Run as yourself, in the host's view of the files. Cooperative: what else runs as you is no boundary's other side.
    #[arg(long, conflicts_with = "user")]
    pub(super) scope: bool,
    /// The directory to start in, for the agent to use as its own: its files are yours, and so is what it makes there.
    /// By default the current directory, once you have confirmed it. Symbolic links are followed where root made them.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Leave the current directory as it is: the agent may do there what its user may.
    #[arg(long, conflicts_with = "dir")]
    pub(super) no_dir: bool,
    /// Show the agent this directory of yours besides, read-only; may be given again.
    #[arg(long, value_name = "DIR", conflicts_with = "scope")]
    pub(super) share: Vec<PathBuf>,
    /// The same, and let the agent change what is in it.
    #[arg(long, value_name = "DIR", conflicts_with = "scope")]
    pub(super) share_rw: Vec<PathBuf>,
    /// Take this variable over from the caller too; may be given again.
    #[arg(long, value_name = "VAR")]
    pub(super) keep_env: Vec<OsString>,
    /// Do not list what the agent was refused when the command ends.
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Set the variables that this program needs as an agent, and share the directories where it is usually installed.
    /// 'onecli recipe list' shows all.
    #[arg(long, value_name = "RECIPE")]
    pub(super) recipe: Option<RecipeName>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

/// Start agents for users who are not root.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The socket is the one that the service manager passes (LISTEN_FDS), or a new one. Everybody may connect; the daemon
decides who may run which agent.")]
pub(super) struct LauncherArgs {
    /// The socket; by default launch.sock beside the admin socket.
    #[arg(long, value_name = "PATH")]
    pub(super) listen: Option<PathBuf>,
    /// The group whose members are users for agents.
    #[arg(long, value_name = "GROUP", default_value = onecli_launch::worker::USERS)]
    pub(super) users: String,
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
    /// What a container, or another program elsewhere, needs to be an agent: a session token, the CA, placeholders.
    Env(EnvArgs),
    /// Let a user, or the members of a group, start commands as an agent, and see the requests of their own runs.
    AllowRun {
        /// The agent.
        name: AgentName,
        /// Who: alice, or @devs for a group.
        #[arg(value_name = "USER|@GROUP")]
        runner: Runner,
        /// Whether they also see the requests of runs that others started (with --all); no unless it was allowed before.
        #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
        see_all: Option<String>,
    },
    /// Take back what allow-run gave. What runs goes on: 'agent disable' takes its rights.
    DenyRun {
        /// The agent.
        name: AgentName,
        /// Who: alice, or @devs for a group.
        #[arg(value_name = "USER|@GROUP")]
        runner: Runner,
    },
    /// Change an agent, and print what changed.
    Set(AgentSetArgs),
    /// Remove an agent with its token, sessions, grants and rules. Its audit records stay.
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
    /// Convert accounts that agents run as: no login shell, and a home that no service of the host trusts.
    ///
    /// The files of the home move to where only the agent sees them, at the same path as before. The home itself becomes
    /// an empty directory of root's. As root; needs no daemon.
    ConvertUser {
        /// The users.
        #[arg(required_unless_present = "made", value_name = "USER")]
        users: Vec<String>,
        /// All that 'agent add --create-user' made.
        #[arg(long)]
        made: bool,
    },
    /// What an agent was refused, as the rules that would allow it. For a permitted runner: in the own runs.
    Learn {
        /// The agent.
        name: AgentName,
        /// In every run of the agent. Administrators always see every run; a runner needs 'allow-run --see-all yes'.
        #[arg(long)]
        all: bool,
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
    /// token, cgroup, or token+cgroup.
    #[arg(long)]
    pub(super) factors: Option<Factors>,
    /// Its cgroup, a direct child of the agents root; by default one made from its name.
    #[arg(long, value_name = "NAME")]
    pub(super) cgroup: Option<CgroupName>,
    /// The user its commands run as: existing, not root, no other agent's.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Make that user: without a password or a login shell, for nothing else. By default 'onecli-a-NAME'.
    #[arg(long)]
    pub(super) create_user: bool,
    /// Hosts that no grant names: deny or allow (without any credential).
    #[arg(long, default_value = "deny")]
    pub(super) egress: Egress,
    /// Who besides administrators may start commands as it; may be given again.
    #[arg(long = "runner", value_name = "USER|@GROUP")]
    pub(super) runners: Vec<Runner>,
    /// Let its commands change the configuration and hooks of git repositories in a project. Git runs what they name as
    /// the person who works there.
    #[arg(long)]
    pub(super) allow_git_config: bool,
    #[command(flatten)]
    pub(super) recipe: RecipeArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Store a credential.
    Add(Box<SecretAddArgs>),
    /// Store the values of a .env file as secrets, by templates.
    ///
    /// A variable that is a template's (`OPENAI_API_KEY`) becomes the secret of that template. Others are skipped and listed,
    /// and so are variables of secrets that exist. The file stays as it is: remove it, or what agents may read of it.
    Import {
        /// Lines of the form NAME=VALUE.
        file: PathBuf,
        #[command(flatten)]
        how: ImportArgs,
        /// What happens to credentials that the services issue in responses; see 'onecli secret add --help'.
        #[arg(long, value_name = "none|listed|all", default_value_t)]
        mask_issued: MaskIssued,
    },
    /// All secrets, without their values, which are never shown.
    List,
    /// One secret, without its value.
    Show {
        /// The secret.
        name: SecretName,
    },
    /// Give a secret a new value, from the next request on. Placeholders stay as they are.
    ///
    /// The replaced value is kept for `vault.keep_replaced`: 'onecli secret rollback' restores it.
    Rotate {
        /// The secret.
        name: SecretName,
        /// Others may know the old value: erase it now, and a kept one.
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Send one harmless request with a secret, and print what the service answered. Root only.
    Test(SecretTestArgs),
    Edit(Box<SecretEditArgs>),
    /// Restore the value before the current one, as a new version.
    ///
    /// Values are kept for `vault.keep_replaced` (24 h), but not those that 'rotate --compromised' replaced. A second rollback
    /// undoes the first. Refused where the secret goes further than it did with the old value.
    Rollback {
        /// The secret.
        name: SecretName,
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

/// Where a value is read from. Without either option that is standard input; a terminal is prompted.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ValueArgs {
    /// Read the value from standard input, even if that is a terminal.
    #[arg(long, conflicts_with = "value_file")]
    pub(super) value_stdin: bool,
    /// Read the value from a file.
    #[arg(long, value_name = "FILE")]
    pub(super) value_file: Option<PathBuf>,
    /// Store the value without a question, also if it does not look like the credential.
    #[arg(long)]
    pub(super) force: bool,
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
