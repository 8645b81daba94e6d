//! One request, from its head to its answer. Each line is a step; each refusal leaves early.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use super::answer::{Delivery, Undelivered, deliver};
use super::assemble::{ask_scannable, assemble, overriding_parameter, strip_overrides};
use super::body::{Body, Payload, Progress, RequestBody};
use super::buffer;
use super::connection::Connection;
use super::content_scan::ContentScan;
use super::gateway::{Counters, Gateway};
use super::head::Head;
use super::hold::meet_conditions;
use super::inject::{Outgoing, inject};
use super::issued::Issued;
use super::paced::Paced;
use super::pool::{SendFailure, Upstream, protocol_refusal};
use super::reject;
use super::returned::ResponseGuard;
use super::revoked::Revoked;
use super::scrub::Scrubber;
use super::scrub_values::{only_signed, scrubber};
use super::session_cookies::{Presented, Sessions};
use super::shares::Share;
use super::signing;
use super::trail::Trail;
use super::upgrade::{self, Upgrade};
use crate::audit::Text;
use crate::model::operation::{Reading, UnreadableBody, UnreadableText, check_text};
use crate::model::{Code, Reach, Refusal, Rule, Secret, WireForm};
use crate::policy::{Decision, Grant, Identity, Watch};
use crate::tls::Alpn;
use crate::vault::{Credential, CredentialError};

/// Answers one request.
pub(super) async fn exchange(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut trail = match Trail::begin(&gateway, &connection) {
        Ok(trail) => trail,
        Err(refusal) => return reject::answer(&refusal, None),
    };
    let id = trail.request_id();
    let authorized = match authorize(&gateway, &connection, request, &mut trail).await {
        Ok(allowed) => meet_conditions(&gateway, &connection, allowed, &mut trail).await,
        Err(refusal) => Err(refusal),
    };
    match authorized {
        Ok(ready) => match forward(&gateway, &connection, ready, trail).await {
            Ok(response) => response,
            Err(refusal) => reject::answer(&refusal, id),
        },
        Err(refusal) => {
            trail.refuse_by(&refusal).await;
            reject::answer(&refusal, id)
        }
    }
}

/// A request that policy allowed.
pub(super) struct Allowed {
    pub(super) identity: Identity,
    pub(super) head: Head,
    pub(super) permit: Permit,
    pub(super) body: Payload,
    /// What a body held in memory takes up.
    pub(super) share: Option<Share>,
    sessions: Presented,
    client_upgrade: Option<OnUpgrade>,
}

/// What policy allowed, and under which conditions.
pub(super) struct Permit {
    pub(super) grants: Vec<Grant>,
    /// The secrets whose sealed sessions may be opened.
    sessions: Vec<Grant>,
    watches: Vec<Watch>,
    pub(super) approve: Option<Arc<Rule>>,
    pub(super) limits: Vec<Arc<Rule>>,
    reach: Reach,
    is_ruled: bool,
}

impl Permit {
    /// Did it matter what the request is, or may its answer hold a value?
    fn is_judged(&self) -> bool {
        self.is_ruled || !self.watches.is_empty()
    }

    /// The secrets whose credential or session the request carries.
    pub(super) fn used(&self) -> Vec<Grant> {
        let is_new = |own: &&Grant| !self.grants.iter().any(|grant| grant.secret().id == own.secret().id);
        self.grants.iter().chain(self.sessions.iter().filter(is_new)).cloned().collect()
    }

    /// What the policy of this moment allows.
    ///
    /// # Errors
    /// Policy's refusal.
    pub(super) fn ask(
        gateway: &Gateway,
        identity: &Identity,
        head: &Head,
        trail: &mut Trail,
    ) -> Result<Permit, Refusal> {
        let snapshot = gateway.snapshot();
        let ruling = snapshot.decide(identity, &head.facts());
        trail.record().rule = ruling.cause.map(|cause| Text::new(&cause.to_string()));
        let grants = match ruling.decision {
            Decision::Inject(grants) => grants,
            Decision::Forward => Vec::new(),
            Decision::Deny(refusal) => return Err(refusal),
        };
        Ok(Permit {
            grants,
            sessions: ruling.sessions,
            watches: snapshot.watches(identity, head.authority.host()),
            approve: ruling.approve,
            limits: ruling.limits,
            reach: ruling.reach,
            is_ruled: ruling.is_ruled,
        })
    }
}

