//! One request, from its head to its response. Each line is a step; each refusal returns early.

mod approval;
mod attempt;
mod authorized;
mod outbound;
pub(crate) mod secret_test;
mod send;

use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use onecli_model::{Code, Refusal};
use onecli_model::{
    operation::Reading, operation::UnreadableBody, operation::UnreadableText, operation::check_text,
};
use onecli_policy::Identity;

use self::approval::await_approval_and_limits;
use self::authorized::{Authorization, AuthorizedRequest};
use self::send::send;
use crate::http::body::buffer;
use crate::http::body::expect::expects_continue;
use crate::http::body::paced::Paced;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::body::{Body, Payload};
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::fields::head_size::check_request;
use crate::http::placement::inject::{is_hidden_by_coding, may_be_in_body, placeholders_in};
use crate::http::request::assemble::overriding_parameter;
use crate::http::request::head::Head;
use crate::http::response::answer::{Delivery, Undelivered, deliver};
use crate::http::session_cookies::Presented;
use crate::http::websocket::upgrade;
use crate::limits::agent_quota::QuotaShare;
use crate::session::request_audit::RequestAudit;

/// Answers one request.
pub(crate) async fn exchange(
    http: Arc<Http>,
    connection: Arc<HttpConnection>,
    request: Request<PeerBody>,
) -> Response<Body> {
    let mut audit = match RequestAudit::begin(&connection.session) {
        Ok(audit) => audit,
        Err(refusal) => return reject::answer(&refusal, None),
    };
    let id = audit.request_id();
    let authorized = match authorize(&http, &connection, request, &mut audit).await {
        Ok(allowed) => await_approval_and_limits(&http, &connection, allowed, &mut audit).await,
        Err(refusal) => Err(refusal),
    };
    match authorized {
        Ok(ready) => match forward(&http, &connection, ready, audit).await {
            Ok(response) => response,
            Err(refusal) => reject::answer(&refusal, id),
        },
        Err(refusal) => {
            audit.refuse_by(&refusal).await;
            reject::answer(&refusal, id)
        }
    }
}

async fn authorize(
    http: &Arc<Http>,
    connection: &HttpConnection,
    mut request: Request<PeerBody>,
    audit: &mut RequestAudit,
) -> Result<AuthorizedRequest, Refusal> {
    connection.expected.note(&request, audit.record());
    let identity = connection.session.identify()?;
    audit.identify(&identity);
    audit.enter(&connection.session, &identity)?;
    check_request(&request)?;
    let expects_continue = expects_continue(&request)?;
    let client_upgrade =
        request.extensions().get::<OnUpgrade>().is_some().then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let mut head = Head::read(&parts, &connection.expected)?;
    audit
        .record()
        .target(head.authority.host(), head.authority.port())
        .request(head.method.as_str(), &head.path);
    let sessions = Presented::take(&http.secrets.vault, &identity, &mut head)?;
    let (body, share) = read_fields(http, connection, &identity, &mut head, body).await?;
    let authorization = Authorization::ask(&connection.session, &identity, &head, audit)
        .map_err(|refusal| name_coding(refusal, &head))?;
    upgrade::refuse_unknown(&parts)?;
    if authorization.is_judged()
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
    Ok(AuthorizedRequest {
        identity,
        head,
        authorization,
        body,
        share,
        sessions,
        client_upgrade,
        expects_continue,
    })
}

/// Reads the body if a placeholder in it decides.
async fn read_fields(
    http: &Http,
    connection: &HttpConnection,
    identity: &Identity,
    head: &mut Head,
    body: PeerBody,
) -> Result<(Payload, Option<QuotaShare>), Refusal> {
    let snapshot = connection.session.policy.snapshot();
    let mut fields = snapshot.body_fields(identity, &head.facts());
    fields.retain(|placement| may_be_in_body(placement, &head.headers));
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
    let whole = buffer::read(body, buffer::MAX_REPLACED, identity.agent().id, &http.bodies.held).await?;
    head.note_trailers(&whole.trailers);
    head.body = placeholders_in(&whole.bytes, &fields);
    if is_judged {
        check_text(reading, &head.headers, &whole.bytes).map_err(unjudged_text)?;
        head.operations.read_body(&head.headers, &whole.bytes).map_err(unjudged)?;
    }
    Ok((Payload::whole(whole.bytes), Some(whole.share)))
}

/// Adds the content coding to the refusal. The daemon cannot find a placeholder in an encoded body, so the agent may
/// have sent one.
fn name_coding(refusal: Refusal, head: &Head) -> Refusal {
    if refusal.code != Code::PlaceholderMissing || !is_hidden_by_coding(&head.headers) {
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
    http: &Arc<Http>,
    connection: &Arc<HttpConnection>,
    allowed: AuthorizedRequest,
    mut audit: RequestAudit,
) -> Result<Response<Body>, Refusal> {
    let pace = http.bodies.memory.pace(&connection.memory, allowed.identity.agent().id);
    match send(http, connection, allowed, &mut audit).await {
        Err(refusal) => {
            audit.refuse(refusal.code).await;
            Err(refusal)
        }
        Ok(sent) => {
            let delivery = Delivery {
                http: Arc::clone(http),
                connection: Arc::clone(connection),
                audit,
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
                    let Undelivered { refusal, mut audit } = *undelivered;
                    audit.refuse(refusal.code).await;
                    Err(refusal)
                }
            }
        }
    }
}
