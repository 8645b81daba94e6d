//! The state of one run of `onecli setup`.

use serde::Deserialize;

use super::admin::Admin;
use super::args::SetupArgs;
use crate::client::Client;

/// The state of one run.
pub(super) struct Setup<'c> {
    pub(super) client: &'c Client,
    pub(super) args: SetupArgs,
    pub(super) admin: Admin,
    pub(super) summary: SetupSummary,
}

/// The users and grants of an agent, from `agent show`.
#[derive(Deserialize)]
pub(super) struct AgentState {
    #[serde(default)]
    pub(super) runners: Vec<String>,
    #[serde(default)]
    pub(super) secrets: Vec<GrantEntry>,
}

#[derive(Deserialize)]
pub(super) struct GrantEntry {
    pub(super) secret: String,
}

/// An entry of a list that has a name.
#[derive(Deserialize)]
pub(super) struct NamedEntry {
    pub(super) name: String,
}

/// Results for the summary.
#[derive(Default)]
pub(super) struct SetupSummary {
    /// Names of the stored secrets.
    pub(super) stored: Vec<String>,
    /// Names of the agent's secrets.
    pub(super) granted: Vec<String>,
    /// Names of the secrets found in this run.
    pub(super) seen: Vec<String>,
    /// Commands that remove the originals of values that this run stored.
    pub(super) removals: Vec<String>,
    /// Commands that remove originals whose secret already existed. Its value may differ.
    pub(super) removals_if_same: Vec<String>,
    /// Failures, with the next step. They do not stop the other steps.
    pub(super) failed: Vec<String>,
}
