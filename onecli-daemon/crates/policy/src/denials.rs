//! Denials of templates, as policy applies them.

use onecli_model::operation::{Asked, Reading};

use super::decide::RequestFacts;
use super::identity::Identity;
use super::snapshot::Snapshot;

impl<'r> RequestFacts<'r> {
    /// The view of the request that denials of templates use.
    pub(super) fn asked(&self) -> Asked<'_, 'r> {
        Asked {
            method: self.method,
            host: self.authority.host(),
            path: &self.path,
            operations: self.operations,
        }
    }
}

impl Snapshot {
    /// The parts of the request besides its head that a denial of one of the agent's secrets depends on.
    pub fn denials_read(&self, identity: &Identity, request: &RequestFacts<'_>) -> Reading {
        let Some(view) = self.agent(identity.agent().id) else { return Reading::Nothing };
        let (host, port) = (request.authority.host(), request.authority.port());
        let here = view.secrets.iter().filter(|s| s.target.port == port && s.target.host.matches(host));
        here.map(|secret| secret.profile.reads(&request.asked())).max().unwrap_or_default()
    }
}
