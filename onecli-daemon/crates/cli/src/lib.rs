//! The `onecli` command: communicates with the daemon over its admin socket, and starts agents.

#![forbid(unsafe_code)]

mod account;
mod agent;
mod agent_set;
mod approval;
mod approval_show;
mod approval_watch;
mod args;
mod audit;
mod audit_args;
mod backup;
mod ca;
mod ca_args;
mod client;
mod complete;
mod confirm;
mod doctor;
mod dotenv;
mod doubtful;
mod env;
mod env_args;
mod examine;
mod export;
mod grant;
mod hidden_command;
mod import;
mod import_args;
mod key;
mod key_args;
mod launcher;
mod manual;
mod ocsf;
mod output;
mod probe;
mod program;
mod ps;
mod recipe;
mod recipe_args;
mod rollback;
mod rule;
mod run;
mod run_dirs;
mod secret;
mod secret_args;
mod secret_edit;
mod secret_edit_args;
mod secret_test;
mod self_test;
mod setup;
mod status;
mod surroundings;
mod template;
mod trust;
mod unit;
mod user;
mod value;
mod vault;
mod verify;
mod why;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory, Parser, ValueEnum as _};
use onecli_audit::{AuditError, Findings};

use args::{AgentCommand, Args, Command, SecretCommand, TemplateCommand};
use client::{Client, ClientError};
use output::{Output, Report, complain};
use recipe_args::RecipeCommand;

/// The time that `status` and `doctor` wait for a response.
const SHORT_PATIENCE: Duration = Duration::from_secs(10);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The daemon was not available or refused the request.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line parses but is incomplete.
    #[error("{0}")]
    Usage(String),
    /// A value could not be read.
    #[error(transparent)]
    Value(#[from] value::ValueError),
    /// A step was not confirmed.
    #[error(transparent)]
    Confirm(#[from] confirm::ConfirmError),
    /// The host has no user for the agent.
    #[error(transparent)]
    User(#[from] user::UserError),
    /// A file for a container could not be written.
    #[error(transparent)]
    Env(#[from] env::EnvError),
    /// The host's trust store could not be changed.
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
    /// A file could not be written, or a program could not be started.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The operation has started but has not finished.
    #[error("{0}")]
    Unfinished(String),
    /// The audit log was modified.
    #[error("the audit log is NOT as it was written\n{}", describe(.0))]
    NotVerified(Box<Findings>),
    /// A file of the audit log could not be read.
    #[error(transparent)]
    Audit(AuditError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// This version does not understand the daemon's response.
    #[error("cannot read the daemon's response: {0}\nhelp: {help}", help = client::SAME_VERSION)]
    Answer(#[from] serde_json::Error),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 2,
            CliError::Client(error) => error.exit_code(),
            CliError::Confirm(error) => error.exit_code(),
            CliError::User(user::UserError::NotRoot) | CliError::Trust(trust::TrustError::NotRoot) => 4,
            CliError::User(_)
            | CliError::Trust(_)
            | CliError::Env(_)
            | CliError::Value(_)
            | CliError::Output(_)
            | CliError::Answer(_)
            | CliError::File { .. }
            | CliError::Unfinished(_)
            | CliError::NotVerified(_)
            | CliError::Audit(_) => 1,
        }
    }

    /// Returns the machine-readable code.
    fn code(&self) -> &'static str {
        match self {
            CliError::Usage(_) => "usage",
            CliError::File { .. } => "file",
            CliError::Unfinished(_) => "unfinished",
            CliError::NotVerified(_) => "not_verified",
            CliError::Audit(_) => "audit",
            CliError::Output(_) => "output",
            CliError::Answer(_) => "unreadable_answer",
            CliError::Value(_) => "value",
            CliError::Confirm(_) => "not_confirmed",
            CliError::User(user::UserError::NotRoot) | CliError::Trust(trust::TrustError::NotRoot) => {
                "not_permitted"
            }
            CliError::User(_) | CliError::Trust(_) | CliError::Env(_) | CliError::Client(_) => "failed",
        }
    }

    fn report(&self) -> Report {
        match self {
            CliError::Client(error) => error.report(),
            other => Report::new(other.code(), other),
        }
    }

    /// Returns whether the reader of the output has exited, as `head` does. That is not an error.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, CliError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Returns the definition of this command line, for completion scripts and manual pages.
pub fn definition() -> clap::Command {
    Args::command()
}

fn describe(found: &Findings) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    for (at, bad) in found.findings.iter().enumerate() {
        let _ = write!(text, "  {bad}");
        if let Some(seq) = bad.seq {
            let label = if at == 0 { "first bad record" } else { "record" };
            let _ = write!(text, "\n    {label}: {seq}");
        }
        if let Some(time) = &bad.time {
            let _ = write!(text, ", of {time}");
        }
        text.push('\n');
    }
    if found.more > 0 {
        let _ = writeln!(text, "  and {} more", found.more);
    }
    match found.good_from {
        Some(from) => {
            let _ = write!(
                text,
                "help: copy the directory; after you have investigated and noted this, '--from {from}' \
                 verifies the later records"
            );
        }
        None => text.push_str("help: copy the directory before any other step"),
    }
    text
}

/// The command with which `doctor` starts itself in an agent's cgroup.
const PROBE: &str = "self-test-probe";

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match complete::answered(&arguments) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            return ExitCode::from(2);
        }
    }
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(refused) => return ExitCode::from(refuse(&refused, &arguments)),
    };
    args.color.write_global();
    let client = match args.command {
        // These commands are used to diagnose a fault, so they time out early.
        Command::Status | Command::Doctor(_) => Client::patient(args.socket, SHORT_PATIENCE),
        _ => Client::new(args.socket),
    };
    if let Command::Run(command) = args.command {
        return ExitCode::from(run::run(&client, args.json, command));
    }
    if let Command::Launcher(command) = args.command {
        return ExitCode::from(launcher::run(&client, command));
    }
    if let Command::SelfTestProbe { address } = args.command {
        return match probe(address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&error);
                ExitCode::FAILURE
            }
        };
    }
    let mut output = Output::new(args.json);
    let done = match &args.command {
        Command::Doctor(args) => doctor::doctor(&client, args, &mut output),
        _ => dispatch(&client, args.command, &mut output).map(|()| true),
    };
    let code = match done.and_then(|is_well| output.finish().map(|()| is_well).map_err(CliError::Output)) {
        Ok(is_well) => u8::from(!is_well),
        Err(error) if error.is_closed_pipe() => 0,
        Err(error) => {
            // Flush the output before the error.
            let _ = output.finish();
            error.report().print(output.is_json());
            error.exit_code()
        }
    };
    ExitCode::from(code)
}

