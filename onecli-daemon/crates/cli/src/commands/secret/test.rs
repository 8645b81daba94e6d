//! `onecli secret test`.

use clap::Args as ClapArgs;
use onecli_api::{SecretTest, SecretTestResult, routes};
use onecli_model::harmless::TestVerdict;
use onecli_model::{Host, SecretName};

use crate::client::Client;
use crate::error::CliError;
use crate::output::Output;

/// Send one harmless request with a secret, and print the service's response.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Requires root. The secret's template names the request. For a secret without a template, name a request that changes
nothing at the service. The daemon injects, sends, scrubs and records it like an agent's request. The exit code is 0 only
if the service accepted the credential, or responded with 2xx to a request that you named. Such a 2xx response does not
prove that the path requires the credential.

Examples:
  sudo onecli secret test openai
  sudo onecli secret test crm --path /api/v1/me
  sudo onecli secret test jira --host acme.atlassian.net --user alice@acme.example")]
pub(crate) struct SecretTestArgs {
    /// The secret.
    pub(crate) name: SecretName,
    /// The host. Default: the template's or the secret's own.
    #[arg(long)]
    host: Option<Host>,
    /// The method of --path.
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// The path and query, within the secret's scope. Default: the template's.
    #[arg(long)]
    path: Option<String>,
    /// The user for Basic authentication, if the secret is only the password.
    #[arg(long)]
    user: Option<String>,
}

pub(crate) fn test(client: &Client, args: SecretTestArgs, output: &mut Output) -> Result<(), CliError> {
    let SecretTestArgs { name, host, method, path, user } = args;
    let request = SecretTest { host, method, path, user };
    let tested: SecretTestResult = client.post(&routes::secret_action(&name, "test"), &request)?;
    if output.is_json() {
        output.document(&tested)?;
    } else {
        print(&tested, output)?;
    }
    verdict(&tested)
}

fn print(tested: &SecretTestResult, output: &mut Output) -> Result<(), CliError> {
    let verdict = match tested.verdict {
        TestVerdict::Accepted if tested.template_request => "accepted",
        TestVerdict::Accepted => {
            "answered (2xx; this shows that the credential works only if the path needs it)"
        }
        TestVerdict::Refused => "REFUSED",
        TestVerdict::Unknown => "inconclusive",
    };
    let record = tested.request_id.map(|id| format!("onecli audit list --request {id}")).unwrap_or_default();
    output.fields(&[
        ("request", tested.request.clone()),
        ("status", tested.status.to_string()),
        ("verdict", verdict.to_owned()),
        ("took", format!("{} ms", tested.duration_ms)),
        ("answer", tested.excerpt.clone()),
        ("record", record),
    ])?;
    Ok(())
}

fn verdict(tested: &SecretTestResult) -> Result<(), CliError> {
    let SecretTestResult { secret, status, .. } = tested;
    match tested.verdict {
        TestVerdict::Accepted => Ok(()),
        TestVerdict::Refused => Err(CliError::Unfinished(format!(
            "the service refused the credential of secret '{secret}' (status {status})\n\
             help: give it a new value: onecli secret rotate {secret}"
        ))),
        TestVerdict::Unknown => Err(CliError::Unfinished(format!(
            "status {status}{} does not show whether the service accepts the credential of secret '{secret}'\n\
             help: try a request that needs it: onecli secret test {secret} --path PATH",
            tested.redirect_host.as_ref().map(|host| format!(", a redirect to {host},")).unwrap_or_default()
        ))),
    }
}
