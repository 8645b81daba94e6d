//! Refusals: their messages and hints.

use std::fmt;

use onecli_model::path::Ambiguity;
use onecli_model::{Authority, Code, Egress, NamedResource, Refusal, Rule, Secret};

use super::decide::{DecisionReason, RequestFacts};
use super::identity::Identity;
use super::named::NamedLocation;

pub(super) fn ambiguous(ambiguity: Ambiguity) -> Refusal {
    Refusal::new(
        Code::PathAmbiguous,
        format!("the path contains {ambiguity}, which servers interpret differently"),
        "send the path in its plain form",
    )
}

pub(super) fn removed() -> Refusal {
    Refusal::new(Code::AgentUnknown, "the agent was removed", "add it again with 'onecli agent add'")
}

pub(super) fn denied_by(rule: &Rule, what: impl fmt::Display) -> Refusal {
    let hint = format!(
        "an administrator can see it with 'onecli rule list', and remove it: onecli rule remove {}",
        rule.id
    );
    Refusal::new(Code::RuleDenied, format!("rule {} denies {what}", rule.id), hint).by(rule)
}

pub(super) fn denied_request(rule: &Rule, request: &RequestFacts<'_>) -> Refusal {
    match (rule.terms.is_whole(), request.path.ambiguity()) {
        // The rule may or may not apply: the client can send an unambiguous path.
        (false, Some(ambiguity)) => ambiguous(ambiguity).by(rule),
        _ => denied_by(rule, format_args!("{} {}{}", request.method, request.authority, request.path)),
    }
}

pub(super) fn not_for_this(secret: &Secret, request: &RequestFacts<'_>) -> Refusal {
    Refusal::new(
        Code::EgressDenied,
        format!("secret '{}' may not be used for {} {}", secret.name, request.method, request.path),
        format!("'onecli secret show {}' shows its methods and paths", secret.name),
    )
    .by(DecisionReason::Default(Egress::Deny))
}

pub(super) fn named_is_unreadable(resource: &NamedResource) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("'{}' names a resource in a form that cannot be matched", resource.field),
        "send it as a URL or as /bucket/key, percent-encoded; a resource that the body or a digest names is not allowed here",
    )
}

pub(super) fn named_wants_approval(rule: &Rule, location: &NamedLocation<'_>) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("rule {} requires approval for {location}, but an approver would see only the URL", rule.id),
        "name the resource in the URL of a separate request",
    )
    .by(rule)
}

pub(super) fn not_for_named(secret: Option<&Secret>, location: &NamedLocation<'_>) -> Refusal {
    let (message, hint) = match secret {
        Some(secret) => (
            format!("secret '{}' may not be used for {location}", secret.name),
            format!("'onecli secret show {}' prints its hosts and paths", secret.name),
        ),
        None => (
            format!("no grant and no rule allows {location}"),
            "'onecli rule add allow' allows it".to_owned(),
        ),
    };
    Refusal::new(Code::EgressDenied, message, hint).by(DecisionReason::Default(Egress::Deny))
}

/// `former` is a secret for the host that the agent could use earlier.
pub(super) fn host_denied(identity: &Identity, authority: &Authority, former: Option<&Secret>) -> Refusal {
    let name = &identity.agent().name;
    let port = if authority.port() == 443 { String::new() } else { format!(" --port {}", authority.port()) };
    let allow =
        format!("or allow it: onecli rule add allow --agent {name} --host {}{port}", authority.host());
    let (why, hint) = match former {
        None => (String::new(), format!("grant it a secret for that host (onecli grant {name} SECRET)")),
        Some(Secret { name: secret, enabled: false, .. }) => (
            format!(": secret '{secret}' is disabled"),
            format!("enable the secret (onecli secret enable {secret})"),
        ),
        Some(Secret { name: secret, .. }) => (
            format!(": its grant of secret '{secret}' was revoked"),
            format!("grant it again (onecli grant {name} {secret})"),
        ),
    };
    let message = format!("agent '{name}' may not reach {authority}{why}");
    Refusal::new(Code::EgressDenied, message, format!("{hint}, {allow}"))
        .by(DecisionReason::Default(Egress::Deny))
}

pub(super) fn placeholder_wanted(identity: &Identity, secret: &Secret) -> Refusal {
    let hint = match &secret.env {
        Some(env) => {
            let env = env.split(',').next().unwrap_or_default();
            format!("send the value of ${env}, which 'onecli run --agent {}' sets", identity.agent().name)
        }
        None => format!("send the placeholder that 'onecli agent show {}' prints", identity.agent().name),
    };
    let hint = match secret.placement.placeholder_part() {
        Some(_) => format!("{hint}, at {}", secret.placement.place()),
        None => hint,
    };
    let refusal = Refusal::new(
        Code::PlaceholderMissing,
        format!("agent '{}' must present the placeholder of secret '{}'", identity.agent().name, secret.name),
        hint,
    );
    Refusal { challenge: Some(secret.placement.challenge()), ..refusal }
}
