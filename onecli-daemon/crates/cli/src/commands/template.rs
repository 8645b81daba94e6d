//! `onecli template list | show`: the built-in templates of common services. The commands do not contact the daemon.

use clap::Subcommand;
use onecli_model::TemplateName;
use onecli_model::narrow::NarrowProfile;
use onecli_model::template::Template;

use crate::error::CliError;
use crate::output::{Output, joined, or_dash};

/// The width of the list, also in a file.
const WIDTH: u16 = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// List all templates.
    List,
    /// Show a template: its hosts, its placement, its variables, and what it refuses.
    Show {
        /// The template.
        name: TemplateName,
    },
}

pub(crate) fn run(command: &TemplateCommand, output: &mut Output) -> Result<(), CliError> {
    match command {
        TemplateCommand::List => list(output),
        TemplateCommand::Show { name } => show(*name, output),
    }
}

fn list(output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return Ok(output.document(&Template::all())?);
    }
    let row = |template: &Template, narrow: Option<&NarrowProfile>| {
        [
            narrow.map_or(template.name.clone(), |narrow| format!("{}:{}", template.name, narrow.name)),
            template.env.first().cloned().unwrap_or_default(),
            narrow.map_or(&template.title, |narrow| &narrow.title).clone(),
        ]
    };
    let mut rows = Vec::new();
    for template in Template::all() {
        rows.push(row(template, None));
        rows.extend(template.profiles.iter().map(|narrow| row(template, Some(narrow))));
    }
    Ok(output.table_within(WIDTH, ["NAME", "VARIABLE", "SERVICE"], &rows)?)
}

fn show(name: TemplateName, output: &mut Output) -> Result<(), CliError> {
    let template = name.template();
    if output.is_json() {
        return Ok(output.document(template)?);
    }
    let placeholder = format!("{}onecli_ph_...", template.shape.prefix());
    output.fields(&[
        ("name", template.name.clone()),
        ("service", template.title.clone()),
        ("hosts", joined(template.hosts.iter(), "name them with --host")),
        ("placement", template.placement.to_string()),
        ("placeholder", placeholder),
        ("value", template.value.to_string()),
        ("variables", joined(&template.env, "-")),
        ("minted", or_dash(template.mint.as_ref())),
        ("%2F", if template.encoded_slash { "within names".to_owned() } else { String::new() }),
        ("refused", joined(&template.denials, "-")),
        ("masked", joined(template.issued.iter().flat_map(|kind| &kind.members), "-")),
        ("profiles", joined(template.profiles.iter().map(|narrow| &narrow.name), "-")),
        ("cookies", template.cookies.unwrap_or_default().to_string()),
        ("session headers", joined(&template.session_headers, "-")),
        ("not signed", joined(&template.except, "-")),
    ])?;
    output.line(&format!("next: onecli secret add NAME --template {}", template.name))?;
    Ok(())
}
