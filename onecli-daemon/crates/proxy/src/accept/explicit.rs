//! Clients that use the daemon as their proxy: CONNECT, and absolute-form for plain HTTP (RFC 9110 section 9.3.6, RFC
//! 9112 section 3.2.2).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use onecli_model::{Authority, Code, Refusal, Token};
use onecli_net::tune;
use onecli_policy::{CaptureMode, Identity, Route};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::intercept::intercept;
use crate::accept::listener_scheme::ListenerScheme;
use crate::context::gateway::Gateway;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::body::{Body, empty};
use crate::http::exchange::exchange;
use crate::http::h1::RejectedRequest;
use crate::http::request::head::{basic_credentials, scheme_value};
use crate::http::serve::{HttpVersion, answer_rejected, record_broken, serve_with};
use crate::limits::connection_slot::{ConnectionSlot, Source};
use crate::session::connection::{Connection, Destination};
use crate::session::counters::Counters;
use crate::session::refused::refuse_quietly;
use crate::session::request_audit::RequestAudit;

/// Time limit for a client's handshake with the proxy.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves one connection to the explicit proxy from outside all managed cgroups. Until the client presents a token,
/// newer connections from the same address may displace this one.
pub async fn serve_explicit(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    scheme: ListenerScheme,
) {
    let slot =
        Arc::new(ConnectionSlot::of_unidentified(gateway.unidentified.admit(Source::of_address(peer.ip()))));
    let mut connection = Connection::new(CaptureMode::Explicit, None, peer);
    connection.slot = Some(Arc::clone(&slot));
    let served = serve_proxy(Arc::clone(&gateway), stream, connection.clone(), scheme);
    if !slot.run_until_displaced(served).await {
        refuse_quietly(&gateway, &connection, Code::TooManyConnections).await;
    }
}

/// Serves a proxy client on a connection that has its slot.
pub(super) async fn serve_proxy(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    connection: Connection,
    scheme: ListenerScheme,
) {
    Counters::add(&gateway.counters.connections, 1);
    tune(&stream);
    if scheme == ListenerScheme::Plain {
        return serve_requests(gateway, stream, connection).await;
    }
    match timeout(HANDSHAKE, gateway.agent_tls.accept_for_proxy(stream)).await {
        Ok(Ok(tls)) => serve_requests(gateway, tls, connection).await,
        Ok(Err(error)) => {
            let peer = connection.peer;
            tracing::info!(%error, %peer, "a TLS handshake with the proxy failed: check that the client \
                                           trusts the CA");
            refuse_quietly(&gateway, &connection, Code::ClientTls).await;
        }
        Err(_) => refuse_quietly(&gateway, &connection, Code::ClientTls).await,
    }
}

async fn serve_requests<S>(gateway: Arc<Gateway>, stream: S, connection: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served =
        serve_with(stream, HttpVersion::Http1, (Arc::default(), connection.displaced()), |request| {
            answer(Arc::clone(&gateway), connection.clone(), request)
        })
        .await;
    if let Err(error) = served {
        record_broken(&gateway, &connection, &error).await;
    }
}

/// Answers one proxy request. The token is valid for this request only.
async fn answer(
    gateway: Arc<Gateway>,
    mut connection: Connection,
    request: Request<PeerBody>,
) -> Response<Body> {
    let authenticated = authenticate(&gateway, &mut connection, &request).and_then(|identity| {
        connection.belongs_to(&gateway, identity.agent().id)?;
        Ok(identity)
    });
    // The response tells the sender what is wrong. The record names the agent if the token was read.
    if let Some(rejected) = RejectedRequest::of(&request) {
        return answer_rejected(&gateway, &connection, rejected).await;
    }
    let is_connect = *request.method() == Method::CONNECT;
    match authenticated {
        Ok(identity) if is_connect => connect(&gateway, connection, &identity, request).await,
        Ok(_) if request.uri().scheme_str() == Some("http") => {
            Box::pin(exchange(gateway, Arc::new(connection), request)).await
        }
        Ok(_) => refuse(&gateway, &connection, &request, not_proxy_form(&request)).await,
        Err(refusal) => refuse(&gateway, &connection, &request, refusal).await,
    }
}

/// Reads `Proxy-Authorization` into the connection's evidence and finds the agent.
fn authenticate(
    gateway: &Gateway,
    connection: &mut Connection,
    request: &Request<PeerBody>,
) -> Result<Identity, Refusal> {
    let token = presented_token(request);
    connection.evidence.token = match token {
        Presented::Nothing => None,
        Presented::Token(token) => Some(gateway.vault.token_hash(&token)),
        Presented::Garbage => {
            let refusal = Refusal::new(
                Code::TokenUnknown,
                "Proxy-Authorization does not carry a OneCLI token",
                "send it as Bearer, or as the password of Basic: HTTPS_PROXY=http://x:TOKEN@HOST:PORT",
            );
            return Err(failed(gateway, connection, refusal));
        }
    };
    connection.identify(gateway).map_err(|refusal| match refusal.code {
        Code::TokenUnknown | Code::TokenForeign => failed(gateway, connection, refusal),
        _ => refusal,
    })
}

