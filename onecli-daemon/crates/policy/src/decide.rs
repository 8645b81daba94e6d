//! Decisions about requests.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use onecli_model::{
    Action, AddressScope, AgentId, Authority, Code, Egress, Host, InjectionTarget, Mismatch, NamedResource,
    Operations, PathPattern, PathReadings, Placeholder, Refusal, RequestPart, Rule, RuleId, Secret, SecretId,
};

use super::grant::{Grant, ScrubGrant, SentAs};
use super::identity::{ClientEvidence, Identity};
use super::refusals::{ambiguous, denied_request, host_denied, not_for_this, placeholder_wanted, removed};
use super::snapshot::{AgentView, Snapshot};
use super::trace::Trace;

/// The input of a decision about a request.
#[derive(Debug)]
pub struct RequestFacts<'r> {
    /// The method.
    pub method: &'r Method,
    /// The request's destination.
    pub authority: &'r Authority,
    /// Its path, with the different readings by servers: computed at most once for a decision.
    pub path: PathReadings<'r>,
    /// Whether it is sent over TLS.
    pub tls: bool,
    /// Every placeholder in its head.
    pub placeholders: &'r [Placeholder],
    /// The resources that it names besides its URL.
    pub named: &'r [NamedResource],
    /// Placeholders in the fields of its body that [`Snapshot::body_fields`] named.
    pub body: &'r [(InjectionTarget, Placeholder)],
    /// The operations it requests besides method and path, under the names that denials use.
    pub operations: &'r Operations,
    /// The secrets of the sealed sessions that it presents. Each was opened: it belongs to this agent and this
    /// host.
    pub sessions: &'r [SecretId],
}

/// The decision about a request.
#[derive(Debug)]
pub enum Decision {
    /// Forward with these credentials: at least one, each for a separate target.
    Inject(Vec<Grant>),
    /// Forward without a credential.
    Forward,
    /// Refuse.
    Deny(Refusal),
}

/// The rule, grant or default that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionReason {
    /// A rule.
    Rule(Action, RuleId),
    /// A grant.
    Grant,
    /// The agent's egress default.
    Default(Egress),
}

impl fmt::Display for DecisionReason {
    /// Writes it as in the audit record's `rule`: `allow 7`, `grant`, `egress allow`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecisionReason::Rule(action, id) => write!(f, "{action} {id}"),
            DecisionReason::Grant => f.write_str("grant"),
            DecisionReason::Default(egress) => write!(f, "egress {egress}"),
        }
    }
}

impl From<&Rule> for DecisionReason {
    fn from(rule: &Rule) -> DecisionReason {
        DecisionReason::Rule(rule.terms.action(), rule.id)
    }
}

/// A decision and its conditions.
#[derive(Debug)]
pub struct DecisionOutcome {
    /// The decision, once the conditions are met.
    pub decision: Decision,
    /// The reason for the decision. A refusal contains its own reason.
    pub reason: Option<DecisionReason>,
    /// The rule that requires operator approval first.
    pub approve: Option<Arc<Rule>>,
    /// All limits that count the request.
    pub limits: Vec<Arc<Rule>>,
    /// The addresses that it may be sent to.
    pub address_scope: AddressScope,
    /// Whether a rule depends on its method or path.
    pub is_ruled: bool,
    /// The secrets whose sealed sessions may be opened for it.
    pub sessions: Vec<Grant>,
}

impl DecisionOutcome {
    pub(super) fn deny(refusal: Refusal) -> DecisionOutcome {
        DecisionOutcome {
            decision: Decision::Deny(refusal),
            reason: None,
            approve: None,
            limits: Vec::new(),
            address_scope: AddressScope::default(),
            is_ruled: true,
            sessions: Vec::new(),
        }
    }
}

impl DecisionOutcome {
    /// Reports whether the ruling allows the request with all of these secrets.
    fn rests_on(&self, used: &[SecretId]) -> bool {
        let grants: &[Grant] = match &self.decision {
            Decision::Inject(grants) => grants,
            Decision::Forward => &[],
            Decision::Deny(_) => return false,
        };
        let stands =
            |used: &SecretId| grants.iter().chain(&self.sessions).any(|grant| grant.secret().id == *used);
        used.iter().all(stands)
    }
}

