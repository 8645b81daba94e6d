//! Options of `onecli run` and `onecli launcher`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use onecli_model::AgentName;
use onecli_model::recipe::RecipeName;

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
pub(crate) struct RunArgs {
    /// The agent. Default: the only agent that you may run.
    #[arg(long)]
    pub(crate) agent: Option<AgentName>,
    /// Run as this user instead of the agent's own; never root.
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Run as yourself, with the host's view of the file system. This is no security boundary against other processes
    /// that run as you.
    #[arg(long, conflicts_with = "user")]
    pub(crate) scope: bool,
    /// The directory to start in. The agent works there with your rights, and files that it creates belong to you.
    /// Default: the current directory, after confirmation. Symbolic links are followed only if root created them.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Do not give the agent your rights in the current directory: only its own user's rights apply there.
    #[arg(long, conflicts_with = "dir")]
    pub(super) no_dir: bool,
    /// Share another of your directories with the agent, read-only; may be given again.
    #[arg(long, value_name = "DIR", conflicts_with = "scope")]
    pub(crate) share: Vec<PathBuf>,
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
    pub(crate) recipe: Option<RecipeName>,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// Start agents for users other than root.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
The service manager passes the socket (LISTEN_FDS); otherwise the launcher creates one. Every user may connect; the
daemon decides which agents a user may run.")]
pub(crate) struct LauncherArgs {
    /// The path of the socket. Default: launch.sock in the directory of the admin socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) listen: Option<PathBuf>,
    /// The group whose members are users for agents.
    #[arg(long, value_name = "GROUP", default_value = onecli_launch::worker::USERS)]
    pub(crate) users: String,
}