/// Counts a wrong token. An address that sends many is throttled. Valid tokens from the same address are still
/// accepted, because several clients may share it.
fn failed(gateway: &Gateway, connection: &Connection, refusal: Refusal) -> Refusal {
    gateway.failures.failed(connection.source());
    if refusal.code.is_alert() || !gateway.failures.is_blocked(connection.source()) {
        return refusal;
    }
    Refusal::new(
        Code::TooManyFailures,
        "too many wrong tokens came from this address",
        "wait a minute, then use a token that is valid",
    )
}

enum Presented {
    Nothing,
    Token(Token),
    Garbage,
}

fn presented_token(request: &Request<PeerBody>) -> Presented {
    let mut values = request.headers().get_all(header::PROXY_AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let Some(value) = first else { return Presented::Nothing };
    if second.is_some() {
        return Presented::Garbage;
    }
    let text = match (scheme_value(value, "bearer"), basic_credentials(value)) {
        (Some(token), _) => token.to_owned(),
        (None, Some((_, password))) => String::from_utf8_lossy(&password).into_owned(),
        (None, None) => return Presented::Garbage,
    };
    Token::parse(&text).map_or(Presented::Garbage, Presented::Token)
}

/// Opens a CONNECT tunnel to the daemon itself, which intercepts what comes through it.
async fn connect(
    gateway: &Arc<Gateway>,
    connection: Connection,
    identity: &Identity,
    mut request: Request<PeerBody>,
) -> Response<Body> {
    let target = request.uri().authority().map(|authority| Authority::parse(authority.as_str(), None));
    let authority = match target {
        Some(Ok(authority)) => authority,
        Some(Err(error)) => {
            let refusal = Refusal::new(
                Code::BadRequest,
                format!("the CONNECT target is not host:port: {error}"),
                "write CONNECT host:port (RFC 9110 section 9.3.6)",
            );
            return refuse(gateway, &connection, &request, refusal).await;
        }
        None => return refuse(gateway, &connection, &request, not_proxy_form(&request)).await,
    };
    let mut connection = connection;
    connection.authority = Some(authority.clone());
    if let Err(refusal) = check_host(&request, &authority) {
        return refuse(gateway, &connection, &request, refusal).await;
    }
    if let Route::Deny(refusal) = gateway.snapshot().route(identity, &authority) {
        return refuse(gateway, &connection, &request, refusal).await;
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                let stream = TokioIo::new(stream);
                let served = intercept(&gateway, connection, Destination::Authority(authority), stream);
                gateway.until_end(served).await;
            }
            Err(error) => tracing::debug!(%error, "a CONNECT did not complete"),
        }
    });
    Response::new(empty())
}

/// Checks that `Host`, if the client sends it, agrees with the target (RFC 9110 section 7.2; invariant 6). Some
/// clients omit the port.
fn check_host(request: &Request<PeerBody>, target: &Authority) -> Result<(), Refusal> {
    let Some(host) = request.headers().get(header::HOST) else { return Ok(()) };
    let named = host.to_str().ok().and_then(|host| Authority::parse(host, Some(target.port())).ok());
    if named.as_ref() == Some(target) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::Misdirected,
        format!("the CONNECT target is {target}, but the Host field names another host"),
        "send the target in the Host field, or let the client's HTTP library set it",
    ))
}

async fn refuse(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    request: &Request<PeerBody>,
    refusal: Refusal,
) -> Response<Body> {
    let answer = if *request.method() == Method::CONNECT { reject::connect } else { reject::answer };
    let Ok(mut audit) = RequestAudit::of_refused(gateway, connection) else { return answer(&refusal, None) };
    connection.note(request, audit.record());
    audit.refuse_by(&refusal).await;
    answer(&refusal, audit.request_id())
}

fn not_proxy_form(request: &Request<PeerBody>) -> Refusal {
    if request.uri().scheme_str().is_some() {
        return Refusal::new(
            Code::BadRequest,
            "the proxy does not fetch https:// URLs in absolute-form",
            "use CONNECT: set HTTPS_PROXY, not HTTP_PROXY, for https",
        );
    }
    Refusal::new(
        Code::BadRequest,
        "this is a proxy, and the request is not a proxy request",
        "set HTTPS_PROXY=http://x:TOKEN@HOST:PORT in the client",
    )
}
