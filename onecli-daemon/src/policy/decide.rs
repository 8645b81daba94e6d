//! What happens to a connection and to each request on it.

use std::cmp::Reverse;
use std::sync::Arc;

use http::Method;
use jiff::Timestamp;

use super::grant::{Grant, Watch};
use super::identity::{Evidence, Identity};
use super::snapshot::{AgentView, Snapshot};
use crate::model::refusal::Challenge;
use crate::model::{
    AgentId, Authority, CanonicalPath, Code, Egress, Host, JsonPointer, PathPattern, Placeholder, Placement,
    Refusal, Secret, SecretId, Site, Slot,
};

/// What happens to a TLS connection, once its server name is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Decrypt: a secret of the agent can match the host.
    Inspect,
    /// Pass the bytes on, unread.
    Tunnel,
    /// Refuse.
    Deny(Refusal),
}

/// What a decision about a request is made from.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'r> {
    /// The method.
    pub method: &'r Method,
    /// Where the request goes.
    pub authority: &'r Authority,
    /// Its path.
    pub path: &'r CanonicalPath,
    /// Does it leave over TLS?
    pub tls: bool,
    /// Every placeholder in its head.
    pub placeholders: &'r [Placeholder],
    /// Placeholders in the fields of its body that [`Snapshot::body_fields`] named.
    pub body: &'r [(JsonPointer, Placeholder)],
}

/// What happens to a request.
#[derive(Debug)]
pub enum Decision {
    /// Forward with these credentials, at least one, each for a slot of its own.
    Inject(Vec<Grant>),
    /// Forward without any.
    Forward,
    /// Refuse.
    Deny(Refusal),
}

impl Snapshot {
    /// Decides a TLS connection by its server name.
    pub fn route(&self, identity: &Identity, authority: &Authority) -> Route {
        if self.may_match(identity.agent().id, authority.host()) {
            return Route::Inspect;
        }
        match identity.agent().egress {
            Egress::Allow => Route::Tunnel,
            Egress::Deny => Route::Deny(host_denied(identity, authority)),
        }
    }

    /// May the agent learn the addresses of this name?
    pub fn may_resolve(&self, identity: &Identity, host: &Host) -> bool {
        identity.agent().egress == Egress::Allow || self.may_match(identity.agent().id, host)
    }

    /// Decides one request. Precedence: a wrong placeholder, then grants, then the agent's egress default.
    pub fn decide(&self, identity: &Identity, request: &RequestFacts<'_>) -> Decision {
        match self.try_decide(identity, request) {
            Ok(grants) if grants.is_empty() => Decision::Forward,
            Ok(grants) => Decision::Inject(grants),
            Err(refusal) => Decision::Deny(refusal),
        }
    }

    /// Is what was decided for `request` still allowed now: to the same agent, with every secret that was `used`? Asked
    /// while an answer streams or a WebSocket is open, on each new policy and when the session ends.
    pub fn still_allows(
        &self,
        evidence: &Evidence,
        now: Timestamp,
        agent: AgentId,
        request: &RequestFacts<'_>,
        used: &[SecretId],
    ) -> bool {
        match self.identify(evidence, now) {
            Ok(identity) if identity.agent().id == agent => match self.decide(&identity, request) {
                Decision::Inject(grants) => {
                    used.iter().all(|used| grants.iter().any(|grant| grant.secret().id == *used))
                }
                Decision::Forward => used.is_empty(),
                Decision::Deny(_) => false,
            },
            _ => false,
        }
    }

    /// The secrets whose values must not come back from this host: all that match it, by whatever port or path.
    pub fn watches(&self, identity: &Identity, host: &Host) -> Vec<Watch> {
        let Some(view) = self.agent(identity.agent().id) else { return Vec::new() };
        view.secrets
            .iter()
            .filter(|s| s.target.host.matches(host))
            .map(|s| Watch::new(Arc::clone(s)))
            .collect()
    }

