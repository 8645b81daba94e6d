//! Sends an authorized request to its upstream.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{Method, Response, StatusCode};
use hyper::body::Body as _;
use onecli_audit::Text;
use onecli_model::{Code, InjectionTarget, Refusal, WireForm};
use onecli_policy::Grant;
use onecli_tls::Alpn;
use onecli_vault::Credential;
use tokio::time::Instant;

use super::authorized::{Authorization, AuthorizedRequest};
use crate::context::gateway::Gateway;
use crate::http::body::expect::Gate;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::replay::Attempt;
use crate::http::body::{Payload, Progress, RequestBody};
use crate::http::fields::head_size::check_response;
use crate::http::placeholders::content_scan::ContentScan;
use crate::http::placement::inject::inject;
use crate::http::placement::kind::Outgoing;
use crate::http::placement::signing;
use crate::http::request::assemble::{ask_scannable, assemble, strip_overrides};
use crate::http::request::revoked::Revoked;
use crate::http::response::issued::Issued;
use crate::http::response::ranges::Ranges;
use crate::http::response::returned::ResponseGuard;
use crate::http::scrub::Scrubber;
use crate::http::scrub_values::unopened;
use crate::http::scrub_values::{Followed, only_signed, scrubber};
use crate::http::session_cookies::Sessions;
use crate::http::upstream::pool::Upstream;
use crate::http::upstream::pool_scope::PoolScope;
use crate::http::upstream::retry::Retries;
use crate::http::websocket::upgrade::Upgrade;
use crate::session::connection::Connection;
use crate::session::counters::Counters;
use crate::session::request_audit::RequestAudit;

/// A request that was sent, with the beginning of its response.
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) ranges: Ranges,
    pub(crate) response: Response<PeerBody>,
    pub(crate) issued: Issued,
    pub(crate) upstream: Upstream,
    pub(crate) scrubber: Scrubber,
    pub(crate) progress: Arc<Progress>,
    pub(crate) revoked: Revoked,
    pub(crate) sessions: Sessions,
    pub(super) client_upgrade: Option<Upgrade>,
}

