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

/// Check the host and the daemon.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Each line is OK, WARN or FAIL, with a fix. The exit code is 1 if a check is FAIL. The command works whether or not the
daemon runs. As root it checks everything; for other users it checks what the daemon reports and what they may read.

The self-test adds an agent and a secret, and sends the secret to a service that this command starts, through the
explicit proxy and from the agent's cgroup. It then removes both. Its requests remain in the audit log.")]
pub(super) struct DoctorArgs {
    /// The daemon's configuration file, used if no daemon responds. Default: /etc/onecli/config.toml.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Skip the self-test: add no agent, and send nothing.
    #[arg(long)]
    pub(super) no_self_test: bool,
}

/// Run a command as an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The command starts in the agent's cgroup, as the agent's user, without capabilities and with no way to gain any.
It gets a new environment. PATH, TERM, COLORTERM, LANG, LC_* and TZ are passed through; HOME, USER, LOGNAME and SHELL
are those of the user; the usual CA variables name a bundle that includes OneCLI's CA; and each granted secret's
variable contains a placeholder. No other variable is passed unless --keep-env names it.

The agent works in the current directory, and changes files there with your rights. The first time, the command asks for
confirmation on the terminal. A script must name the directory with --dir and its physical path. The same is required
for a home directory and for a hidden directory in one. The agent does not see home directories, except its own and
those that --share adds. It has its own /tmp and /var/tmp, which last until the agent is removed.

Examples:
  onecli run --agent coder --dir /home/alice/project --share /home/alice/.nvm -- npm test
  sudo onecli run --agent coder -- curl https://api.openai.com/v1/models
  sudo onecli run --agent coder --keep-env EDITOR -- bash")]
