//! Requests of clients that use the daemon as their proxy: CONNECT, and absolute-form for plain HTTP (RFC 9110 section
//! 9.3.6, RFC 9112 section 3.2.2).

use std::sync::Arc;

use http::header;
use http::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use onecli_model::{Authority, Code, Refusal, Token};
use onecli_policy::{Identity, Route};

use super::serve::{HttpVersion, answer_rejected, record_broken, serve_with};
use crate::accept::protocol::Stream;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::body::{Body, empty};
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::exchange::exchange;
use crate::http::h1::RejectedRequest;
use crate::http::request::head::{basic_credentials, scheme_value};
use crate::session::Session;
use crate::session::destination::Destination;

/// Serves the proxy requests of one connection.
pub(super) async fn serve_proxy(http: &Arc<Http>, session: Session, stream: Stream) {
    let displaced = session.client.displaced();
    let connection = HttpConnection::new(session, 1);
    let served = serve_with(stream, HttpVersion::Http1, (Arc::default(), displaced), |request| {
        answer(Arc::clone(http), connection.clone(), request)
    })
    .await;
    if let Err(error) = served {
        record_broken(&connection.session, &error).await;
    }
}

/// Answers one proxy request. The token is valid for this request only.
async fn answer(
    http: Arc<Http>,
    mut connection: HttpConnection,
    request: Request<PeerBody>,
) -> Response<Body> {
    let authenticated = authenticate(&http, &mut connection, &request).and_then(|identity| {
        connection.session.belongs_to(identity.agent().id)?;
        Ok(identity)
    });
    // The response tells the sender what is wrong. The record names the agent if the token was read.
    if let Some(rejected) = RejectedRequest::of(&request) {
        return answer_rejected(&connection, rejected).await;
    }
    let is_connect = *request.method() == Method::CONNECT;
    match authenticated {
        Ok(identity) if is_connect => connect(&http, connection, &identity, request).await,
        Ok(_) if request.uri().scheme_str() == Some("http") => {
            Box::pin(exchange(http, Arc::new(connection), request)).await
        }
        Ok(_) => refuse(&connection, &request, not_proxy_form(&request)).await,
        Err(refusal) => refuse(&connection, &request, refusal).await,
    }
}

/// Reads `Proxy-Authorization` into the connection's evidence and finds the agent.
fn authenticate(
    http: &Http,
    connection: &mut HttpConnection,
    request: &Request<PeerBody>,
) -> Result<Identity, Refusal> {
    let token = presented_token(request);
    connection.session.client.evidence.token = match token {
        Presented::Nothing => None,
        Presented::Token(token) => Some(http.secrets.vault.token_hash(&token)),
        Presented::Garbage => {
            let refusal = Refusal::new(
                Code::TokenUnknown,
                "Proxy-Authorization does not carry a OneCLI token",
                "send it as Bearer, or as the password of Basic: HTTPS_PROXY=http://x:TOKEN@HOST:PORT",
            );
            return Err(failed(&connection.session, refusal));
        }
    };
    connection.session.identify().map_err(|refusal| match refusal.code {
        Code::TokenUnknown | Code::TokenForeign => failed(&connection.session, refusal),
        _ => refusal,
    })
}

/// Counts a wrong token. An address that sends many is throttled. Valid tokens from the same address are still
/// accepted, because several clients may share it.
fn failed(session: &Session, refusal: Refusal) -> Refusal {
    session.limits.failures.failed(session.client.source());
    if refusal.code.is_alert() || !session.limits.failures.is_blocked(session.client.source()) {
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
    http: &Arc<Http>,
    mut connection: HttpConnection,
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
            return refuse(&connection, &request, refusal).await;
        }
        None => return refuse(&connection, &request, not_proxy_form(&request)).await,
    };
    connection.session.authority = Some(authority.clone());
    connection.expected.authority = Some(authority.clone());
    if let Err(refusal) = check_host(&request, &authority) {
        return refuse(&connection, &request, refusal).await;
    }
    if let Route::Deny(refusal) = connection.session.policy.snapshot().route(identity, &authority) {
        return refuse(&connection, &request, refusal).await;
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let session = connection.session;
    let session = Session { destination: Destination::Authority(authority), ..session };
    let router = http.router();
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                let Some(router) = router else { return };
                let lifecycle = Arc::clone(&session.lifecycle);
                lifecycle.until_aborted(router.serve(session, Box::new(TokioIo::new(stream)))).await;
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
    connection: &HttpConnection,
    request: &Request<PeerBody>,
    refusal: Refusal,
) -> Response<Body> {
    let answer = if *request.method() == Method::CONNECT { reject::connect } else { reject::answer };
    let id = connection.session.refuse(&refusal, |record| connection.expected.note(request, record)).await;
    answer(&refusal, id)
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
