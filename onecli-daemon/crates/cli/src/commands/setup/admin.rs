//! Commands that change something. They are printed before they run, directly if the user has the right, otherwise
//! through sudo(8).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended, Stdio};

use onecli_api::DEFAULT_SOCKET;
use onecli_model::SecretValue;
use serde::de::DeserializeOwned;

use super::files;
use crate::error::CliError;
use crate::input::confirm::{ConfirmError, Terminal};
use crate::output::Output;

/// The rights that a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequiredRights {
    /// Administration of the daemon: root, or a member of the group 'onecli'.
    Administrator,
    /// Root.
    Root,
}

/// Runs commands for the user.
pub(super) struct Admin {
    program: PathBuf,
    socket: PathBuf,
    /// Whether the user may administer without sudo.
    pub(super) administers: bool,
    is_root: bool,
    /// The terminal; `None` to ask no questions.
    pub(super) terminal: Option<Terminal>,
    /// The completed steps, for the report of a failure.
    pub(super) done: Vec<String>,
}

impl Admin {
    pub(super) fn new(socket: &Path, terminal: Option<Terminal>) -> Result<Admin, CliError> {
        let program = std::env::current_exe()?;
        let is_root = nix::unistd::geteuid().is_root();
        let socket = std::path::absolute(socket)?;
        Ok(Admin { program, socket, administers: is_root, is_root, terminal, done: Vec::new() })
    }

    /// Returns the words of an `onecli` command.
    fn onecli(&self, args: &[&str]) -> Vec<String> {
        let mut words = vec![self.program.display().to_string()];
        if self.socket != Path::new(DEFAULT_SOCKET) {
            words.extend(["--socket".to_owned(), self.socket.display().to_string()]);
        }
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        words
    }

    /// Formats an `onecli` command as typed on a command line.
    pub(super) fn shown(&self, args: &[&str]) -> String {
        line_of(&self.onecli(args))
    }

    /// Formats an `onecli` command as typed on a command line, with sudo if it is required and available.
    pub(super) fn hint(&self, args: &[&str], needs: RequiredRights) -> String {
        let words = self.onecli(args);
        let has_sudo = files::program("sudo").is_some();
        line_of(&if has_sudo { self.elevated(words, needs) } else { words })
    }

    /// Adds sudo to a command if it is required.
    fn elevated(&self, words: Vec<String>, needs: RequiredRights) -> Vec<String> {
        let is_enough = self.is_root || (needs == RequiredRights::Administrator && self.administers);
        if is_enough { words } else { [vec!["sudo".to_owned()], words].concat() }
    }

    /// Returns the JSON output of an `onecli` command that changes nothing.
    pub(super) fn ask<T: DeserializeOwned>(
        &mut self,
        args: &[&str],
        output: &mut Output,
    ) -> Result<T, CliError> {
        let words = self.elevated(self.onecli(&[&["--json"], args].concat()), RequiredRights::Administrator);
        if !self.administers {
            say(&words, None, output)?;
        }
        Ok(serde_json::from_slice(&run(&words, None)?.stdout)?)
    }

    /// Runs an `onecli` command after confirmation. `value` is passed on its standard input.
    pub(super) fn step(
        &mut self,
        (args, needs): (&[&str], RequiredRights),
        value: Option<(&SecretValue, &str)>,
        output: &mut Output,
    ) -> Result<bool, CliError> {
        let words = self.elevated(self.onecli(args), needs);
        self.do_step(&words, value, output)
    }

    /// Runs a system program as root after confirmation.
    pub(super) fn system(&mut self, args: &[&str], output: &mut Output) -> Result<bool, CliError> {
        let words = args.iter().map(|&arg| arg.to_owned()).collect();
        let words = self.elevated(words, RequiredRights::Root);
        self.do_step(&words, None, output)
    }

    fn do_step(
        &mut self,
        words: &[String],
        value: Option<(&SecretValue, &str)>,
        output: &mut Output,
    ) -> Result<bool, CliError> {
        say(words, value.map(|(_, origin)| origin), output)?;
        if !self.agrees("Run this command?", output)? {
            output.line("skipped")?;
            return Ok(false);
        }
        run(words, value.map(|(value, _)| value))?;
        self.done.push(line_of(words));
        Ok(true)
    }

    /// Asks a question; without a terminal the answer is yes.
    pub(super) fn agrees(&mut self, question: &str, output: &mut Output) -> Result<bool, CliError> {
        output.finish()?;
        match &mut self.terminal {
            Some(terminal) => Ok(terminal.agrees(question, true).map_err(ConfirmError::from)?),
            None => Ok(true),
        }
    }

    /// Asks a question that requires an explicit yes; without a terminal the answer is no.
    pub(super) fn agrees_to_risk(&mut self, question: &str, output: &mut Output) -> Result<bool, CliError> {
        output.finish()?;
        let agreed = self.terminal.as_mut().map(|terminal| terminal.agrees(question, false)).transpose();
        Ok(agreed.map_err(ConfirmError::from)?.unwrap_or(false))
    }

    /// Asks for a line; returns `None` without a terminal.
    pub(super) fn line(&mut self, question: &str, output: &mut Output) -> Result<Option<String>, CliError> {
        output.finish()?;
        let asked = self.terminal.as_mut().map(|terminal| terminal.ask(question)).transpose();
        Ok(asked.map_err(ConfirmError::from)?)
    }
}

/// Runs a command without showing its output, which may contain an agent's token.
fn run(words: &[String], value: Option<&SecretValue>) -> Result<Ended, CliError> {
    let failed =
        |why: &str| CliError::Unfinished(format!("{why}: {}\nits own message is above", line_of(words)));
    let Some((program, args)) = words.split_first() else { return Err(failed("no command")) };
    let mut command = Command::new(program);
    // sudo and onecli ask their questions on the terminal, not on standard input.
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove("ONECLI_SOCKET");
    let mut child = command.spawn().map_err(|error| match (program.as_str(), error.kind()) {
        ("sudo", std::io::ErrorKind::NotFound) => CliError::Unfinished(format!(
            "this step needs root, and there is no sudo on this host\n\
             run this as root, then 'onecli setup' again: {}",
            line_of(args)
        )),
        _ => CliError::Unfinished(format!("cannot run {program}: {error}")),
    })?;
    let pipe = child.stdin.take();
    if let (Some(mut pipe), Some(value)) = (pipe, value) {
        // If the command ends early, its own error has the reason.
        let _ = pipe.write_all(value.expose());
    }
    let ended = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
    if ended.status.success() { Ok(ended) } else { Err(failed("this command failed")) }
}

fn say(words: &[String], origin: Option<&str>, output: &mut Output) -> Result<(), CliError> {
    let pipe = origin.map(|origin| format!("   # standard input: {origin}")).unwrap_or_default();
    output.line(&format!("$ {}{pipe}", line_of(words)))?;
    Ok(output.finish()?)
}

/// Formats words as a shell command.
fn line_of(words: &[String]) -> String {
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}
