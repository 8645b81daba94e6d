//! Conditions that a request must meet before it is sent: operator approval, and limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header;
use hyper::body::Body as _;
use onecli_audit::Text;
use onecli_model::{Code, Refusal, RequestId, Rule, RuleId, SecretId};
use onecli_policy::{ApprovalAnswer, ApprovalEnd, ApprovalError, ApprovalRequest, Exceeded, PER_MINUTE};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::authorized::{Authorization, AuthorizedRequest};
use crate::http::body::Payload;
use crate::http::body::buffer;
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::placement::sigv4::CONTENT_SHA256;
use crate::http::request::head::Head;
use crate::http::request::revoked::Revoked;
use crate::session::request_audit::RequestAudit;
use onecli_model::Scheme;

/// Largest body that an approval covers, in bytes. Larger bodies stream, and so do bodies without a declared length.
const MAX_BODY: usize = 64 * 1024;

/// Waits for approval if a rule requires it, and then counts the request against every limit. Returns the request
/// with what policy allows after the wait.
///
/// # Errors
/// A refusal: denied, not answered in time, too many waiting requests, revoked meanwhile, or a limit that is used up.
pub(super) async fn await_approval_and_limits(
    http: &Arc<Http>,
    connection: &Arc<HttpConnection>,
    mut allowed: AuthorizedRequest,
    audit: &mut RequestAudit,
) -> Result<AuthorizedRequest, Refusal> {
    let mut approved: Option<(RuleId, Vec<SecretId>)> = None;
    if allowed.authorization.approve.is_some() {
        hold_body(http, &mut allowed).await?;
    }
    while let Some(rule) = allowed.authorization.approve.clone() {
        let wanted = (rule.id, used(&allowed.authorization));
        // The approval covers these credentials only, and the policy may have changed since.
        if approved.as_ref() == Some(&wanted) {
            break;
        }
        ask(http, connection, &allowed, &rule, audit).await?;
        approved = Some(wanted);
        let identity = connection.session.identify()?;
        if identity.agent().id != allowed.identity.agent().id {
            return Err(Revoked::refusal(Code::Revoked));
        }
        allowed.authorization = Authorization::ask(&connection.session, &identity, &allowed.head, audit)?;
        allowed.identity = identity;
    }
    let agent = allowed.identity.agent();
    http.conditions
        .limits
        .take(http.clock.instant(), agent.id, &allowed.authorization.limits)
        .map_err(|exceeded| rate_limited(&exceeded))?;
    Ok(allowed)
}

/// Reads the body, if it is small enough for the approval to cover it.
async fn hold_body(http: &Http, allowed: &mut AuthorizedRequest) -> Result<(), Refusal> {
    let Payload::Streamed(body) = &allowed.body else { return Ok(()) };
    let declared_length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let chunks = |value: &http::HeaderValue| value.as_bytes().starts_with(b"STREAMING-");
    // Chunk signatures can be removed only while the body streams.
    if declared_length.is_none_or(|length| length == 0 || length > MAX_BODY)
        || allowed.head.headers.get(CONTENT_SHA256).is_some_and(chunks)
    {
        return Ok(());
    }
    if let Payload::Streamed(body) = std::mem::replace(&mut allowed.body, Payload::Whole(None)) {
        let whole =
            buffer::read(body, MAX_BODY, allowed.identity.agent().id, &http.bodies.for_approval).await?;
        allowed.head.note_trailers(&whole.trailers);
        (allowed.body, allowed.share) = (Payload::whole(whole.bytes), Some(whole.share));
    }
    Ok(())
}

fn used(authorization: &Authorization) -> Vec<SecretId> {
    authorization.used().iter().map(|grant| grant.secret().id).collect()
}