pub(super) struct RunArgs {
    /// The agent. Default: the only agent that you may run.
    #[arg(long)]
    pub(super) agent: Option<AgentName>,
    /// Run as this user instead of the agent's own; never root.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Run as yourself, with the host's view of the file system. This is no security boundary against other processes
    /// that run as you.
    #[arg(long, conflicts_with = "user")]
    pub(super) scope: bool,
    /// The directory to start in. The agent works there with your rights, and files that it creates belong to you.
    /// Default: the current directory, after confirmation. Symbolic links are followed only if root created them.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Do not give the agent your rights in the current directory: only its own user's rights apply there.
    #[arg(long, conflicts_with = "dir")]
    pub(super) no_dir: bool,
    /// Share another of your directories with the agent, read-only; may be given again.
    #[arg(long, value_name = "DIR", conflicts_with = "scope")]
    pub(super) share: Vec<PathBuf>,
    /// Share another of your directories with the agent, and let the agent change it; may be given again.
    #[arg(long, value_name = "DIR", conflicts_with = "scope")]
    pub(super) share_rw: Vec<PathBuf>,
    /// Pass this environment variable to the command as well; may be given again.
    #[arg(long, value_name = "VAR")]
    pub(super) keep_env: Vec<OsString>,
    /// Do not list the agent's refused requests when the command ends.
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Set the variables that this program needs as an agent, and share the directories where it is usually installed.
    /// 'onecli recipe list' shows all recipes.
    #[arg(long, value_name = "RECIPE")]
    pub(super) recipe: Option<RecipeName>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

/// Start agents for users other than root.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The service manager passes the socket (LISTEN_FDS); otherwise the launcher creates one. Every user may connect; the
daemon decides which agents a user may run.")]
pub(super) struct LauncherArgs {
    /// The path of the socket. Default: launch.sock in the directory of the admin socket.
    #[arg(long, value_name = "PATH")]
    pub(super) listen: Option<PathBuf>,
    /// The group whose members are users for agents.
    #[arg(long, value_name = "GROUP", default_value = onecli_launch::worker::USERS)]
    pub(super) users: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
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

/// Add an agent.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Factors are the proofs that an agent must present before the daemon uses a credential for it: 'token' (its token, or a
secret's placeholder) and 'cgroup' (the cgroup of its process, according to the kernel). The default is both, or only
the token if the daemon runs without eBPF.

The cgroup identifies the agent, so the cgroup of a new agent must not contain processes.

Examples:
  onecli agent add coder --user coder
  onecli agent add container --factors token
  onecli agent add crawler --user crawler --egress allow")]
pub(super) struct AgentAddArgs {
    /// The agent's name: a-z, 0-9, '-', '_', '.'.
    pub(super) name: AgentName,
    /// The required factors: token, cgroup, or token+cgroup.
    #[arg(long)]
    pub(super) factors: Option<Factors>,
    /// The agent's cgroup, a direct child of the agents root. Default: derived from its name.
    #[arg(long, value_name = "NAME")]
    pub(super) cgroup: Option<CgroupName>,
    /// The existing user that its commands run as. Must not be root or another agent's user.
    #[arg(long)]
    pub(super) user: Option<String>,
    /// Create a dedicated user without a password or login shell. Default name: 'onecli-a-NAME'.
    #[arg(long)]
    pub(super) create_user: bool,
    /// The policy for hosts that no grant or rule names: deny, or allow (without any credential).
    #[arg(long, default_value = "deny")]
    pub(super) egress: Egress,
    /// A user or group, besides administrators, that may start commands as the agent; may be given again.
    #[arg(long = "runner", value_name = "USER|@GROUP")]
    pub(super) runners: Vec<Runner>,
    /// Let its commands change the configuration and hooks of git repositories in a project. Git runs the programs
    /// named there as the user who works in the project.
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
    /// A variable of a template (`OPENAI_API_KEY`) becomes the secret of that template. Other variables, and variables
    /// whose secret exists already, are skipped and listed. The file stays unchanged: remove it, or the values that
    /// agents may read in it.
    Import {
        /// A file with lines of the form NAME=VALUE.
        file: PathBuf,
        #[command(flatten)]
        how: ImportArgs,
        /// The treatment of credentials that the services issue in responses; see 'onecli secret add --help'.
        #[arg(long, value_name = "none|listed|all", default_value_t)]
        mask_issued: MaskIssued,
    },
    /// List all secrets, without their values, which are never shown.
    List,
    /// Show a secret, without its value.
    Show {
        /// The secret.
        name: SecretName,
    },
    /// Store a new value for a secret, used starting with the next request. Placeholders stay unchanged.
    ///
    /// The replaced value is retained for `vault.keep_replaced`, and 'onecli secret rollback' restores it.
    Rotate {
        /// The secret.
        name: SecretName,
        /// Erase the old value and any retained value now, because others may know them.
        #[arg(long)]
        compromised: bool,
        #[command(flatten)]
        value: ValueArgs,
    },
    /// Send one harmless request with a secret, and print the service's response. Root only.
    Test(SecretTestArgs),
    Edit(Box<SecretEditArgs>),
    /// Restore the previous value, as a new version.
    ///
    /// Replaced values are retained for `vault.keep_replaced` (24 h), except values replaced by 'rotate --compromised'.
    /// A second rollback undoes the first. The daemon refuses this if the secret now has destinations that the old
    /// value did not have.
    Rollback {
        /// The secret.
        name: SecretName,
    },
    /// Stop using a secret, starting with the next request.
    Disable {
        /// The secret.
        name: SecretName,
    },
    /// Enable a disabled secret.
    Enable {
        /// The secret.
        name: SecretName,
    },
    /// Remove a secret with all versions of its value and all of its grants.
    Remove {
        /// The secret.
        name: SecretName,
    },
}

/// The source of a value. Default: standard input, with a prompt on a terminal.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ValueArgs {
    /// Read the value from standard input, even if it is a terminal.
    #[arg(long, conflicts_with = "value_file")]
    pub(super) value_stdin: bool,
    /// Read the value from a file.
    #[arg(long, value_name = "FILE")]
    pub(super) value_file: Option<PathBuf>,
    /// Store the value without confirmation, even if it does not look like the expected credential.
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// List all templates.
    List,
    /// Show a template: its hosts, its placement, its variables, and what it refuses.
    Show {
        /// The template.
        name: TemplateName,
    },
}
