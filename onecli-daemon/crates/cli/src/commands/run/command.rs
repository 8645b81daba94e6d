//! `onecli run`: asks the launcher to start the agent's command, and relays between the command's terminal and the
//! user's.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use onecli_api::{AgentView, ErrorDetail, routes};
use onecli_launch::{Caller, CallerFiles, CommandOutcome, LauncherSocket, Request, Rules, taken_over};
use onecli_model::AgentName;

use super::args::RunArgs;
use super::directories;
use super::hidden_command;
use super::launcher::serve_client;
use crate::client::{Client, ClientError};
use crate::host::user::agents_dir;
use crate::output::{joined, note, print_error, print_report};

/// The exit code if the command was not started.
pub(crate) const EXIT_NOT_STARTED: u8 = onecli_launch::EXIT_NOT_STARTED;

/// The exit code if the agent cannot find the command.
const NOT_FOUND: u8 = 127;

/// Why the command was not started.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot determine which agents you may run: {0}\nhelp: name one with --agent NAME")]
    Agents(ClientError),
    #[error(
        "there is no agent that you may run\nhelp: 'onecli setup' adds one; an administrator can permit you \
         to run one with 'onecli agent allow-run'"
    )]
    NoAgent,
    #[error("you may run several agents: {0}\nhelp: name one with --agent NAME")]
    SeveralAgents(String),
    #[error("{0}")]
    Directory(String),
    #[error(
        "no launcher answers on {}: {source}\n\
         help: start it ('systemctl enable --now onecli-launcher.socket'), or run this as root",
        path.display()
    )]
    NoLauncher { path: PathBuf, source: io::Error },
    #[error("lost the connection to the launcher: {0}\nhelp: see its log ('journalctl -u onecli-launcher')")]
    Lost(io::Error),
    #[error("cannot start a launcher: {0}")]
    Fork(io::Error),
}

impl RunError {
    fn code(&self) -> &'static str {
        match self {
            RunError::Agents(_) | RunError::Fork(_) => "failed",
            RunError::NoAgent => "not_permitted",
            RunError::SeveralAgents(_) => "usage",
            RunError::Directory(_) => "file",
            RunError::NoLauncher { .. } | RunError::Lost(_) => "no_launcher",
        }
    }

    fn report(&self) -> ErrorDetail {
        match self {
            RunError::Agents(error) => ErrorDetail::new(&error.report().code, self),
            other => ErrorDetail::new(other.code(), other),
        }
    }
}

/// Returns the exit code, which is the command's own if it was started.
pub(crate) fn run(client: &Client, json: bool, args: RunArgs) -> u8 {
    let program = args.command.first().cloned();
    match start(client, args) {
        Ok(CommandOutcome::Exited(status)) => u8::try_from(status & 0xff).unwrap_or(EXIT_NOT_STARTED),
        Ok(CommandOutcome::Killed(signal)) => exit_by_signal(signal),
        Ok(CommandOutcome::NotStarted { code, message }) => {
            let mut report =
                ErrorDetail::new(if code == NOT_FOUND { "not_found" } else { "not_started" }, &message);
            let hint =
                program.filter(|_| code == NOT_FOUND).and_then(|program| hidden_command::hint(&program));
            if json {
                report.hint = hint.unwrap_or(report.hint);
                print_report(&report, true);
            } else {
                [Some(message), hint].iter().flatten().for_each(|text| print_error(text));
            }
            code
        }
        Err(error) if json => {
            print_report(&error.report(), true);
            EXIT_NOT_STARTED
        }
        Err(error) => {
            print_error(&error);
            EXIT_NOT_STARTED
        }
    }
}

fn start(client: &Client, mut args: RunArgs) -> Result<CommandOutcome, RunError> {
    let agent = args.agent.take().map_or_else(|| only_agent(client), Ok)?;
    let recipe = args.recipe.map(|recipe| recipe.recipe());
    args.share.extend(recipe.into_iter().flat_map(directories::recipe_directories));
    let directories = directories::open(&args).map_err(RunError::Directory)?;
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let files = [input.as_fd(), output.as_fd(), error.as_fd()];
    let terminals = files.map(|file| io::IsTerminal::is_terminal(&file));
    let sizes = files.into_iter().zip(terminals).filter(|(_, is_terminal)| *is_terminal);
    let mut command = args.command.into_iter();
    let mut env = taken_over(std::env::vars_os(), &args.keep_env);
    for (name, value) in recipe.iter().flat_map(|recipe| &recipe.env) {
        let name = OsString::from(name);
        if !args.keep_env.contains(&name) {
            env.push((name.clone(), value.into()));
            args.keep_env.push(name);
        }
    }
    let request = Request {
        agent: agent.to_string(),
        user: args.user,
        scope: args.scope,
        program: command.next().unwrap_or_default(),
        args: command.collect(),
        env,
        keep_env: args.keep_env,
        terminals,
        size: sizes.map(|(file, _)| file).find_map(onecli_launch::terminal_size),
        project: directories.project,
        shares: directories.shares.iter().map(|(_, writable)| *writable).collect(),
        umask: current_umask(),
        git_configs: onecli_launch::configs_of_environment(),
        quiet: args.quiet,
        recipe: recipe.map(|recipe| recipe.name.clone()),
    };
    let socket = connect(client)?;
    let shares: Vec<_> = directories.shares.iter().map(|(file, _)| file.as_fd()).collect();
    let standard = CallerFiles { files, directory: directories.start.as_fd(), shares: &shares };
    onecli_launch::run(&socket, &request, standard, &mut |notice| note(notice)).map_err(RunError::Lost)
}

/// Returns the only agent that the caller may run.
fn only_agent(client: &Client) -> Result<AgentName, RunError> {
    let agents: Vec<AgentView> = client.get(routes::AGENTS).map_err(RunError::Agents)?;
    let mut names: Vec<AgentName> =
        agents.into_iter().filter(|agent| agent.enabled).map(|agent| agent.name).collect();
    match (names.pop(), names.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(RunError::NoAgent),
        (Some(last), false) => {
            names.push(last);
            Err(RunError::SeveralAgents(joined(names, "-")))
        }
    }
}

/// Connects to the launcher. Root acts as its own launcher, because other users could occupy all of the launcher's
/// connections.
fn connect(client: &Client) -> Result<LauncherSocket, RunError> {
    if nix::unistd::geteuid().is_root() {
        let work =
            |socket: &LauncherSocket, caller: &Caller| serve_client(client, &rules(), socket, caller, &|| ());
        return onecli_launch::in_process(work).map_err(RunError::Fork);
    }
    let path = onecli_launch::beside(client.socket());
    LauncherSocket::connect(&path).map_err(|source| RunError::NoLauncher { path, source })
}

/// The rules for root, who needs no launcher.
fn rules() -> Rules {
    Rules { users: onecli_launch::worker::USERS.to_owned(), agents: agents_dir() }
}

/// Returns the umask. umask(2) returns it only by changing it.
fn current_umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let own = umask(Mode::empty());
    umask(own);
    own.bits()
}

/// Ends this process with the command's signal, so that the parent sees the same result. If the signal does not end it,
/// returns 128 plus the signal number, like a shell.
fn exit_by_signal(signal: i32) -> u8 {
    let code = u8::try_from(128 + signal).unwrap_or(EXIT_NOT_STARTED);
    let Ok(signal) = Signal::try_from(signal) else { return code };
    // A core dump, if there is one, is the command's.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    onecli_launch::default_action(signal);
    let _ = SigSet::from(signal).thread_unblock();
    let _ = raise(signal);
    code
}