    fn try_decide(&self, identity: &Identity, request: &RequestFacts<'_>) -> Result<Vec<Grant>, Refusal> {
        let Some(view) = self.agent(identity.agent().id) else {
            return Err(Refusal::new(
                Code::AgentUnknown,
                "the agent was removed",
                "add it again with 'onecli agent add'",
            ));
        };
        let here: Vec<&Arc<Secret>> = view
            .secrets
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
            return without_grant(identity, &here, request);
        }
        if !request.tls && !matching.iter().any(|s| s.target.allow_plaintext) {
            return Err(Refusal::new(
                Code::PlaintextRefused,
                format!("secret '{}' is not sent over plain HTTP", matching[0].name),
                "use https://, or store the secret with --allow-plaintext",
            ));
        }

        // The identity's own factors suffice, or each secret's placeholder stands in for the token.
        let required = identity.agent().factors;
        let is_in_place = |secret: &Secret| match secret.placement.site() {
            None => true,
            Some(Site::Json(_)) => in_body.contains(&secret.id),
            Some(_) => presented.contains(&secret.id),
        };
        let needs_placeholder =
            !identity.proven().satisfies(required) || !matching.iter().any(|secret| is_in_place(secret));
        let usable = |secret: &Secret| {
            let mut proven = identity.proven();
            proven.token |= presented.contains(&secret.id);
            proven.satisfies(required) && (request.tls || secret.target.allow_plaintext)
        };
        let fillable: Vec<&Arc<Secret>> = matching.iter().copied().filter(|s| is_in_place(s)).collect();
        let winners = winners(&fillable, &presented, request);
        let grants: Vec<Grant> = winners
            .into_iter()
            .filter(|secret| usable(secret))
            .map(|secret| Grant::new(Arc::clone(&view.agent), Arc::clone(secret)))
            .collect();
        if grants.is_empty() && needs_placeholder {
            return Err(placeholder_wanted(identity, matching[0]));
        }
        Ok(grants)
    }

    /// The fields of a request's body in which a placeholder may stand, by the secrets that it matches. Where there are
    /// any, and the body is JSON, it has to be read before the request can be decided.
    pub fn body_fields(&self, identity: &Identity, request: &RequestFacts<'_>) -> Vec<JsonPointer> {
        let Some(view) = self.agent(identity.agent().id) else { return Vec::new() };
        let is_here = |s: &&Arc<Secret>| {
            s.target.host.matches(request.authority.host())
                && s.target.port == request.authority.port()
                && matches(s, request)
        };
        let mut fields: Vec<JsonPointer> =
            view.secrets.iter().filter(is_here).filter_map(|s| s.placement.json_pointer().cloned()).collect();
        fields.sort();
        fields.dedup();
        fields
    }

    /// The secrets whose placeholders stand in the body where they are to be replaced. Any other text there is the
    /// agent's own affair.
    fn presented_in_body(
        &self,
        view: &AgentView,
        here: &[&Arc<Secret>],
        request: &RequestFacts<'_>,
    ) -> Vec<SecretId> {
        let secret_at = |(field, placeholder): &(JsonPointer, Placeholder)| {
            let (agent, id) = self.owner_of_placeholder(placeholder)?;
            let secret = here.iter().find(|secret| secret.id == id)?;
            (agent == view.agent.id && secret.placement.json_pointer() == Some(field)).then_some(id)
        };
        request.body.iter().filter_map(secret_at).collect()
    }

    /// Every placeholder must be this agent's, for a secret that may go to this host.
    fn check_placeholders(
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
                            "remove the placeholder from the request; 'onecli secret show NAME' tells where it may go",
                        ))
                    }
                }
                _ => Err(Refusal::new(
                    Code::PlaceholderForeign,
                    format!("the request carries a placeholder that is none of agent '{}'", view.agent.name),
                    "the grant may have been revoked or the agent rotated: start it again with 'onecli run'",
                )),
            })
            .collect()
    }
}