/// Prints help, the version, or the error of a command line that does not parse.
fn refuse(refused: &clap::Error, arguments: &[OsString]) -> u8 {
    color_of(arguments).write_global();
    let is_run = names_run(arguments);
    if refused.exit_code() != 0 && asks_for_json(arguments) {
        let text = refused.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        Report::new("usage", &text).print(true);
        return if is_run { run::OURS } else { 2 };
    }
    match (refused.print(), refused.exit_code()) {
        (Err(_), 0) => 1,
        (Ok(()), 0) => 0,
        _ if is_run => run::OURS,
        _ => 2,
    }
}

/// Returns the value of `--color`, even from a command line that does not parse.
fn color_of(arguments: &[OsString]) -> colorchoice_clap::Color {
    let mut color = colorchoice_clap::Color::default();
    let mut words =
        arguments.iter().skip(1).filter_map(|word| word.to_str()).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        let when = if word == "--color" { words.next() } else { word.strip_prefix("--color=") };
        if let Some(when) = when.and_then(|when| ColorChoice::from_str(when, false).ok()) {
            color.color = when;
        }
    }
    color
}

/// Returns whether `--json` occurs before the end of options. A program started by `run` may have the same option, so
/// after `run` only the options that directly follow it count.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let words = arguments.iter().skip(1).take_while(|word| *word != "--");
    if !names_run(arguments) {
        return words.into_iter().any(|word| word == "--json");
    }
    let mut follows_run = false;
    words
        .take_while(|word| {
            let is_ours = !follows_run || word.as_encoded_bytes().starts_with(b"-");
            follows_run |= *word == "run";
            is_ours
        })
        .any(|word| word == "--json")
}