async fn authorize(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    mut request: Request<Incoming>,
    trail: &mut Trail,
) -> Result<Allowed, Refusal> {
    connection.note(&request, trail.record());
    let identity = connection.identify(gateway)?;
    trail.identify(&identity);
    trail.enter(&identity)?;
    let client_upgrade =
        request.extensions().get::<OnUpgrade>().is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut head = Head::read(&parts, connection)?;
    trail
        .record()
        .target(head.authority.host(), head.authority.port())
        .request(head.method.as_str(), &head.path);
    let sessions = Presented::take(&gateway.vault, &identity, &mut head)?;
    let (body, share) = read_fields(gateway, &identity, &mut head, body).await?;
    let permit = Permit::ask(gateway, &identity, &head, trail)?;
    if permit.is_judged()
        && let Some(name) = head.query.as_deref().and_then(overriding_parameter)
    {
        return Err(Refusal::new(
            Code::BadRequest,
            format!("the query has '{name}', by which servers take a request for another than it is"),
            "send the request with the method and the headers themselves",
        ));
    }
    Ok(Allowed { identity, head, permit, body, share, sessions, client_upgrade })
}

/// Reads the body where a placeholder in it decides.
async fn read_fields(
    gateway: &Gateway,
    identity: &Identity,
    head: &mut Head,
    body: Incoming,
) -> Result<(Payload, Option<Share>), Refusal> {
    let snapshot = gateway.snapshot();
    let mut fields = snapshot.body_fields(identity, &head.facts());
    if !buffer::is_json(&head.headers) {
        fields.clear();
    }
    let is_empty = body.is_end_stream();
    let reading = if is_empty && head.query.is_none() {
        Reading::Nothing
    } else {
        snapshot.denials_read(identity, &head.facts())
    };
    head.operations.read_query(reading, head.query.as_deref()).map_err(unjudged_text)?;
    let is_judged = !is_empty && reading > Reading::Nothing;
    if fields.is_empty() && !is_judged {
        return Ok((Payload::Streamed(body), None));
    }
    let whole = buffer::read(body, buffer::MAX_JSON, identity.agent().id, &gateway.held_bodies).await?;
    head.body = buffer::placeholders_in(&whole.bytes, &fields);
    if is_judged {
        check_text(reading, &head.headers, &whole.bytes).map_err(unjudged_text)?;
        head.operations.read_body(&head.headers, &whole.bytes).map_err(unjudged)?;
    }
    Ok((Payload::whole(whole.bytes), Some(whole.share)))
}

fn unjudged(error: UnreadableBody) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("{error}, and it decides whether the request would create a credential"),
        "send the body without Content-Encoding and chunk signatures, in UTF-8",
    )
}

fn unjudged_text(error: UnreadableText) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("{error}, and it decides whether the request would create a credential"),
        "send JSON in UTF-8; a GraphQL request with its whole document in 'query', and no members but 'variables',          'operationName' and 'extensions'",
    )
}

async fn forward(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    allowed: Allowed,
    mut trail: Trail,
) -> Result<Response<Body>, Refusal> {
    let pace = gateway.body_memory.pace(&connection.memory, allowed.identity.agent().id);
    match send(gateway, connection, allowed, &mut trail).await {
        Err(refusal) => {
            trail.refuse(refusal.code).await;
            Err(refusal)
        }
        Ok(sent) => {
            let delivery = Delivery {
                gateway: Arc::clone(gateway),
                trail,
                ranged: sent.ranged,
                issued: sent.issued,
                scrubber: sent.scrubber,
                upstream: sent.upstream,
                progress: sent.progress,
                revoked: sent.revoked,
                sessions: sent.sessions,
            };
            let delivered = match sent.client_upgrade {
                Some(client) => upgrade::deliver_upgrade(client, &sent.method, sent.response, delivery),
                None => deliver(&sent.method, sent.response, delivery),
            };
            match delivered {
                Ok(response) => Ok(response.map(|body| Paced::new(body, pace).boxed_unsync())),
                Err(undelivered) => {
                    let Undelivered { refusal, mut trail } = *undelivered;
                    trail.refuse(refusal.code).await;
                    Err(refusal)
                }
            }
        }
    }
}

