//! The form in which commands print an agent.

use onecli_api::{AgentToken, AgentView};

use crate::error::CliError;
use crate::output::Output;

pub(super) fn state(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

pub(super) fn fields(agent: &AgentView) -> Vec<(&'static str, String)> {
    vec![
        ("name", agent.name.to_string()),
        ("state", state(agent.enabled).to_owned()),
        ("factors", agent.factors.to_string()),
        ("cgroup", agent.cgroup.to_string()),
        ("user", agent.user.clone().unwrap_or_default()),
        ("egress", agent.egress.to_string()),
        ("git config", if agent.allow_git_config { "writable" } else { "read-only" }.to_owned()),
    ]
}

pub(super) fn show_token(answer: &AgentToken, output: &mut Output) -> Result<(), CliError> {
    output.fields(&[("token", answer.token.clone())])?;
    Ok(output
        .line("the token is not shown again; 'run' needs none, HTTPS_PROXY=http://x:TOKEN@HOST:PORT does")?)
}
