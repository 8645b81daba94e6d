//! `onecli secret add`.

use onecli_api::{SecretAdd, SecretView, routes};

use super::add_args::SecretAddArgs;
use super::doubtful;
use super::view::fields;
use crate::client::Client;
use crate::error::CliError;
use crate::input::value;
use crate::output::Output;

pub(crate) fn add(client: &Client, args: SecretAddArgs, output: &mut Output) -> Result<(), CliError> {
    let resolved = args.resolve().map_err(CliError::Usage)?;
    let value = match resolved.profile.source {
        Some(_) => None,
        None => Some(value::read(&args.value)?),
    };
    let mut request = SecretAdd {
        placement: resolved.placement,
        profile: resolved.profile,
        value,
        name: args.name,
        host: resolved.host,
        port: resolved.port,
        methods: resolved.methods,
        paths: resolved.paths,
        env: resolved.env,
        allow_plaintext: args.allow_plaintext,
        force: args.value.force,
    };
    let added: SecretView = doubtful::send(output, |force| {
        request.force |= force;
        client.post(routes::SECRETS, &request)
    })?;
    if output.is_json() {
        return Ok(output.document(&added)?);
    }
    output.line(&format!("stored secret '{}'", added.name))?;
    let fields = fields(&added, output);
    output.fields(&fields)?;
    output.line(&format!("next: onecli grant AGENT {}", added.name))?;
    Ok(added.warnings.iter().try_for_each(|warning| output.warning(warning))?)
}
