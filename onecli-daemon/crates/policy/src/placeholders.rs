//! Placeholders in a request: the agents they belong to, and the secrets they represent.

use std::collections::HashSet;
use std::sync::Arc;

use onecli_model::{
    AgentId, Authority, Code, InjectionTarget, Placeholder, Placement, Refusal, RequestPart, Secret, SecretId,
};

use super::decide::{RequestFacts, matches};
use super::identity::Identity;
use super::snapshot::{AgentView, Snapshot};

impl Snapshot {
    /// The placements in a request's body, for the secrets that it matches; one for each field. If there are any
    /// and the body has their format, the body must be read before the decision.
    pub fn body_fields(&self, identity: &Identity, request: &RequestFacts<'_>) -> Vec<Placement> {
        let Some(view) = self.agent(identity.agent().id) else { return Vec::new() };
        let is_here = |s: &&Arc<Secret>| {
            s.target.host.matches(request.authority.host())
                && s.target.port == request.authority.port()
                && matches(s, request)
        };
        let mut targets = HashSet::new();
        let in_body =
            |s: &&Arc<Secret>| s.placement.placeholder_part() == Some(RequestPart::Body) && is_here(s);
        let placements = view.secrets.iter().filter(in_body).map(|s| &s.placement);
        placements.filter(|placement| targets.insert(placement.injection_target())).cloned().collect()
    }

    /// The secrets whose placeholders stand at their locations in the body. Other text in the body is ignored.
    pub(super) fn presented_in_body(
        &self,
        view: &AgentView,
        here: &[&Arc<Secret>],
        request: &RequestFacts<'_>,
    ) -> Vec<SecretId> {
        let secret_at = |(field, placeholder): &(InjectionTarget, Placeholder)| {
            let (agent, id) = self.owner_of_placeholder(placeholder)?;
            let secret = here.iter().find(|secret| secret.id == id)?;
            let is_in_place = || {
                let placement = &secret.placement;
                placement.placeholder_part() == Some(RequestPart::Body)
                    && placement.injection_target() == *field
            };
            (agent == view.agent.id && is_in_place()).then_some(id)
        };
        request.body.iter().filter_map(secret_at).collect()
    }

    /// Judges a placeholder in the content of a request from `agent` to `authority`. It is
    /// [`Code::PlaceholderForeign`] for another agent's, and [`Code::PlaceholderMisplaced`] for one whose secret is
    /// for another host or port. It is `None` for the agent's own at its host, anywhere in the content, and for
    /// text that is not a current placeholder: the format alone proves nothing. It takes two lookups, however many
    /// secrets there are.
    pub fn judge_content(&self, agent: AgentId, authority: &Authority, placeholder: &str) -> Option<Code> {
        let (owner, secret) = self.placeholder(placeholder)?;
        if *owner != agent {
            return Some(Code::PlaceholderForeign);
        }
        let target = &secret.target;
        let is_here = target.host.matches(authority.host()) && target.port == authority.port();
        (!is_here).then_some(Code::PlaceholderMisplaced)
    }

    /// Checks that every placeholder belongs to this agent, and to a secret that may go to this host.
    pub(super) fn check_placeholders(
        &self,
        view: &AgentView,
        here: &[&Arc<Secret>],
        request: &RequestFacts<'_>,
    ) -> Result<Vec<SecretId>, Refusal> {
        request
            .placeholders
            .iter()
            .map(|placeholder| match self.owner_of_placeholder(placeholder) {
                Some((agent, secret)) if agent == view.agent.id => {
                    if here.iter().any(|s| s.id == secret) {
                        Ok(secret)
                    } else {
                        Err(Refusal::new(
                            Code::PlaceholderMisplaced,
                            format!("the request carries a placeholder whose secret is not for {}", request.authority),
                            "remove the placeholder from the request; 'onecli secret show NAME' shows where it may go",
                        ))
                    }
                }
                _ => Err(Refusal::new(
                    Code::PlaceholderForeign,
                    format!("the request carries a placeholder that does not belong to agent '{}'", view.agent.name),
                    "the grant may have been revoked or the agent rotated: start it again with 'onecli run'",
                )),
            })
            .collect()
    }
}
