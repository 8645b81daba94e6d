//! The step of `onecli setup` that stores and grants credentials.

use std::io::{IsTerminal as _, stdin};

use clap::ValueEnum as _;
use onecli_model::{AgentName, SecretValue, TemplateChoice};

use super::admin::RequiredRights;
use super::args::SourceKind;
use super::context::{AgentState, NamedEntry, Setup};
use super::sources::{FoundCredential, Source, SourceContents};
use crate::error::CliError;
use crate::input::value;
use crate::input::value_args::ValueArgs;
use crate::output::Output;

const ALL: [SourceKind; 5] =
    [SourceKind::Env, SourceKind::Gh, SourceKind::Netrc, SourceKind::Dotenv, SourceKind::Aws];

impl Setup<'_> {
    /// Stores the user's existing credentials, and grants them.
    pub(super) fn credentials(&mut self, agent: &AgentName, output: &mut Output) -> Result<(), CliError> {
        let stored: Vec<NamedEntry> = self.admin.ask(&["secret", "list"], output)?;
        self.summary.stored = stored.into_iter().map(|secret| secret.name).collect();
        let granted: AgentState = self.admin.ask(&["agent", "show", agent.as_str()], output)?;
        self.summary.granted = granted.secrets.into_iter().map(|grant| grant.secret).collect();
        for kind in self.kinds() {
            match Source::of(kind) {
                Some(source) => self.import((kind, &source), agent, output)?,
                None => self.not_found(kind, kind.missing(), output)?,
            }
        }
        self.typed(agent, output)
    }

    fn kinds(&self) -> Vec<SourceKind> {
        let nothing_named = self.args.imports.is_empty() && self.args.template.is_none();
        if nothing_named && !self.args.yes { ALL.to_vec() } else { self.args.imports.clone() }
    }

    /// Records a failure for the summary.
    fn fail(&mut self, text: String, output: &mut Output) -> Result<(), CliError> {
        output.warning(&text)?;
        self.summary.failed.push(text);
        Ok(())
    }

    /// Reports a source without a credential. It is a failure only if the user named the source.
    fn not_found(&mut self, kind: SourceKind, text: &str, output: &mut Output) -> Result<(), CliError> {
        if !self.args.imports.contains(&kind) {
            return Ok(());
        }
        let word = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        self.fail(format!("--import {word}: {text}"), output)
    }

    fn import(
        &mut self,
        (kind, source): (SourceKind, &Source),
        agent: &AgentName,
        output: &mut Output,
    ) -> Result<(), CliError> {
        if !self.admin.agrees(&format!("Read {}?", source.label()), output)? {
            return Ok(());
        }
        let SourceContents { found, unusable } = match source.read() {
            Ok(contents) => contents,
            Err(why) => {
                let text = format!("cannot read {}: {why}", source.label());
                if !self.args.imports.contains(&kind) {
                    output.warning(&text)?;
                }
                return self.not_found(kind, &text, output);
            }
        };
        if found.is_empty() && unusable.is_empty() {
            let text = format!("nothing to store in {}", source.label());
            output.line(&text)?;
            return self.not_found(kind, &text, output);
        }
        for text in unusable {
            self.fail(format!("left out: {text}"), output)?;
        }
        found.into_iter().try_for_each(|found| self.store(found, agent, output))
    }

    fn store(
        &mut self,
        found: FoundCredential,
        agent: &AgentName,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let FoundCredential { name, options, origin, value, remove } = found;
        let name = name.to_string();
        if self.summary.seen.contains(&name) {
            return Ok(output.line(&format!("left out: {origin}, because '{name}' was found before"))?);
        }
        if self.summary.stored.contains(&name) {
            self.summary.seen.push(name.clone());
            self.summary.removals_if_same.push(remove);
            return self.grant_stored((&name, &options), &origin, agent, output).map(drop);
        }
        if self.add((&name, &options), (&value, &origin), output)? {
            self.summary.removals.push(remove);
            self.grant((&name, &options), agent, output)?;
        }
        Ok(())
    }

    /// Stores a value under a new name. Returns whether it is stored.
    fn add(
        &mut self,
        (name, options): (&str, &[String]),
        (value, origin): (&SecretValue, &str),
        output: &mut Output,
    ) -> Result<bool, CliError> {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let add = [&["secret", "add", name, "--value-stdin"][..], &options].concat();
        match self.admin.step((&add, RequiredRights::Administrator), Some((value, origin)), output) {
            Err(CliError::Unfinished(why)) => {
                let by_hand = [&["secret", "add", name][..], &options, &["--force"]].concat();
                let by_hand = self.admin.hint(&by_hand, RequiredRights::Administrator);
                let text =
                    format!("left out: {origin}: {why}\ncheck the value; to store it yourself: {by_hand}");
                self.fail(text, output)?;
                Ok(false)
            }
            Ok(true) => {
                self.summary.stored.push(name.to_owned());
                self.summary.seen.push(name.to_owned());
                Ok(true)
            }
            end => end,
        }
    }

    /// Grants a secret that this run stored, or that the user confirmed.
    fn grant(
        &mut self,
        (name, options): (&str, &[String]),
        agent: &AgentName,
        output: &mut Output,
    ) -> Result<(), CliError> {
        if let Some(other) = self.other_profile(options) {
            let commands = [["ungrant", agent.as_str(), other], ["grant", agent.as_str(), name]]
                .map(|command| self.admin.hint(&command, RequiredRights::Administrator));
            let text = format!(
                "secret '{name}' is stored and not granted: agent '{agent}' has the profile '{other}', and reads one\n\
                 to use it instead: {}",
                commands.join("; ")
            );
            return Ok(output.warning(&text)?);
        }
        let grant = ["grant", agent.as_str(), name];
        match self.admin.step((&grant, RequiredRights::Administrator), None, output) {
            Err(CliError::Unfinished(why)) => self.fail(format!("'{name}' is not granted: {why}"), output),
            Ok(true) => {
                self.summary.granted.push(name.to_owned());
                Ok(())
            }
            end => end.map(drop),
        }
    }

    /// AWS profiles are read through the same variables, so an agent can have only one.
    fn other_profile(&self, options: &[String]) -> Option<&str> {
        let is_profile = |name: &&String| *name == "aws" || name.starts_with("aws-");
        let is_aws = options == ["--template", "aws"];
        self.summary.granted.iter().find(is_profile).filter(|_| is_aws).map(String::as_str)
    }

    /// Asks before an existing secret of that name is granted. The author of the file chose the name, so only the user
    /// can decide that the agent may have the secret. Returns whether the agent has it.
    fn grant_stored(
        &mut self,
        (name, options): (&str, &[String]),
        origin: &str,
        agent: &AgentName,
        output: &mut Output,
    ) -> Result<bool, CliError> {
        output
            .line(&format!("secret '{name}' is stored already and stays as it is; found again: {origin}"))?;
        let has = |setup: &Self| setup.summary.granted.iter().any(|granted| granted == name);
        if has(self) {
            return Ok(true);
        }
        let question = format!(
            "Secret '{name}' is stored already, and its value may differ from {origin}. Grant the stored one to agent '{agent}'?"
        );
        if self.other_profile(options).is_some() || self.admin.agrees_to_risk(&question, output)? {
            self.grant((name, options), agent, output)?;
        } else {
            let grant = self.admin.hint(&["grant", agent.as_str(), name], RequiredRights::Administrator);
            output.warning(&format!(
                "secret '{name}' is not granted to agent '{agent}': its value may differ from {origin}\n\
                 to grant the stored one: {grant}"
            ))?;
        }
        Ok(has(self))
    }

    /// Stores a credential that is typed or piped in.
    fn typed(&mut self, agent: &AgentName, output: &mut Output) -> Result<(), CliError> {
        let is_needed = self.summary.seen.is_empty() && self.summary.granted.is_empty();
        let template = match self.args.template {
            None if is_needed => self.ask_template(output)?,
            template => template,
        };
        let Some(template) = template else { return Ok(()) };
        let name = template.template.to_string();
        let options = ["--template".to_owned(), template.to_string()];
        output.finish()?;
        if self.summary.stored.contains(&name) {
            return self.typed_again((&name, &options), agent, output);
        }
        let value = value::read(&INPUT)?.0;
        if self.add((&name, &options), (&value, "your input"), output)? {
            self.grant((&name, &options), agent, output)?;
        }
        Ok(())
    }

    /// Handles a piped value for an existing secret. The stored value may differ from it.
    fn typed_again(
        &mut self,
        (name, options): (&str, &[String]),
        agent: &AgentName,
        output: &mut Output,
    ) -> Result<(), CliError> {
        let is_piped = !stdin().is_terminal() && value::read(&INPUT).is_ok();
        let is_granted = self.grant_stored((name, options), "your input", agent, output)?;
        if is_piped {
            let rotate = self.admin.hint(&["secret", "rotate", name], RequiredRights::Administrator);
            let text = format!(
                "the value on standard input is not stored, because secret '{name}' exists\nto replace its value: {rotate}"
            );
            return self.fail(text, output);
        }
        if is_granted {
            return Ok(());
        }
        let grant = self.admin.hint(&["grant", agent.as_str(), name], RequiredRights::Administrator);
        self.fail(format!("secret '{name}' is not granted to agent '{agent}'\nto grant it: {grant}"), output)
    }

    fn ask_template(&mut self, output: &mut Output) -> Result<Option<TemplateChoice>, CliError> {
        loop {
            let question =
                "Template of a credential to type in ('onecli template list' shows all; empty for none):";
            match self.admin.line(question, output)?.as_deref() {
                None | Some("") => return Ok(None),
                Some(answer) => match answer.parse() {
                    Ok(template) => return Ok(Some(template)),
                    Err(error) => output.line(&format!("{error}"))?,
                },
            }
        }
    }
}

/// Reads from standard input or a prompt.
const INPUT: ValueArgs = ValueArgs { value_stdin: false, value_file: None, force: false };