/// The result of the grants alone.
enum Granted {
    /// These grants, and the grants of sealed sessions.
    Grants(Vec<Grant>, Vec<Grant>),
    /// No grant matches the request: this refusal, unless a rule or the default allows it.
    Nothing(Refusal),
    /// A grant matches, but requires more proof: this refusal, unless a rule allows the request without a
    /// credential.
    Unproven(Refusal),
}

impl Snapshot {
    /// Decides one request. Precedence: a wrong placeholder, then rules that deny, approve and limit, then a rule
    /// that allows or a grant, then the agent's egress default.
    pub fn decide(&self, identity: &Identity, request: &RequestFacts<'_>) -> DecisionOutcome {
        self.decide_traced(identity, request, &mut Trace::none())
    }

    /// As [`Snapshot::decide`], and records every rule and every granted secret that was considered.
    pub fn decide_traced(
        &self,
        identity: &Identity,
        request: &RequestFacts<'_>,
        trace: &mut Trace,
    ) -> DecisionOutcome {
        let Some(view) = self.agent(identity.agent().id) else { return DecisionOutcome::deny(removed()) };
        self.decide_with((view, &view.secrets), identity, request, trace)
    }

    /// As [`Snapshot::decide_traced`], limited to these secrets of the agent.
    fn decide_with(
        &self,
        (view, secrets): (&AgentView, &[Arc<Secret>]),
        identity: &Identity,
        request: &RequestFacts<'_>,
        trace: &mut Trace,
    ) -> DecisionOutcome {
        let applied = view.rules.apply(request.authority, request.method, &request.path, trace);
        let granted = self.granted((view, secrets), identity, request, trace);
        // A possible attack is reported as one, whatever other reason there is to refuse.
        let granted = match (granted, applied.deny) {
            (Err(refusal), _) if refusal.code.is_alert() => return DecisionOutcome::deny(refusal),
            (_, Some(rule)) => return DecisionOutcome::deny(denied_request(rule, request)),
            (Err(refusal), None) => return DecisionOutcome::deny(refusal),
            (Ok(granted), None) => granted,
        };
        let egress = identity.agent().egress;
        let allow = applied.allow.map(|rule| DecisionReason::from(rule.as_ref()));
        let approve = applied.approve.map(|rule| DecisionReason::from(rule.as_ref()));
        let default = (egress == Egress::Allow).then_some(DecisionReason::Default(egress));
        let mut sessions = Vec::new();
        let (decision, reason, open) = match granted {
            Granted::Grants(grants, of_sessions) => {
                sessions = of_sessions;
                let decision = if grants.is_empty() { Decision::Forward } else { Decision::Inject(grants) };
                (decision, DecisionReason::Grant, true)
            }
            Granted::Nothing(refusal) => match allow.or(approve).or(default) {
                Some(reason) => (Decision::Forward, reason, false),
                None => return DecisionOutcome::deny(refusal),
            },
            Granted::Unproven(refusal) => match allow {
                Some(reason) => (Decision::Forward, reason, false),
                None => return DecisionOutcome::deny(refusal),
            },
        };
        let open = open || approve.is_some() || default.is_some() || applied.address_scope.open;
        let outcome = DecisionOutcome {
            decision,
            reason: Some(reason),
            approve: applied.approve.cloned(),
            limits: applied.limits.into_iter().cloned().collect(),
            address_scope: AddressScope { open, ..applied.address_scope },
            is_ruled: applied.is_ruled,
            sessions,
        };
        view.restrict_to_named(request, outcome)
    }