fn matches(secret: &Secret, request: &RequestFacts<'_>) -> bool {
    secret.target.methods.contains(request.method)
        && secret.target.paths.iter().any(|pattern| path_matches(secret, pattern, request))
}

fn path_matches(secret: &Secret, pattern: &PathPattern, request: &RequestFacts<'_>) -> bool {
    if secret.profile.encoded_slash {
        pattern.matches_opaque(request.path)
    } else {
        pattern.matches(request.path)
    }
}

/// What makes a fresh credential is refused, by whatever secret it could be allowed: the answer would hold it.
fn refuse_fresh_credentials(here: &[&Arc<Secret>], request: &RequestFacts<'_>) -> Result<(), Refusal> {
    let host = request.authority.host();
    let denied = |secret: &&&Arc<Secret>| {
        let denials = secret.profile.denials();
        denials.iter().any(|denial| denial.matches(request.method, host, request.path.as_str()))
    };
    let Some(secret) = here.iter().find(denied) else { return Ok(()) };
    Err(Refusal::new(
        Code::CredentialEndpoint,
        format!(
            "{} {} may answer with a new credential, which the template of secret '{}' does not let agents have",
            request.method, request.path, secret.name
        ),
        "have a person make it; or an administrator stores the secret without --template",
    ))
}

/// One secret for each slot: the one whose placeholder was presented, else the most specific, ties by name.
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
            .filter(|pattern| path_matches(secret, pattern, request))
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
    let mut slots: Vec<Slot> = Vec::new();
    ranked.retain(|secret| {
        let slot = secret.placement.slot();
        let free = !slots.contains(&slot);
        if free {
            slots.push(slot);
        }
        free
    });
    ranked
}

fn without_grant(
    identity: &Identity,
    here: &[&Arc<Secret>],
    request: &RequestFacts<'_>,
) -> Result<Vec<Grant>, Refusal> {
    if let (false, Some(ambiguity)) = (here.is_empty(), request.path.ambiguity()) {
        return Err(Refusal::new(
            Code::PathAmbiguous,
            format!("the path holds {ambiguity}, which servers read in different ways"),
            "send the path in its plain form",
        ));
    }
    match (identity.agent().egress, here.first()) {
        (Egress::Allow, _) => Ok(Vec::new()),
        (Egress::Deny, Some(secret)) => Err(not_for_this(secret, request)),
        (Egress::Deny, None) => Err(host_denied(identity, request.authority)),
    }
}

fn not_for_this(secret: &Secret, request: &RequestFacts<'_>) -> Refusal {
    Refusal::new(
        Code::EgressDenied,
        format!("secret '{}' may not be used for {} {}", secret.name, request.method, request.path),
        format!("'onecli secret show {}' tells its methods and paths", secret.name),
    )
}

fn host_denied(identity: &Identity, authority: &Authority) -> Refusal {
    let name = &identity.agent().name;
    Refusal::new(
        Code::EgressDenied,
        format!("agent '{name}' may not reach {authority}"),
        format!(
            "grant it a secret for that host (onecli grant {name} SECRET), or add it with --egress allow"
        ),
    )
}

fn placeholder_wanted(identity: &Identity, secret: &Secret) -> Refusal {
    let hint = match &secret.env {
        Some(env) => {
            let env = env.split(',').next().unwrap_or_default();
            format!("send the value of ${env}, which 'onecli run --agent {}' sets", identity.agent().name)
        }
        None => format!("send the placeholder that 'onecli agent show {}' prints", identity.agent().name),
    };
    let hint = match secret.placement.site() {
        Some(site) => format!("{hint}, at {site}"),
        None => hint,
    };
    let challenge = match secret.placement {
        Placement::Basic { .. } | Placement::Replace { at: Site::Basic } => Challenge::Basic,
        _ => Challenge::Bearer,
    };
    let refusal = Refusal::new(
        Code::PlaceholderMissing,
        format!("agent '{}' must present the placeholder of secret '{}'", identity.agent().name, secret.name),
        hint,
    );
    Refusal { challenge: Some(challenge), ..refusal }
}
