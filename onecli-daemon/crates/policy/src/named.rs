//! Rules and grants for the resources that a request names besides its URL.

use std::sync::Arc;

use onecli_model::{Authority, Egress, NamedResource, PathReadings, Refusal, Secret};

use super::Grant;
use super::decide::{Decision, DecisionOutcome, RequestFacts, path_matches};
use super::refusals::{denied_by, named_is_unreadable, named_wants_approval, not_for_named};
use super::snapshot::AgentView;
use super::trace::Trace;

impl AgentView {
    /// Restricts the ruling for `request` to what is allowed for every resource that it names. A resource that
    /// cannot be parsed is refused if a credential is injected or rules exist: a secret is at least limited by its
    /// hosts.
    pub(super) fn restrict_to_named(
        &self,
        request: &RequestFacts<'_>,
        mut outcome: DecisionOutcome,
    ) -> DecisionOutcome {
        for resource in request.named {
            // A rule applies to single resources, so it cannot decide on a whole prefix.
            let is_unruled = resource.is_prefix && !self.rules.is_empty();
            if is_unruled || (resource.places.is_empty() && self.limits(&outcome)) {
                return DecisionOutcome::deny(named_is_unreadable(resource));
            }
            for (authority, path) in &resource.places {
                let location = NamedLocation { resource, authority, path: PathReadings::new(path) };
                if let Err(refusal) = self.check_location(request, &location, &mut outcome) {
                    return DecisionOutcome::deny(refusal);
                }
            }
        }
        outcome
    }

    /// Reports whether the named resource can change the ruling.
    fn limits(&self, outcome: &DecisionOutcome) -> bool {
        let injects = matches!(&outcome.decision, Decision::Inject(grants) if !grants.is_empty());
        injects || !self.rules.is_empty()
    }

    fn check_location(
        &self,
        request: &RequestFacts<'_>,
        location: &NamedLocation<'_>,
        outcome: &mut DecisionOutcome,
    ) -> Result<(), Refusal> {
        let mut allowed = self.agent.egress == Egress::Allow;
        for method in [request.method, &location.resource.use_as] {
            let applied = self.rules.apply(location.authority, method, &location.path, &mut Trace::none());
            if let Some(rule) = applied.deny {
                return Err(denied_by(rule, format_args!("{method} {location}")));
            }
            if let Some(rule) = applied.approve {
                // An approver sees only the URL.
                if outcome.approve.as_ref().is_none_or(|own| own.id != rule.id) {
                    return Err(named_wants_approval(rule, location));
                }
                allowed = true;
            }
            for rule in applied.limits {
                if !outcome.limits.iter().any(|own| own.id == rule.id) {
                    outcome.limits.push(Arc::clone(rule));
                }
            }
            allowed |= applied.allow.is_some();
        }
        let refused = match &outcome.decision {
            Decision::Inject(grants) => {
                grants.iter().map(Grant::secret).find(|secret| !location.is_covered_by(secret))
            }
            Decision::Forward if allowed || self.secrets.iter().any(|own| location.is_covered_by(own)) => {
                None
            }
            Decision::Forward => return Err(not_for_named(None, location)),
            Decision::Deny(_) => None,
        };
        refused.map_or(Ok(()), |secret| Err(not_for_named(Some(secret), location)))
    }
}

/// A location that a server may interpret a named resource as.
pub(super) struct NamedLocation<'r> {
    pub(super) resource: &'r NamedResource,
    authority: &'r Authority,
    path: PathReadings<'r>,
}

impl NamedLocation<'_> {
    /// Reports whether the location is at the secret's host and port, and below its paths.
    fn is_covered_by(&self, secret: &Secret) -> bool {
        let target = &secret.target;
        target.host.matches(self.authority.host())
            && target.port == self.authority.port()
            && target.paths.iter().any(|pattern| path_matches(secret, pattern, &self.path))
    }
}

impl std::fmt::Display for NamedLocation<'_> {
    /// `host:port/path, which 'field' names`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}, which '{}' names", self.authority, self.path, self.resource.field)
    }
}
