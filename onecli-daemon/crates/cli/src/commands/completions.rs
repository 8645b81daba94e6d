//! Completion of names from the daemon, in bash, zsh and fish.
//!
//! The script of `onecli completions` calls this program again with [`VARIABLE`] in its environment. If the daemon is
//! down or refuses the caller, there are no candidates.

use std::any::TypeId;
use std::ffi::OsString;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use clap_complete::env::Shells;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate};
use onecli_api::{AgentView, ApprovalView, DEFAULT_SOCKET, RuleView, SecretView, routes};
use onecli_model::recipe::{Recipe, RecipeName};
use onecli_model::template::Template;
use onecli_model::{AgentName, RuleId, SecretName, TemplateChoice, TemplateName};
use serde::de::DeserializeOwned;

use super::rule::sentence;
use crate::client::Client;

/// The variable that names the shell that requests candidates.
const VARIABLE: &str = "_ONECLI_COMPLETE";
/// The variable with the socket's path, as for every command.
const SOCKET: &str = "ONECLI_SOCKET";
/// The time limit. A shell waits for the candidates at each press of the tab key.
const COMPLETION_TIMEOUT: Duration = Duration::from_millis(800);

/// Prints candidates if a shell requested them. If it returns true, the caller must print nothing else.
///
/// # Errors
/// The shell is unknown, or the output cannot be written.
pub(crate) fn print_candidates(
    arguments: &[OsString],
    definition: fn() -> Command,
) -> clap::error::Result<bool> {
    let directory = std::env::current_dir().ok();
    let completed = || with_names(definition());
    CompleteEnv::with_factory(completed).var(VARIABLE).try_complete(arguments, directory.as_deref())
}

/// Returns the script with which a shell calls this program. Empty for an unsupported shell.
pub(crate) fn script(shell: clap_complete::Shell) -> std::io::Result<Vec<u8>> {
    let mut script = Vec::new();
    if let Some(completer) = Shells::builtins().completer(&shell.to_string()) {
        completer.write_registration(VARIABLE, "onecli", "onecli", "onecli", &mut script)?;
    }
    Ok(script)
}

/// Adds candidates to every argument that is a name. Arguments are found by type, so new ones complete as well.
fn with_names(command: Command) -> Command {
    // An added object has a new name.
    let is_new = command.get_name() == "add";
    let is_approval = command.get_name() == "approval";
    command.mut_args(move |arg| if is_new && arg.is_positional() { arg } else { named(arg) }).mut_subcommands(
        move |command| {
            let command = with_names(command);
            if is_approval { command.mut_args(with_approvals) } else { command }
        },
    )
}

fn named(arg: Arg) -> Arg {
    let kind = arg.get_value_parser().type_id();
    let candidates = if kind == TypeId::of::<AgentName>() {
        ArgValueCandidates::new(agents)
    } else if kind == TypeId::of::<SecretName>() {
        ArgValueCandidates::new(secrets)
    } else if kind == TypeId::of::<RuleId>() {
        ArgValueCandidates::new(rules)
    } else if kind == TypeId::of::<TemplateName>() {
        ArgValueCandidates::new(templates)
    } else if kind == TypeId::of::<TemplateChoice>() {
        ArgValueCandidates::new(templates_and_profiles)
    } else if kind == TypeId::of::<RecipeName>() {
        ArgValueCandidates::new(recipes)
    } else {
        return arg;
    };
    arg.add(candidates)
}

fn with_approvals(arg: Arg) -> Arg {
    if arg.get_id() == "id" { arg.add(ArgValueCandidates::new(approvals)) } else { arg }
}

fn agents() -> Vec<CompletionCandidate> {
    let agents: Vec<AgentView> = ask(routes::AGENTS);
    let egress = |agent: &AgentView| format!("{}, egress {}", agent.factors, agent.egress);
    agents.iter().map(|agent| candidate(&agent.name, &egress(agent))).collect()
}

fn secrets() -> Vec<CompletionCandidate> {
    let secrets: Vec<SecretView> = ask(routes::SECRETS);
    secrets.iter().map(|secret| candidate(&secret.name, &secret.host.to_string())).collect()
}

fn rules() -> Vec<CompletionCandidate> {
    let rules: Vec<RuleView> = ask(routes::RULES);
    rules.iter().map(|rule| candidate(&rule.id, &sentence(rule))).collect()
}

fn approvals() -> Vec<CompletionCandidate> {
    let waiting: Vec<ApprovalView> = ask(routes::APPROVALS);
    let request = |one: &ApprovalView| format!("{} {}{}", one.method, one.authority, one.path);
    waiting.iter().map(|one| candidate(&one.id, &request(one))).collect()
}

fn templates() -> Vec<CompletionCandidate> {
    Template::all().iter().map(|template| candidate(&template.name, &template.title)).collect()
}

fn templates_and_profiles() -> Vec<CompletionCandidate> {
    let mut all = templates();
    for template in Template::all() {
        let profile = |name: &str| format!("{}:{name}", template.name);
        all.extend(template.profiles.iter().map(|one| candidate(&profile(&one.name), &one.title)));
    }
    all
}

fn recipes() -> Vec<CompletionCandidate> {
    Recipe::all().iter().map(|recipe| candidate(&recipe.name, &recipe.title)).collect()
}

fn candidate(name: &impl ToString, help: &str) -> CompletionCandidate {
    // Agents chose part of the text, and shells print it.
    let help = onecli_model::printable(help);
    CompletionCandidate::new(name.to_string()).help(Some(StyledStr::from(help)))
}

fn ask<T: DeserializeOwned>(path: &str) -> Vec<T> {
    let socket = std::env::var_os(SOCKET).unwrap_or_else(|| DEFAULT_SOCKET.into());
    Client::with_timeout(socket.into(), COMPLETION_TIMEOUT).get(path).unwrap_or_default()
}