/// Asks for approval, and waits for the decision. If the client disconnects meanwhile, this future is dropped.
async fn ask(
    http: &Arc<Http>,
    connection: &HttpConnection,
    allowed: &AuthorizedRequest,
    rule: &Rule,
    audit: &mut RequestAudit,
) -> Result<(), Refusal> {
    let AuthorizedRequest { identity, head, authorization, .. } = allowed;
    let Some(request) = audit.request_id() else { return Err(full(rule)) };
    let asked = asked(http, allowed, rule, request);
    let digest = asked.digest.clone();
    // Checked before anything is recorded. Otherwise a client could fill the log by asking and disconnecting
    // repeatedly.
    audit.may_ask()?;
    let mut waiting = match http.conditions.approvals.ask(http.clock.instant(), asked, http.random.as_ref()) {
        Ok(waiting) => waiting,
        Err(ApprovalError::Full) => return Err(full(rule)),
        Err(ApprovalError::RateLimited) => return Err(often(rule)),
        Err(ApprovalError::Random(error)) => {
            return Err(Refusal::new(
                Code::Internal,
                error.to_string(),
                "the host's random number generator failed: check its kernel log",
            ));
        }
    };
    let id = waiting.id();
    audit.record().rule = Some(Text::new(&rule.to_string()));
    audit.record().approval = Some(Text::new(&id.to_string()));
    audit.record().approval_digest = Some(Text::new(&digest));
    audit.approval("approval_requested").await?;
    tracing::info!(%id, agent = %identity.agent().name, rule = %rule.id, "a request waits for approval");

    let (evidence, agent, used) =
        (&connection.session.client.evidence, identity.agent().id, used(authorization));
    let refused = connection.session.until_refused(|snapshot, now| {
        snapshot.still_allows(evidence, now, agent, &head.facts(), &used).is_none()
    });
    let answer = tokio::select! {
        biased;
        () = refused => None,
        answer = timeout(http.conditions.approval_timeout, &mut waiting) => Some(answer),
    };
    let Some(answer) = answer else {
        waiting.end(ApprovalEnd::Revoked);
        return Err(Revoked::refusal(connection.session.lifecycle.revoked_code()));
    };
    let Ok(ApprovalAnswer { allowed, uid }) = answer else {
        waiting.end(ApprovalEnd::TimedOut);
        return Err(Refusal::new(
            Code::ApprovalTimeout,
            format!("approval request {id} was not answered in time"),
            "ask an administrator to watch 'onecli approval list', then send the request again",
        )
        .by(rule));
    };
    audit.record().approval_uid = Some(uid);
    audit.approval(if allowed { "approval_allowed" } else { "approval_denied" }).await?;
    if allowed {
        return Ok(());
    }
    Err(Refusal::new(
        Code::ApprovalDenied,
        format!("an administrator denied approval request {id}"),
        "ask the administrator for the reason before you send it again",
    )
    .by(rule))
}

fn asked(http: &Http, allowed: &AuthorizedRequest, rule: &Rule, request: RequestId) -> ApprovalRequest {
    let AuthorizedRequest { identity, head, authorization, body, .. } = allowed;
    let held = match body {
        Payload::Whole(bytes) => Some(bytes.clone().unwrap_or_default()),
        body if body.is_end_stream() => Some(Bytes::new()),
        _ => None,
    };
    let since = http.clock.now();
    ApprovalRequest {
        agent: identity.agent().id,
        agent_name: identity.agent().name.clone(),
        rule: rule.id,
        request,
        method: head.method.as_str().to_owned(),
        authority: head.authority.clone(),
        path: head.path.as_str().to_owned(),
        query: head.query.clone(),
        secrets: authorization.used().iter().map(|grant| grant.secret().name.clone()).collect(),
        digest: digest(head, held.as_deref()),
        headers: Arc::new(head.headers.clone()),
        body: held,
        since,
        until: since.saturating_add(http.conditions.approval_timeout).unwrap_or(since),
    }
}

/// SHA-256 in hex over method, scheme, authority, path, query, every header, and the body if it is in memory. The
/// length of each precedes it.
fn digest(head: &Head, body: Option<&[u8]>) -> String {
    let mut hash = Sha256::new();
    let mut put = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    put(head.method.as_str().as_bytes());
    put(if head.scheme == Scheme::Https { b"https" } else { b"http" });
    put(head.authority.to_string().as_bytes());
    put(head.path.as_str().as_bytes());
    put(head.query.as_deref().map_or(&[], str::as_bytes));
    let mut fields: Vec<_> = head.headers.iter().collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in fields.into_iter().filter(|(name, _)| **name != header::DATE) {
        put(name.as_str().as_bytes());
        put(value.as_bytes());
    }
    if let Some(body) = body {
        put(b"body");
        put(body);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

fn full(rule: &Rule) -> Refusal {
    let refusal = Refusal::new(
        Code::ApprovalsFull,
        "the agent has reached its limit on requests that wait for approval",
        "wait until they are answered: an administrator lists them with 'onecli approval list'",
    );
    refusal.by(rule)
}

fn often(rule: &Rule) -> Refusal {
    let refusal = Refusal::new(
        Code::ApprovalsFull,
        format!("the agent has requested approval {PER_MINUTE} times within a minute"),
        "wait a minute, and do not repeat requests that are waiting",
    );
    Refusal { retry_after: Some(Duration::from_mins(1)), ..refusal.by(rule) }
}

fn rate_limited(exceeded: &Exceeded) -> Refusal {
    let rule = &exceeded.rule;
    let rate = rule.terms.rate().map(|rate| rate.to_string()).unwrap_or_default();
    let refusal = Refusal::new(
        Code::RateLimited,
        format!("rule {} allows {rate}, and the limit is used up", rule.id),
        "wait for the number of seconds in Retry-After, and send requests less often",
    );
    Refusal { retry_after: Some(exceeded.retry_after), ..refusal.by(rule.as_ref()) }
}