/// Sends a request until its response begins, and sends it again if that is safe.
///
/// # Errors
/// A [`Refusal`]: there was no response.
pub(crate) async fn send(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    allowed: AuthorizedRequest,
    audit: &mut RequestAudit,
) -> Result<Sent, Refusal> {
    let AuthorizedRequest {
        identity,
        mut head,
        authorization,
        body,
        share,
        sessions,
        client_upgrade,
        expects_continue,
    } = allowed;
    let is_judged = authorization.is_judged();
    let permitted = authorization.used();
    let opened = sessions.open(&permitted, &mut head.headers);
    audit.record().sessions = opened.text();
    let Authorization { grants, values_to_scrub, address_scope, is_test, .. } = authorization;
    let (body, _share) =
        signing::prepare(&gateway.held_bodies, &identity, &grants, &mut head, body, share).await?;
    let upgrade =
        client_upgrade.filter(|_| head.websocket).and_then(|client| Upgrade::new(client, &head.headers));
    let websocket = upgrade.is_some();
    head.websocket = websocket;
    let alpn = if websocket { Alpn::Http1 } else { Alpn::Any };
    let mut ranges = Ranges::of(&head.headers, !opened.is_empty());
    let followed = Followed::new(&gateway.scrub_values, head.authority.host());
    if !followed.set().is_empty() {
        ranges.is_asked =
            ranges.is_asked && only_signed(identity.agent().id, &values_to_scrub, &followed).await;
        ask_scannable(&mut head.headers, ranges.is_asked);
    }
    if is_judged {
        strip_overrides(&mut head.headers);
    }
    let progress = Arc::new(Progress::default());
    // The body, if it can be sent again.
    let whole = match &body {
        Payload::Whole(bytes) => Some(bytes.clone().unwrap_or_default()),
        body if body.is_end_stream() && !websocket => Some(Bytes::new()),
        _ => None,
    };
    let gate = (expects_continue && whole.is_none() && !body.is_end_stream()).then(Gate::default);
    head.trailers.remove(&placed_in(&grants));
    let stream = RequestBody::new(body, Arc::clone(&progress)).with_trailers(head.trailers.clone());
    let mut stream = Some(stream.behind(gate.clone()));
    let mut recovered = None;
    let agent = identity.agent().id;
    let scope = PoolScope::new(agent, &permitted);
    let mut fresh = websocket;
    let mut renewed = false;
    let mut alerts = None;
    let mut retries = Retries::new(&head.method, gateway.pool.connector().dialer.connect_timeout);
    loop {
        let mut upstream = gateway
            .pool
            .checkout(scope.clone(), &head.authority, head.scheme, alpn, fresh, &address_scope)
            .await?;
        audit.upstream(&upstream);
        let mut revoked = if is_test {
            Revoked::of_test(gateway, connection)
        } else {
            Revoked::new(gateway, connection, agent, &head, &permitted, upstream.address())
        };
        let decision = audit.decide(&permitted).await?;
        if !head.disguised.is_empty() {
            let alerts = alerts.get_or_insert_with(|| audit.content_alerts(&head.authority));
            head.disguised.drain(..).for_each(|placeholder| alerts.judge(placeholder.as_str()));
        }
        let mut used: Vec<Credential> = Vec::with_capacity(grants.len());
        let now = gateway.clock.now();
        let mut outgoing = Outgoing { head: head.clone(), body: whole.clone(), now, signatures: Vec::new() };
        for grant in &grants {
            let credential =
                gateway.credentials.open(grant).await.map_err(|error| unopened(grant.secret(), &error))?;
            inject(&mut outgoing, &credential, &upstream, &decision)?;
            used.push(credential);
        }
        opened.put(&mut outgoing.head.headers, &upstream, &decision)?;
        audit.record().backend = backends(&used);
        let mut scrubber = scrubber(agent, &values_to_scrub, &followed).await?;
        let signatures = std::mem::take(&mut outgoing.signatures);
        scrubber.add_forms(
            &signatures.iter().chain(opened.values()).flat_map(WireForm::plain).collect::<Vec<_>>(),
        );
        let mut watched = |body: RequestBody| {
            if body.is_end_stream() {
                return Attempt::new(body);
            }
            let alerts = alerts.get_or_insert_with(|| audit.content_alerts(&head.authority));
            let pace = gateway.body_memory.pace(&connection.memory, agent);
            Attempt::new(body.watched(ContentScan::new(Arc::clone(alerts)), pace))
        };
        let (body, recovery) = match (recovered.take(), stream.take()) {
            (Some(recovered), _) => recovered,
            (None, Some(streamed)) if whole.is_none() => watched(streamed),
            (None, _) => {
                let body = Payload::whole(outgoing.body.unwrap_or_default());
                watched(RequestBody::new(body, Arc::clone(&progress)))
            }
        };
        let request = assemble(outgoing.head, body, &upstream)?;
        let counters = &gateway.counters;
        let sending = Box::pin(upstream.send(request, gate.as_ref()));
        let sending = Gate::until(gate.as_ref(), sending);
        let sent = tokio::select! {
            biased;
            () = &mut revoked => return Err(Revoked::refusal(gateway.taken_back())),
            sent = answered(gateway.timeouts.head, &progress, gate.as_ref(), sending) => sent?,
        };
        match sent {
            Ok(response)
                if !renewed
                    && response.status() == StatusCode::UNAUTHORIZED
                    && renew(gateway, &grants, &used).await
                    && whole.is_some() =>
            {
                audit.retry();
                renewed = true;
            }
            Ok(response) => {
                check_response(&response)?;
                let counter = if permitted.is_empty() {
                    &counters.requests_forwarded
                } else {
                    &counters.requests_injected
                };
                Counters::add(counter, 1);
                let issued = Issued::new(&permitted, &head.facts());
                let sessions = opened.answered_by(permitted, head.authority.host());
                let cookies = sessions.values(response.headers());
                scrubber.add_forms(&cookies.iter().flat_map(WireForm::plain).collect::<Vec<_>>());
                let known = [signatures, opened.values().to_vec(), cookies].concat();
                let (method, client_upgrade) = (head.method, upgrade);
                // The guard is set even if there is nothing to search for, because a secret may be stored while the
                // response streams.
                let at = (head.authority.host(), followed.set());
                let guard = ResponseGuard::new(gateway, agent, audit.record(), at, (used, known));
                scrubber.report_to(Box::new(guard));
                return Ok(Sent {
                    method,
                    ranges,
                    response,
                    issued,
                    upstream,
                    scrubber,
                    progress,
                    revoked,
                    sessions,
                    client_upgrade,
                });
            }
            Err(failure) => {
                let pause = retries.after(&failure, upstream.is_reused(), Instant::now());
                let refusal = || progress.fault().unwrap_or_else(|| upstream.refusal(failure.error()));
                let is_final = progress.fault().is_some() || upstream.is_refused();
                let pause = pause.filter(|_| !is_final).ok_or_else(refusal)?;
                if whole.is_none() {
                    recovered = Some(recovery.body().await.ok_or_else(refusal)?);
                }
                audit.retry();
                fresh = true;
                tokio::select! {
                    biased;
                    () = &mut revoked => return Err(Revoked::refusal(gateway.taken_back())),
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// Waits for the result of `sending` as long as it makes progress. Progress means that a piece of the body was sent
/// or the response began within the last `limit`. A lack of progress is noticed after up to twice the limit. Time in
/// which the body waits at `gate` does not count; the gate limits it.
///
/// # Errors
/// [`Code::UpstreamTimeout`].
async fn answered<T>(
    limit: Duration,
    progress: &Progress,
    gate: Option<&Gate>,
    sending: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let mut sending = pin!(sending);
    let mut taken = progress.bytes();
    loop {
        let was_held = gate.is_some_and(Gate::is_waiting);
        if let Ok(sent) = tokio::time::timeout(limit, &mut sending).await {
            return Ok(sent);
        }
        let before = std::mem::replace(&mut taken, progress.bytes());
        if taken == before && !was_held {
            return Err(Refusal::new(
                Code::UpstreamTimeout,
                format!("the upstream's response did not begin within {limit:?}"),
                "the upstream may have processed the request; if it needs more time, an administrator can \
                 raise [upstream] head_timeout",
            ));
        }
    }
}

/// The header fields that credentials are placed in.
fn placed_in(grants: &[Grant]) -> Vec<HeaderName> {
    let targets = grants.iter().map(|grant| grant.secret().placement.injection_target());
    targets
        .filter_map(|target| if let InjectionTarget::Header(name) = target { Some(name) } else { None })
        .collect()
}

/// The sources of values that are not in the store, with the secrets' names if the request has several.
fn backends(used: &[Credential]) -> Option<Text> {
    match used {
        [one] => one.origin().map(|origin| Text::new(&origin.to_string())),
        several => {
            let named_origin = |used: &Credential| Some(format!("{}: {}", used.name(), used.origin()?));
            let all: Vec<String> = several.iter().filter_map(named_origin).collect();
            (!all.is_empty()).then(|| Text::new(&all.join(", ")))
        }
    }
}

/// Drops the tokens that the upstream rejected. Returns whether another token can be obtained.
async fn renew(gateway: &Gateway, grants: &[Grant], used: &[Credential]) -> bool {
    let mut any = false;
    for (grant, credential) in grants.iter().zip(used) {
        any |= gateway.credentials.rejected(grant, credential).await;
    }
    any
}
