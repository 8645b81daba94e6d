//! The step of `onecli setup` that stores and grants credentials.

use super::admin::Needs;
use super::args::Kind;
use super::sources::{Found, Source};
use super::{AgentState, Named, Setup};
use crate::cli::args::ValueArgs;
use crate::cli::output::Output;
use crate::cli::{CliError, value};
use crate::model::{AgentName, TemplateChoice};

const ALL: [Kind; 5] = [Kind::Env, Kind::Gh, Kind::Netrc, Kind::Dotenv, Kind::Aws];

impl Setup<'_> {
    /// Stores credentials that the person has, and grants them. Gives the commands that remove the originals.
    pub(super) fn credentials(
        &mut self,
        agent: &AgentName,
        output: &mut Output,
    ) -> Result<Vec<String>, CliError> {
        let stored: Vec<Named> = self.admin.ask(&["secret", "list"], output)?;
        let mut stored: Vec<String> = stored.into_iter().map(|secret| secret.name).collect();
        let granted: AgentState = self.admin.ask(&["agent", "show", agent.as_str()], output)?;
        let mut granted: Vec<String> = granted.secrets.into_iter().map(|grant| grant.secret).collect();
        let mut removals = Vec::new();
        let mut wanted = Vec::new();
        for source in self.sources() {
            if !self.admin.agrees(&format!("Read {}?", source.label()), output)? {
                continue;
            }
            match source.read() {
                Ok(found) if found.is_empty() => {
                    output.line(&format!("nothing to store in {}", source.label()))?;
                }
                Ok(found) => self.store(found, &mut stored, (&mut wanted, &mut removals), output)?,
                Err(why) => output.warning(&format!("cannot read {}: {why}", source.label()))?,
            }
        }
        if let Some(name) = self.typed(&stored, wanted.is_empty() && granted.is_empty(), output)? {
            wanted.push(name);
        }
        for name in wanted {
            if !granted.contains(&name) {
                let grant = ["grant", agent.as_str(), &name];
                self.admin.step((&grant, Needs::Administrator), None, output)?;
                granted.push(name);
            }
        }
        Ok(removals)
    }

    fn sources(&self) -> Vec<Source> {
        let nothing_named = self.args.imports.is_empty() && self.args.template.is_none();
        if nothing_named && !self.args.yes {
            return Source::find(&ALL);
        }
        Source::find(&self.args.imports)
    }

    fn store(
        &mut self,
        found: Vec<Found>,
        stored: &mut Vec<String>,
        (wanted, removals): (&mut Vec<String>, &mut Vec<String>),
        output: &mut Output,
    ) -> Result<(), CliError> {
        for Found { name, options, origin, value, remove } in found {
            let name = name.to_string();
            if wanted.contains(&name) {
                output.line(&format!("left out: {origin}, because '{name}' was found before"))?;
                continue;
            }
            if stored.contains(&name) {
                output.line(&format!(
                    "secret '{name}' is stored already and stays as it is; found again: {origin}"
                ))?;
                wanted.push(name);
                continue;
            }
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let add = [&["secret", "add", &name, "--value-stdin"][..], &options].concat();
            if self.admin.step((&add, Needs::Administrator), Some((&value, &origin)), output)? {
                stored.push(name.clone());
                wanted.push(name);
                removals.push(remove);
            }
        }
        Ok(())
    }

    /// A credential that is typed, or piped in.
    fn typed(
        &mut self,
        stored: &[String],
        is_needed: bool,
        output: &mut Output,
    ) -> Result<Option<String>, CliError> {
        let template = match self.args.template {
            Some(template) => template,
            None if is_needed => match self.ask_template(output)? {
                Some(template) => template,
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let name = template.template.to_string();
        if stored.contains(&name) {
            output.line(&format!("secret '{name}' is stored already and stays as it is"))?;
            return Ok(Some(name));
        }
        output.finish()?;
        let read = ValueArgs { value_stdin: false, value_file: None, force: false };
        let value = value::read(&read)?.0;
        let template = template.to_string();
        let add = ["secret", "add", &name, "--value-stdin", "--template", &template];
        let is_stored =
            self.admin.step((&add, Needs::Administrator), Some((&value, "your input")), output)?;
        Ok(is_stored.then_some(name))
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