/// Sends the request from standard input, and prints the response.
fn probe(address: SocketAddr) -> io::Result<()> {
    let mut request = Vec::new();
    io::stdin().lock().read_to_end(&mut request)?;
    io::stdout().write_all(&self_test::ask(address, &request)?)
}

fn dispatch(client: &Client, command: Command, output: &mut Output) -> Result<(), CliError> {
    match command {
        // Handled earlier, because they have their own exit codes.
        Command::Run(_) | Command::Launcher(_) | Command::Doctor(_) | Command::SelfTestProbe { .. } => Ok(()),
        Command::Agent(command) => match command {
            AgentCommand::Add(args) => agent::add(client, args, output),
            AgentCommand::List => agent::list(client, output),
            AgentCommand::Show { name } => agent::show(client, &name, output),
            AgentCommand::Rotate { name } => agent::rotate(client, &name, output),
            AgentCommand::Disable { name } => agent::set_enabled(client, &name, false, output),
            AgentCommand::Enable { name } => agent::set_enabled(client, &name, true, output),
            AgentCommand::Env(args) => env::env(client, &args, output),
            AgentCommand::Set(args) => agent_set::set(client, &args, output),
            AgentCommand::AllowRun { name, runner, see_all } => {
                agent::allow_run(client, &name, &runner, see_all.as_deref(), output)
            }
            AgentCommand::DenyRun { name, runner } => agent::deny_run(client, &name, &runner, output),
            AgentCommand::Remove { name, kill } => agent::remove(client, &name, kill, output),
            AgentCommand::ConvertUser { users, made } => account::convert(&users, made, output),
            AgentCommand::Learn { name, all } => rule::learn(client, &name, all, output),
        },
        Command::Secret(command) => match command {
            SecretCommand::Add(args) => secret::add(client, *args, output),
            SecretCommand::Import { file, how, mask_issued } => {
                import::of_file(client, &file, &how, mask_issued, output)
            }
            SecretCommand::List => secret::list(client, output),
            SecretCommand::Show { name } => secret::show(client, &name, output),
            SecretCommand::Rotate { name, compromised, value } => {
                secret::rotate(client, &name, compromised, &value, output)
            }
            SecretCommand::Edit(args) => secret_edit::run(client, &args, output),
            SecretCommand::Rollback { name } => rollback::run(client, &name, output),
            SecretCommand::Test(args) => secret_test::test(client, args, output),
            SecretCommand::Disable { name } => secret::set_enabled(client, &name, false, output),
            SecretCommand::Enable { name } => secret::set_enabled(client, &name, true, output),
            SecretCommand::Remove { name } => secret::remove(client, &name, output),
        },
        Command::Template(command) => match command {
            TemplateCommand::List => template::list(output),
            TemplateCommand::Show { name } => template::show(name, output),
        },
        Command::Recipe(command) => match command {
            RecipeCommand::List => recipe::list(output),
            RecipeCommand::Show { name } => recipe::show(name, output),
        },
        Command::Grant { agent, secret } => grant::grant(client, &agent, &secret, output),
        Command::Ungrant { agent, secret } => grant::ungrant(client, &agent, &secret, output),
        Command::Audit(command) => audit::run(client, *command, output),
        Command::Ca(command) => ca::ca(client, &command, output),
        Command::Vault(command) => vault::run(client, command, output),
        Command::Key(command) => key::key(client, command, output),
        Command::Backup { file } => backup::backup(client, &file, output),
        Command::Restore(args) => Err(backup::restore(&args, output.is_json())),
        Command::Rule(command) => rule::run(client, command, output),
        Command::Why(args) => why::why(client, args, output),
        Command::Approval(command) => approval::run(client, command, output),
        Command::Setup(args) => setup::setup(client, args, output),
        Command::Status => status::status(client, output),
        Command::Ps => ps::ps(client, output),
        Command::Manual { directory } => {
            manual::write(&directory).map_err(|source| CliError::File { path: directory, source })
        }
        Command::Completions { shell } => {
            let script = complete::script(shell)?;
            Ok(output.script(&script)?)
        }
    }
}

/// Returns whether the command is `run`. Its usage errors have a distinct exit code, so that they are not mistaken for
/// those of CMD.
fn names_run(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().skip(1);
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--socket") => {
                words.next();
            }
            Some(option) if option.starts_with('-') => {}
            other => return other == Some("run"),
        }
    }
    false
}
