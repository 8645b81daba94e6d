//! `onecli setup`: from an installed package to a first agent with a first credential.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{User, geteuid};
use onecli_api::{AgentView, Status, routes};
use onecli_model::AgentName;

use super::admin::{Admin, RequiredRights};
use super::args::SetupArgs;
use super::context::{AgentState, NamedEntry, Setup, SetupSummary};
use super::files;
use crate::client::{Client, ClientError};
use crate::error::CliError;
use crate::input::confirm::{ConfirmError, Terminal};
use crate::output::Output;

/// The time limit for a started daemon to respond.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(250);
/// The directory exists if systemd runs this host (`sd_booted(3)`).
const SYSTEMD: &str = "/run/systemd/system";
/// The default name of the first agent.
const FIRST_AGENT: &str = "coder";

/// Runs all steps. Completed steps are skipped.
///
/// # Errors
/// A step failed. The completed steps are printed first.
pub(crate) fn setup(client: &Client, args: SetupArgs, output: &mut Output) -> Result<(), CliError> {
    refuse_sudo()?;
    let terminal = match (args.yes, Terminal::open()) {
        (true, _) => None,
        (false, Some(terminal)) => Some(terminal),
        (false, None) => return Err(ConfirmError::NoTerminal { option: "--yes" }.into()),
    };
    if args.yes && args.agent.is_none() {
        return Err(CliError::Usage("with --yes name the agent: --agent NAME".to_owned()));
    }
    let admin = Admin::new(client.socket(), terminal)?;
    let mut setup = Setup { client, args, admin, summary: SetupSummary::default() };
    let done = setup.steps(output);
    if done.is_err() {
        setup.report_done(output)?;
    }
    done
}

/// Refuses to run as root for another user: it would read that user's files with rights that the user does not have.
fn refuse_sudo() -> Result<(), CliError> {
    match std::env::var("SUDO_USER") {
        Ok(person) if geteuid().is_root() && person != "root" => Err(CliError::Usage(format!(
            "run 'onecli setup' as {person}, without sudo: it reads your files, and asks for root if a step needs it"
        ))),
        _ => Ok(()),
    }
}