    /// Checks that the decision for `request` still stands: for the same agent, with every secret that was `used`.
    /// If so, returns the addresses that it may be sent to. The caller checks this while a response streams or a
    /// WebSocket is open, on each new policy and when the session ends. Approval and limits were met at the start
    /// and are not checked again. A new grant revokes nothing: a later grant may fit the request better, or require
    /// a placeholder.
    pub fn still_allows(
        &self,
        evidence: &ClientEvidence,
        now: Timestamp,
        agent: AgentId,
        request: &RequestFacts<'_>,
        used: &[SecretId],
    ) -> Option<AddressScope> {
        let identity = self.identify(evidence, now).ok().filter(|identity| identity.agent().id == agent)?;
        let view = self.agent(agent)?;
        let is_used = |secret: &&Arc<Secret>| used.contains(&secret.id);
        let of_used: Vec<Arc<Secret>> = view.secrets.iter().filter(is_used).cloned().collect();
        [&view.secrets, &of_used].into_iter().find_map(|secrets| {
            let outcome = self.decide_with((view, secrets), &identity, request, &mut Trace::none());
            outcome.rests_on(used).then_some(outcome.address_scope)
        })
    }

    /// The secrets for this host, on any port or path, that the agent may use or once could. Responses are searched
    /// for all that is [stored](Self::stored_at) for the host.
    pub fn values_to_scrub(&self, identity: &Identity, host: &Host) -> Vec<ScrubGrant> {
        let Some(view) = self.agent(identity.agent().id) else { return Vec::new() };
        view.watched(host).map(|s| ScrubGrant::new(Arc::clone(s), SentAs::Placed)).collect()
    }

    /// The result of the agent's grants for a request, without rules.
    fn granted(
        &self,
        (view, secrets): (&AgentView, &[Arc<Secret>]),
        identity: &Identity,
        request: &RequestFacts<'_>,
        trace: &mut Trace,
    ) -> Result<Granted, Refusal> {
        let traced = if trace.is_wanted() { secrets } else { &[] };
        for secret in traced {
            trace.secret(secret, judged(secret, request));
        }
        let here: Vec<&Arc<Secret>> = secrets
            .iter()
            .filter(|s| {
                s.target.host.matches(request.authority.host()) && s.target.port == request.authority.port()
            })
            .collect();
        refuse_fresh_credentials(&here, request)?;
        let mut presented = self.check_placeholders(view, &here, request)?;
        let in_body = self.presented_in_body(view, &here, request);
        presented.extend(&in_body);
        let matching: Vec<&Arc<Secret>> = here.iter().copied().filter(|s| matches(s, request)).collect();

        if let Some(secret) =
            here.iter().find(|s| presented.contains(&s.id) && !matching.iter().any(|m| m.id == s.id))
        {
            return Err(not_for_this(secret, request));
        }
        if matching.is_empty() {
            return without_grant((view, identity), &here, request);
        }
        if !request.tls && !matching.iter().any(|s| s.target.allow_plaintext) {
            return Err(Refusal::new(
                Code::PlaintextRefused,
                format!("secret '{}' is not sent over plain HTTP", matching[0].name),
                "use https://, or store the secret with --allow-plaintext",
            ));
        }

        // The identity's own factors suffice, or each secret's placeholder replaces the token.
        let required = identity.agent().factors;
        let is_in_place = |secret: &Secret| match secret.placement.placeholder_part() {
            None => true,
            Some(RequestPart::Body) => in_body.contains(&secret.id),
            Some(RequestPart::Head) => presented.contains(&secret.id),
        };
        let needs_placeholder =
            !identity.proven().satisfies(required) || !matching.iter().any(|secret| is_in_place(secret));
        let usable = |secret: &Secret| {
            let mut proven = identity.proven();
            // A session was issued to this agent for this secret, like its placeholder.
            proven.token |= presented.contains(&secret.id) || request.sessions.contains(&secret.id);
            proven.satisfies(required) && (request.tls || secret.target.allow_plaintext)
        };
        let fillable: Vec<&Arc<Secret>> = matching.iter().copied().filter(|s| is_in_place(s)).collect();
        let granted = |secrets: Vec<&Arc<Secret>>| -> Vec<Grant> {
            let usable = secrets.into_iter().filter(|secret| usable(secret));
            usable.map(|secret| Grant::new(Arc::clone(&view.agent), Arc::clone(secret))).collect()
        };
        let grants = granted(winners(&fillable, &presented, request));
        let has_session = |secret: &&Arc<Secret>| request.sessions.contains(&secret.id);
        let of_sessions = granted(matching.iter().copied().filter(has_session).collect());
        if grants.is_empty() && of_sessions.is_empty() && needs_placeholder {
            return Ok(Granted::Unproven(placeholder_wanted(identity, matching[0])));
        }
        Ok(Granted::Grants(grants, of_sessions))
    }
}