/// A request on its way, with the beginning of its answer.
struct Sent {
    method: Method,
    ranged: bool,
    response: Response<Incoming>,
    issued: Issued,
    upstream: Upstream,
    scrubber: Scrubber,
    progress: Arc<Progress>,
    revoked: Revoked,
    sessions: Sessions,
    client_upgrade: Option<Upgrade>,
}

async fn send(
    gateway: &Arc<Gateway>,
    connection: &Arc<Connection>,
    allowed: Allowed,
    trail: &mut Trail,
) -> Result<Sent, Refusal> {
    let Allowed { identity, mut head, permit, body, share, sessions, client_upgrade } = allowed;
    let is_judged = permit.is_judged();
    let permitted = permit.used();
    let opened = sessions.open(&permitted, &mut head.headers);
    trail.record().sessions = opened.text();
    let Permit { grants, watches, reach, .. } = permit;
    let (body, _share) = signing::prepare(gateway, &identity, &grants, &mut head, body, share).await?;
    let upgrade =
        client_upgrade.filter(|_| head.websocket).and_then(|client| Upgrade::new(client, &head.headers));
    let websocket = upgrade.is_some();
    head.websocket = websocket;
    let alpn = if websocket { Alpn::Http1 } else { Alpn::Any };
    let mut ranged = head.headers.contains_key(header::RANGE) && opened.is_empty();
    let searched = gateway.searched(head.authority.host());
    if !searched.is_empty() {
        ranged = ranged && only_signed(gateway, identity.agent().id, &watches, &searched).await;
        ask_scannable(&mut head.headers, ranged);
    }
    if is_judged {
        strip_overrides(&mut head.headers);
    }
    let progress = Arc::new(Progress::default());
    // What can be sent again.
    let whole = match &body {
        Payload::Whole(bytes) => Some(bytes.clone().unwrap_or_default()),
        body if body.is_end_stream() && !websocket => Some(Bytes::new()),
        _ => None,
    };
    let mut stream = Some(RequestBody::new(body, Arc::clone(&progress)));
    let agent = identity.agent().id;
    let mut fresh = websocket;
    let mut renewed = false;
    let mut alerts = None;
    loop {
        let mut upstream =
            gateway.pool.checkout(agent, &head.authority, head.scheme, alpn, fresh, &reach).await?;
        trail.upstream(&upstream);
        let mut revoked =
            Revoked::new(gateway, connection, agent, &head, &permitted, &watches, upstream.address());
        let decision = trail.decide(&permitted).await?;
        if !head.disguised.is_empty() {
            let alerts = alerts.get_or_insert_with(|| trail.content_alerts(&head.authority));
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
        trail.record().backend = backends(&used);
        let mut scrubber = scrubber(gateway, agent, &watches, &searched).await?;
        let signatures = std::mem::take(&mut outgoing.signatures);
        for value in signatures.iter().chain(opened.values()) {
            scrubber.watch(&WireForm::plain(value));
        }
        let body = match (outgoing.body, stream.take()) {
            (None, Some(stream)) => stream,
            (bytes, _) => RequestBody::new(Payload::whole(bytes.unwrap_or_default()), Arc::clone(&progress)),
        };
        let body = if body.is_end_stream() {
            body
        } else {
            let alerts = alerts.get_or_insert_with(|| trail.content_alerts(&head.authority));
            let pace = gateway.body_memory.pace(&connection.memory, agent);
            body.watched(ContentScan::new(Arc::clone(alerts)), pace)
        };
        let request = assemble(outgoing.head, body, &upstream)?;
        let counters = &gateway.counters;
        let sent = tokio::select! {
            biased;
            () = &mut revoked => return Err(Revoked::refusal(gateway.taken_back())),
            sent = answered(gateway.patience.head, &progress, upstream.send(request)) => sent?,
        };
        match sent {
            Ok(response)
                if !renewed
                    && response.status() == StatusCode::UNAUTHORIZED
                    && renew(gateway, &grants, &used).await
                    && whole.is_some() =>
            {
                trail.retry();
                renewed = true;
            }
            Ok(response) => {
                let counter = if permitted.is_empty() {
                    &counters.requests_forwarded
                } else {
                    &counters.requests_injected
                };
                Counters::add(counter, 1);
                let issued = Issued::new(&permitted, &head.facts());
                let sessions = opened.answered_by(permitted, head.authority.host());
                let mut known = [signatures, opened.values().to_vec()].concat();
                for value in sessions.values(response.headers()) {
                    scrubber.watch(&WireForm::plain(&value));
                    known.push(value);
                }
                let (method, client_upgrade) = (head.method, upgrade);
                if !scrubber.is_idle() {
                    let sent = (used, known);
                    let guard = ResponseGuard::new(gateway, agent, trail.record(), &searched, sent);
                    scrubber.report_to(Box::new(guard));
                }
                return Ok(Sent {
                    method,
                    ranged,
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
            // The server had closed the kept connection: nothing was sent, so a new one may try.
            Err(SendFailure::Unsent(request)) if upstream.is_reused() && !fresh => {
                trail.retry();
                stream = Some(request.into_body());
                fresh = true;
            }
            Err(SendFailure::Unsent(_)) => {
                return Err(Refusal::new(
                    Code::UpstreamProtocol,
                    "the upstream closed the connection before the request was sent",
                    "try again",
                ));
            }
            Err(SendFailure::Failed(error)) => {
                return Err(progress.fault().unwrap_or_else(|| protocol_refusal(&error)));
            }
        }
    }
}

/// What comes of sending a request, as long as it goes on: either a piece of its body was taken or its answer began
/// within `limit`, over and over. It is noticed up to twice as late that it does not.
///
/// # Errors
/// [`Code::UpstreamTimeout`].
async fn answered<T>(
    limit: Duration,
    progress: &Progress,
    sending: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let mut sending = pin!(sending);
    let mut taken = progress.bytes();
    loop {
        if let Ok(sent) = tokio::time::timeout(limit, &mut sending).await {
            return Ok(sent);
        }
        let before = std::mem::replace(&mut taken, progress.bytes());
        if taken == before {
            return Err(Refusal::new(
                Code::UpstreamTimeout,
                format!("the upstream's answer did not begin within {limit:?}"),
                "it may have done what it was asked all the same; where it needs longer, an administrator can raise \
                 [upstream] head_timeout",
            ));
        }
    }
}

/// Where the values came from that the store does not hold; with their names where the request has several.
fn backends(used: &[Credential]) -> Option<Text> {
    match used {
        [one] => one.origin().map(|origin| Text::new(&origin.to_string())),
        several => {
            let told = |used: &Credential| Some(format!("{}: {}", used.name(), used.origin()?));
            let all: Vec<String> = several.iter().filter_map(told).collect();
            (!all.is_empty()).then(|| Text::new(&all.join(", ")))
        }
    }
}

/// Gives up the tokens that the upstream did not take. Is there another to be had?
async fn renew(gateway: &Gateway, grants: &[Grant], used: &[Credential]) -> bool {
    let mut any = false;
    for (grant, credential) in grants.iter().zip(used) {
        any |= gateway.credentials.rejected(grant, credential).await;
    }
    any
}

pub(super) fn unopened(secret: &Secret, error: &CredentialError) -> Refusal {
    let name = secret.name.as_str();
    match error {
        CredentialError::Vault(error) => {
            tracing::error!(%error, secret = name, "a secret cannot be opened");
            secret_refusal(name)
        }
        CredentialError::Mint(error) => Refusal::new(
            Code::SecretUnavailable,
            format!("no token could be had for secret '{name}': {error}"),
            format!(
                "try again in a minute; if it stays, an administrator should look at 'onecli secret show {name}'"
            ),
        ),
        CredentialError::Source(error) => {
            tracing::error!(%error, secret = name, "a secret's value cannot be had");
            Refusal::new(
                Code::SecretUnavailable,
                format!("the value of secret '{name}' cannot be had: {}", error.told()),
                error.hint(),
            )
        }
    }
}

fn secret_refusal(name: &str) -> Refusal {
    Refusal::new(
        Code::SecretUnavailable,
        format!("secret '{name}' cannot be decrypted, so the request is not forwarded"),
        format!("an administrator should look at the daemon's log and at 'onecli secret show {name}'"),
    )
}