impl Setup<'_> {
    fn steps(&mut self, output: &mut Output) -> Result<(), CliError> {
        self.daemon(output)?;
        let agent = self.agent(output)?;
        let launcher = self.launcher(output)?;
        self.credentials(&agent, output)?;
        self.finish(&agent, launcher, output)?;
        match self.summary.failed.as_slice() {
            [] => Ok(()),
            failed => Err(CliError::Unfinished(format!("these steps failed:\n{}", failed.join("\n")))),
        }
    }

    /// Makes sure that a daemon responds. Such a daemon has its key and vault open; its first start creates both.
    fn daemon(&mut self, output: &mut Output) -> Result<(), CliError> {
        match self.client.get::<Status>(routes::STATUS) {
            Err(error @ ClientError::NotReachable { .. }) => {
                if !Path::new(SYSTEMD).exists() {
                    return Err(error.into());
                }
                output.line("the daemon is not running")?;
                let start = ["systemctl", "enable", "--now", "onecli-daemon.service"];
                if !self.admin.system(&start, output)? {
                    return Err(error.into());
                }
                self.wait_for_daemon()?;
            }
            Err(error) if error.is_disconnected() => return Err(error.into()),
            _ => output.line("the daemon is running")?,
        }
        // Members of the group `onecli` administer without root; members of `onecli-audit` do not.
        self.admin.administers |= self.client.get::<Vec<NamedEntry>>(routes::SECRETS).is_ok();
        self.check_rights()
    }

    fn check_rights(&self) -> Result<(), CliError> {
        if self.admin.administers || files::program("sudo").is_some() {
            return Ok(());
        }
        let person = current_user().unwrap_or_else(|| geteuid().to_string());
        let agent = self.args.agent.as_ref().map_or(FIRST_AGENT, AgentName::as_str);
        let add = ["agent", "add", agent, "--create-user", "--runner", &person];
        let commands = [
            self.admin.shown(&add),
            self.admin.shown(&["secret", "add", "NAME", "--template", "TEMPLATE"]),
            self.admin.shown(&["grant", agent, "NAME"]),
        ];
        Err(CliError::Unfinished(format!(
            "you may not administer OneCLI, and there is no sudo on this host\nas root, run: {}",
            commands.join("; ")
        )))
    }

    fn wait_for_daemon(&self) -> Result<(), CliError> {
        let mut waited = Duration::ZERO;
        loop {
            match self.client.get::<Status>(routes::STATUS) {
                Err(error @ ClientError::NotReachable { .. }) if waited >= START => return Err(error.into()),
                Err(ClientError::NotReachable { .. }) => {
                    std::thread::sleep(POLL);
                    waited += POLL;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Returns the agent, and creates it if it does not exist.
    fn agent(&mut self, output: &mut Output) -> Result<AgentName, CliError> {
        let existing: Vec<AgentView> = self.admin.ask(&["agent", "list"], output)?;
        let name = self.choose_agent(&existing, output)?;
        let text = name.to_string();
        let person = current_user();
        let hosts: Vec<String> =
            self.args.hosts.iter().flat_map(|host| ["--host".to_owned(), host.clone()]).collect();
        let recipe = self.args.recipe.map(|recipe| recipe.to_string());
        let recipe: Vec<&str> = recipe.iter().flat_map(|recipe| ["--recipe", recipe]).collect();
        let recipe: Vec<&str> = recipe.into_iter().chain(hosts.iter().map(String::as_str)).collect();
        if existing.iter().any(|agent| agent.name == name) {
            output.line(&format!("agent '{name}' exists"))?;
            let state: AgentState = self.admin.ask(&["agent", "show", &text], output)?;
            if let Some(person) = person.filter(|person| !state.runners.contains(person)) {
                let allow = ["agent", "allow-run", &text, &person];
                self.admin.step((&allow, RequiredRights::Administrator), None, output)?;
            }
            if !recipe.is_empty() {
                let set = [&["agent", "set", &text][..], &recipe].concat();
                self.admin.step((&set, RequiredRights::Administrator), None, output)?;
            }
            return Ok(name);
        }
        let runner: Vec<&str> = person.iter().flat_map(|person| ["--runner", person.as_str()]).collect();
        let add = [&["agent", "add", &text, "--create-user"][..], &runner, &recipe].concat();
        if self.admin.step((&add, RequiredRights::Root), None, output)? {
            return Ok(name);
        }
        Err(CliError::Unfinished(format!("there is no agent '{name}', so there is nothing to set up")))
    }

    fn choose_agent(&mut self, existing: &[AgentView], output: &mut Output) -> Result<AgentName, CliError> {
        if let Some(name) = &self.args.agent {
            return Ok(name.clone());
        }
        let default = match existing {
            [] => FIRST_AGENT.to_owned(),
            [first, ..] => first.name.to_string(),
        };
        if !existing.is_empty() {
            let names: Vec<String> = existing.iter().map(|agent| agent.name.to_string()).collect();
            output.line(&format!("agents on this host: {}", names.join(", ")))?;
        }
        let answer = self.admin.line(&format!("Name of the agent [{default}]:"), output)?.unwrap_or_default();
        let name = if answer.is_empty() { default } else { answer };
        name.parse().map_err(|error| CliError::Usage(format!("{error}")))
    }

    /// Users other than root start agents through the launcher. Returns whether it responds.
    fn launcher(&mut self, output: &mut Output) -> Result<bool, CliError> {
        let socket = onecli_launch::beside(self.client.socket());
        if geteuid().is_root() || UnixStream::connect(&socket).is_ok() {
            return Ok(true);
        }
        if !Path::new(SYSTEMD).exists() {
            return Ok(false);
        }
        self.admin.system(&["systemctl", "enable", "--now", "onecli-launcher.socket"], output)
    }

    fn finish(&mut self, agent: &AgentName, launcher: bool, output: &mut Output) -> Result<(), CliError> {
        let state: AgentState = self.admin.ask(&["agent", "show", agent.as_str()], output)?;
        let secrets: Vec<String> = state.secrets.into_iter().map(|granted| granted.secret).collect();
        output.line("")?;
        if secrets.is_empty() {
            let commands = [
                &["secret", "add", "NAME", "--template", "TEMPLATE"][..],
                &["grant", agent.as_str(), "NAME"],
            ]
            .map(|command| self.admin.hint(command, RequiredRights::Administrator));
            output.line(&format!("agent '{agent}' has no credential yet: {}", commands.join("; ")))?;
        } else {
            output.line(&format!("agent '{agent}' may use: {}", secrets.join(", ")))?;
        }
        if !launcher {
            let start = self.admin.hint(&["launcher"], RequiredRights::Root);
            output.line(&format!("no launcher answers; start it as root with: {start}"))?;
        }
        if let Some(secret) = secrets.first() {
            output.line("to see whether a service accepts its credential, as root:")?;
            output
                .line(&format!("  {}", self.admin.hint(&["secret", "test", secret], RequiredRights::Root)))?;
        }
        self.show_removals(output)?;
        if self.args.recipe.is_none() {
            let setup = self.admin.shown(&["setup", "--agent", agent.as_str(), "--recipe", "NAME"]);
            output.line("'onecli recipe list' shows programs with rules; to add the rules of one:")?;
            output.line(&format!("  {setup}"))?;
        }
        output.line("start the agent in a project directory with:")?;
        let recipe = self.args.recipe.map(|recipe| recipe.recipe());
        let program = recipe.map_or("bash", |recipe| recipe.program());
        let recipe: Vec<&str> = recipe.iter().flat_map(|recipe| ["--recipe", recipe.name.as_str()]).collect();
        let run = [&["run", "--agent", agent.as_str()][..], &recipe, &["--", program]].concat();
        Ok(output.line(&format!("  {}", self.admin.shown(&run)))?)
    }

    /// Prints the removal commands once: a failure after the summary does not repeat them.
    fn show_removals(&mut self, output: &mut Output) -> Result<(), CliError> {
        for (heading, commands) in [
            ("these commands remove the originals; none of them was run:", &mut self.summary.removals),
            (
                "the secrets of these originals existed before; remove an original only if its value is the one stored:",
                &mut self.summary.removals_if_same,
            ),
        ] {
            if !commands.is_empty() {
                output.line(heading)?;
                commands.drain(..).try_for_each(|command| output.line(&format!("  {command}")))?;
            }
        }
        Ok(())
    }

    fn report_done(&mut self, output: &mut Output) -> Result<(), CliError> {
        self.show_removals(output)?;
        if self.admin.done.is_empty() {
            output.line("nothing was changed")?;
        } else {
            output.line("done before the failure:")?;
            self.admin.done.iter().try_for_each(|line| output.line(&format!("  {line}")))?;
        }
        output.line("to continue, run the same 'onecli setup' again: it skips completed steps")?;
        Ok(output.finish()?)
    }
}

/// Returns the user's name; `None` for root, who needs no permission.
fn current_user() -> Option<String> {
    let uid = geteuid();
    if uid.is_root() { None } else { Some(User::from_uid(uid).ok()??.name) }
}