/// Checks that a secret applies; otherwise returns the reason.
pub(super) fn judged(secret: &Secret, request: &RequestFacts<'_>) -> Result<(), Mismatch> {
    let target = &secret.target;
    if !target.host.matches(request.authority.host()) {
        return Err(Mismatch::Host);
    }
    if target.port != request.authority.port() {
        return Err(Mismatch::Port);
    }
    if !target.methods.contains(request.method) {
        return Err(Mismatch::Method);
    }
    if matches(secret, request) {
        return Ok(());
    }
    Err(if request.path.ambiguity().is_some() { Mismatch::AmbiguousPath } else { Mismatch::Path })
}

pub(super) fn matches(secret: &Secret, request: &RequestFacts<'_>) -> bool {
    secret.target.methods.contains(request.method)
        && secret.target.paths.iter().any(|pattern| path_matches(secret, pattern, &request.path))
}

pub(super) fn path_matches(secret: &Secret, pattern: &PathPattern, path: &PathReadings<'_>) -> bool {
    if secret.profile.encoded_slash { pattern.matches_opaque(path) } else { pattern.matches(path) }
}

/// Refuses requests that create a credential, whichever secret could allow them: the response would contain the new
/// credential.
pub(super) fn refuse_fresh_credentials(
    here: &[&Arc<Secret>],
    request: &RequestFacts<'_>,
) -> Result<(), Refusal> {
    let asked = request.asked();
    let Some(secret) = here.iter().find(|secret| secret.profile.denies(&asked)) else { return Ok(()) };
    Err(Refusal::new(
        Code::CredentialEndpoint,
        format!(
            "{} {} may return a new credential, which the template of secret '{}' withholds from agents",
            request.method, request.path, secret.name
        ),
        "ask an administrator to create the credential, or to store the secret without --template",
    ))
}

/// Selects one secret for each target: the one whose placeholder was presented, else the most specific, ties by name.
fn winners<'s>(
    matching: &[&'s Arc<Secret>],
    presented: &[SecretId],
    request: &RequestFacts<'_>,
) -> Vec<&'s Arc<Secret>> {
    let mut ranked: Vec<&Arc<Secret>> = matching.to_vec();
    ranked.sort_by_cached_key(|secret| {
        let path = secret
            .target
            .paths
            .iter()
            .filter(|pattern| path_matches(secret, pattern, &request.path))
            .map(PathPattern::specificity)
            .max();
        Reverse((
            presented.contains(&secret.id),
            secret.target.host.specificity(request.authority.host()),
            path,
            !secret.target.methods.is_all(),
            Reverse(secret.name.clone()),
        ))
    });
    let mut targets: Vec<InjectionTarget> = Vec::new();
    ranked.retain(|secret| {
        let target = secret.placement.injection_target();
        let free = !targets.contains(&target);
        if free {
            targets.push(target);
        }
        free
    });
    ranked
}

fn without_grant(
    (view, identity): (&AgentView, &Identity),
    here: &[&Arc<Secret>],
    request: &RequestFacts<'_>,
) -> Result<Granted, Refusal> {
    if let (false, Some(ambiguity)) = (here.is_empty(), request.path.ambiguity()) {
        return Err(ambiguous(ambiguity));
    }
    Ok(Granted::Nothing(match here.first() {
        Some(secret) => not_for_this(secret, request),
        None => host_denied(identity, request.authority, view.former_at(request.authority.host())),
    }))
}
