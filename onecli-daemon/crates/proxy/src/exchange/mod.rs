//! One request, from its head to its response. Each line is a step; each refusal returns early.

pub(crate) mod hold;
mod secret_test;
mod send;

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use onecli_audit::Text;
use onecli_model::{Code, Reach, Refusal, Rule, Secret};
use onecli_model::{
    operation::Reading, operation::UnreadableBody, operation::UnreadableText, operation::check_text,
};
use onecli_policy::{Decision, Grant, Identity, Watch};
use onecli_vault::CredentialError;

use super::body::{Body, Payload};
use super::session_cookies::Presented;
use crate::body::buffer;
use crate::body::expect::expects_continue;
use crate::body::paced::Paced;
use crate::body::peer_body::PeerBody;
use crate::body::reject;
use crate::context::gateway::Gateway;
use crate::exchange::hold::meet_conditions;
use crate::exchange::send::send;
use crate::fields::head_size::check_request;
use crate::limits::shares::Share;
use crate::request::assemble::overriding_parameter;
use crate::request::head::Head;
use crate::response::answer::{Delivery, Undelivered, deliver};
use crate::session::connection::Connection;
use crate::session::trail::Trail;
use crate::websocket::upgrade;

/// Answers one request.
pub(super) async fn exchange(
    gateway: Arc<Gateway>,
    connection: Arc<Connection>,
    request: Request<PeerBody>,
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
    /// The agent's share of buffered bodies, if the body is in memory.
    pub(super) share: Option<Share>,
    pub(super) sessions: Presented,
    pub(super) client_upgrade: Option<OnUpgrade>,
    /// Set if the client waits for 100 (Continue).
    pub(super) expects_continue: bool,
}

/// The grants that policy gave to a request, with their conditions.
pub(super) struct Permit {
    pub(super) grants: Vec<Grant>,
    /// The secrets whose sealed sessions may be opened.
    sessions: Vec<Grant>,
    pub(super) watches: Vec<Watch>,
    pub(super) approve: Option<Arc<Rule>>,
    pub(super) limits: Vec<Arc<Rule>>,
    pub(super) reach: Reach,
    is_ruled: bool,
    /// Set for a test by root, which needs no grant of an agent.
    pub(super) is_test: bool,
}

impl Permit {
    /// Returns whether the decision depended on the request's content, or the response may contain a value.
    pub(super) fn is_judged(&self) -> bool {
        self.is_ruled || !self.watches.is_empty()
    }

    /// The secrets whose credential or session the request carries.
    pub(super) fn used(&self) -> Vec<Grant> {
        let is_new = |own: &&Grant| !self.grants.iter().any(|grant| grant.secret().id == own.secret().id);
        self.grants.iter().chain(self.sessions.iter().filter(is_new)).cloned().collect()
    }

    /// Returns what the current policy allows.
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
            is_test: false,
        })
    }

    /// Returns the permission for a test by root.
    pub(super) fn of_test(grant: Grant, watch: Watch) -> Permit {
        Permit {
            grants: vec![grant],
            sessions: Vec::new(),
            watches: vec![watch],
            approve: None,
            limits: Vec::new(),
            reach: Reach::open(),
            is_ruled: true,
            is_test: true,
        }
    }
}

impl Allowed {
    /// Returns a request without a body that no client sent.
    pub(super) fn of_test(identity: Identity, head: Head, permit: Permit) -> Allowed {
        Allowed {
            identity,
            head,
            permit,
            body: Payload::whole(bytes::Bytes::new()),
            share: None,
            sessions: Presented::default(),
            client_upgrade: None,
            expects_continue: false,
        }
    }
}

async fn authorize(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    mut request: Request<PeerBody>,
    trail: &mut Trail,
) -> Result<Allowed, Refusal> {
    connection.note(&request, trail.record());
    let identity = connection.identify(gateway)?;
    trail.identify(&identity);
    trail.enter(&identity)?;
    check_request(&request)?;
    let expects_continue = expects_continue(&request)?;
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
    let permit =
        Permit::ask(gateway, &identity, &head, trail).map_err(|refusal| name_coding(refusal, &head))?;
    upgrade::refuse_unknown(&parts)?;
    if permit.is_judged()
        && let Some(name) = head.query.as_deref().and_then(overriding_parameter)
    {
        return Err(Refusal::new(
            Code::BadRequest,
            format!(
                "the query has '{name}', with which some servers override the method or the headers of a \
                 request"
            ),
            "set the method and the headers in the request itself",
        ));
    }
    Ok(Allowed { identity, head, permit, body, share, sessions, client_upgrade, expects_continue })
}

/// Reads the body if a placeholder in it decides.
async fn read_fields(
    gateway: &Gateway,
    identity: &Identity,
    head: &mut Head,
    body: PeerBody,
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
    head.note_trailers(&whole.trailers);
    head.body = buffer::placeholders_in(&whole.bytes, &fields);
    if is_judged {
        check_text(reading, &head.headers, &whole.bytes).map_err(unjudged_text)?;
        head.operations.read_body(&head.headers, &whole.bytes).map_err(unjudged)?;
    }
    Ok((Payload::whole(whole.bytes), Some(whole.share)))
}

/// Adds the content coding to the refusal. The daemon cannot find a placeholder in an encoded body, so the agent may
/// have sent one.
fn name_coding(refusal: Refusal, head: &Head) -> Refusal {
    if refusal.code != Code::PlaceholderMissing || !buffer::is_encoded_json(&head.headers) {
        return refusal;
    }
    Refusal {
        hint: "the body has a Content-Encoding, so no placeholder is found in it: send it without one".into(),
        ..refusal
    }
}

fn unjudged(error: UnreadableBody) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("{error}, so the daemon cannot check whether the request would create a credential"),
        "send the body without Content-Encoding and chunk signatures, in UTF-8",
    )
}

fn unjudged_text(error: UnreadableText) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!("{error}, so the daemon cannot check whether the request would create a credential"),
        "send JSON in UTF-8; a GraphQL request with its whole document in 'query', and no members but \
         'variables', 'operationName' and 'extensions'",
    )
}

pub(super) async fn forward(
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
                ranges: sent.ranges,
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

pub(super) fn unopened(secret: &Secret, error: &CredentialError) -> Refusal {
    let name = secret.name.as_str();
    match error {
        CredentialError::Vault(error) => {
            tracing::error!(%error, secret = name, "a secret cannot be opened");
            secret_refusal(name)
        }
        CredentialError::Mint(error) => Refusal::new(
            Code::SecretUnavailable,
            format!("cannot obtain a token for secret '{name}': {error}"),
            format!(
                "try again in a minute; if the error persists, ask an administrator to check 'onecli secret \
                 show {name}'"
            ),
        ),
        CredentialError::Source(error) => {
            tracing::error!(%error, secret = name, "cannot obtain a secret's value");
            Refusal::new(
                Code::SecretUnavailable,
                format!("cannot obtain the value of secret '{name}': {}", error.told()),
                error.hint(),
            )
        }
    }
}

fn secret_refusal(name: &str) -> Refusal {
    Refusal::new(
        Code::SecretUnavailable,
        format!("secret '{name}' cannot be decrypted, so the request is not forwarded"),
        format!("ask an administrator to check the daemon's log and 'onecli secret show {name}'"),
    )
}
