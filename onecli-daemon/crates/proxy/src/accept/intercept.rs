//! Detects the protocol and destination of a connection, and then inspects, tunnels or refuses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use onecli_audit::Text;
use onecli_model::{AddressScope, AgentId, Authority, Code, Host, Refusal};
use onecli_net::{
    PrefixedStream, Protocol, SniffError, TunnelBytes, TunnelEnd, client_speaks_first, sniff, tunnel,
};
use onecli_policy::{Decision, DecisionReason, Identity, Route};
use onecli_tls::{ClientHello, TlsAlert, parse_client_hello};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use crate::context::gateway::Gateway;
use crate::http::body::Body;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::reject;
use crate::http::request::head::Head;
use crate::http::scheme::Scheme;
use crate::http::serve::{HttpVersion, serve_exchanges, serve_with};
use crate::session::connection::{Connection, Destination};
use crate::session::counters::Counters;
use crate::session::refused::{refuse_quietly, refuse_unheard};
use crate::session::request_audit::RequestAudit;
use crate::upstream::connector::Opened;

/// Serves a connection whose client connected to `destination`.
pub(super) async fn intercept<S>(
    gateway: &Arc<Gateway>,
    mut connection: Connection,
    destination: Destination,
    mut stream: S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let complete = |ahead: &[u8]| parse_client_hello(ahead) != ClientHello::Incomplete;
    let unread = unread(gateway, &connection, &destination);
    let may_wait = !unread.is_empty() && !client_speaks_first(port(&destination));
    let silence = if may_wait { SILENCE_UNREAD } else { SILENCE };
    let (protocol, ahead) = match sniff(&mut stream, complete, silence).await {
        Ok(sniffed) => sniffed,
        Err(SniffError::Silent) if may_wait => (Protocol::Other, Bytes::new()),
        Err(error) => {
            set_destination(&mut connection, &destination, Scheme::Http);
            return refuse_unread(gateway, &connection, &error).await;
        }
    };
    let is_h2c = ahead.starts_with(b"PRI ");
    let rewound = PrefixedStream::new(ahead.clone(), stream);
    match protocol {
        Protocol::Tls => intercept_tls(gateway, connection, destination, &ahead, rewound).await,
        Protocol::Http => {
            set_destination(&mut connection, &destination, Scheme::Http);
            let version = if is_h2c { HttpVersion::Http2 } else { HttpVersion::Http1 };
            serve_exchanges(gateway, connection, rewound, version).await;
        }
        Protocol::Other => {
            set_destination(&mut connection, &destination, Scheme::Http);
            if let (false, Ok(identity)) = (unread.is_empty(), connection.identify(gateway)) {
                return pass(gateway, &connection, &identity, unread, rewound).await;
            }
            refuse_unread(gateway, &connection, &SniffError::Silent).await;
        }
    }
}

/// The port that the client connected to.
fn port(destination: &Destination) -> u16 {
    match destination {
        Destination::Address(address) => address.port(),
        Destination::Name(authority) | Destination::Authority(authority) => authority.port(),
    }
}

/// Stores the known parts of the destination in `connection`.
fn set_destination(connection: &mut Connection, destination: &Destination, scheme: Scheme) {
    connection.scheme = scheme;
    match destination {
        // A plain request names its own host; the kernel reported the port.
        Destination::Address(address) => connection.port = Some(address.port()),
        Destination::Name(authority) => {
            connection.port = Some(authority.port());
            connection.implied = Some(authority.clone());
        }
        Destination::Authority(authority) => connection.authority = Some(authority.clone()),
    }
}

/// Records and closes a connection whose bytes cannot be read.
async fn refuse_unread(gateway: &Arc<Gateway>, connection: &Connection, error: &SniffError) {
    let Ok(mut audit) = RequestAudit::begin(gateway, connection) else { return };
    let identity = connection.identify(gateway);
    if let Ok(identity) = &identity {
        audit.identify(identity);
    }
    if let Some(implied) = &connection.implied {
        audit.record().target(implied.host(), implied.port());
        let route = identity.as_ref().ok().map(|identity| gateway.snapshot().route(identity, implied));
        if let Some(Route::Deny(refusal)) = route {
            return audit.refuse_by(&refusal).await;
        }
    }
    let code = match (error, identity) {
        (_, Err(refusal)) => refusal.code,
        (SniffError::Closed | SniffError::Io(_), _) => Code::ClientGone,
        (SniffError::Silent | SniffError::Slow | SniffError::TooLong, _) => Code::ProtocolDenied,
    };
    audit.refuse(code).await;
}

async fn intercept_tls<S>(
    gateway: &Arc<Gateway>,
    mut connection: Connection,
    destination: Destination,
    hello: &Bytes,
    mut stream: PrefixedStream<S>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection.scheme = Scheme::Https;
    let (named, authority) = target(&destination, hello);
    connection.authority = Some(named);
    let identity = connection.identify(gateway);
    let budget = payer(gateway, &connection);
    let routed = match (identity, authority) {
        (Err(refusal), _) | (Ok(_), Err(refusal)) => Err(refusal),
        (Ok(identity), Ok(authority)) => match gateway.snapshot().route(&identity, &authority) {
            Route::Deny(refusal) => Err(refusal),
            Route::Tunnel { address_scope, reason } => {
                let passage = Passage { authority, address_scope, reason, address: None, unread: false };
                return pass(gateway, &connection, &identity, vec![passage], stream).await;
            }
            Route::Inspect => Ok(authority),
        },
    };
    match routed {
        Ok(authority) if !gateway.agent_tls.may_accept(budget, authority.host()) => {
            let _ = stream.write_all(&TlsAlert::AccessDenied.record()).await;
            refuse_quietly(gateway, &connection, Code::LimitReached).await;
        }
        Ok(authority) => match gateway.agent_tls.accept(authority.host(), stream).await {
            Ok(tls) => {
                let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                let version = if h2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
                serve_exchanges(gateway, connection, tls, version).await;
            }
            Err(error) => {
                tracing::info!(
                    %error,
                    %authority,
                    "a client's TLS handshake failed: it must trust OneCLI's CA ('onecli ca export'); if it \
                     pins the host's certificate, an administrator can run 'onecli rule add allow --tunnel \
                     --host HOST'"
                );
                refuse_quietly(gateway, &connection, Code::ClientTls).await;
            }
        },
        Err(refusal) if matches!(refusal.code, Code::BadRequest) => {
            let _ = stream.write_all(&TlsAlert::DecodeError.record()).await;
            refuse_unheard(gateway, &connection, &refusal).await;
        }
        Err(refusal) if may_refuse_readably(gateway, &connection, budget) => {
            refuse_readably(gateway, connection, refusal, stream).await;
        }
        Err(refusal) => {
            let _ = stream.write_all(&TlsAlert::AccessDenied.record()).await;
            refuse_unheard(gateway, &connection, &refusal).await;
        }
    }
}

/// The agent that is charged for certificates: the agent that the connection comes from, even a disabled one, or the
/// agent that its token proves.
fn payer(gateway: &Gateway, connection: &Connection) -> AgentId {
    let here = gateway.agent_in(connection.evidence.cgroup.as_ref());
    let proven = || connection.identify(gateway).ok().map(|identity| identity.agent().id);
    here.or_else(proven).unwrap_or(AgentId(Uuid::nil()))
}

/// Returns whether the daemon may complete a TLS handshake to send the reason of a refusal.
fn may_refuse_readably(gateway: &Gateway, connection: &Connection, payer: AgentId) -> bool {
    let Some(authority) = &connection.authority else { return false };
    gateway.agent_tls.may_refuse_readably(payer, authority.host())
}

/// Returns the authority to record, and the authority to continue with. Server name, CONNECT target and address must
/// agree (invariant 6).
fn target(destination: &Destination, hello: &[u8]) -> (Authority, Result<Authority, Refusal>) {
    let fallback = match destination {
        Destination::Address(address) => Authority::new(Host::from(address.ip()), address.port()),
        Destination::Name(authority) | Destination::Authority(authority) => authority.clone(),
    };
    let server_name = match parse_client_hello(hello) {
        ClientHello::Complete { server_name } => server_name,
        ClientHello::Incomplete | ClientHello::Malformed(_) => {
            let refusal =
                Refusal::new(Code::BadRequest, "the TLS ClientHello cannot be read", "use TLS 1.2 or 1.3");
            return (fallback, Err(refusal));
        }
    };
    let Some(server_name) = server_name else { return (fallback.clone(), Ok(fallback)) };
    let host: Host = match server_name.parse() {
        Ok(host) => host,
        Err(error) => {
            let refusal = Refusal::new(
                Code::BadRequest,
                format!("invalid TLS server name: {error}"),
                "send a host name as TLS server name",
            );
            return (fallback, Err(refusal));
        }
    };
    let named = Authority::new(host, fallback.port());
    if matches!(destination, Destination::Authority(_)) && named != fallback {
        let refusal = Refusal::new(
            Code::Misdirected,
            format!("the CONNECT target is {fallback}, but the TLS server name is {}", named.host()),
            "send CONNECT for the host in the TLS server name",
        );
        return (named, Err(refusal));
    }
    (named.clone(), Ok(named))
}

/// How long a client may stay silent before its first byte.
const SILENCE: Duration = Duration::from_secs(10);
/// The same limit if bytes may be passed on unread, because in some protocols the client waits for the server to
/// speak first. It does not apply at ports of HTTP and TLS. There, a slow client would be passed on before its TLS
/// server name is read, which would bypass the rules for that name.
const SILENCE_UNREAD: Duration = Duration::from_millis(400);

/// An allowed route for bytes that the daemon does not read.
struct Passage {
    authority: Authority,
    address_scope: AddressScope,
    reason: DecisionReason,
    /// The address that the agent connected to. It must be one of the authority's, and it is dialled.
    address: Option<SocketAddr>,
    /// Set if only a rule allows it.
    unread: bool,
}

/// The routes on which this connection's unreadable bytes may be forwarded.
fn unread(gateway: &Gateway, connection: &Connection, destination: &Destination) -> Vec<Passage> {
    let Ok(identity) = connection.identify(gateway) else { return Vec::new() };
    let snapshot = gateway.snapshot();
    match destination {
        Destination::Name(authority) | Destination::Authority(authority) => snapshot
            .allows_unread(&identity, authority)
            .into_iter()
            .map(|(address_scope, reason)| Passage {
                authority: authority.clone(),
                address_scope,
                reason,
                address: None,
                unread: true,
            })
            .collect(),
        Destination::Address(address) => snapshot
            .unread(&identity, *address)
            .into_iter()
            .map(|(authority, address_scope, reason)| Passage {
                authority,
                address_scope,
                reason,
                address: Some(*address),
                unread: true,
            })
            .collect(),
    }
}

/// Opens the first route that can be connected.
///
/// # Errors
/// The refusal of the last route.
async fn open_passage(gateway: &Gateway, passages: Vec<Passage>) -> Result<(Passage, Opened), Refusal> {
    let mut refused = None;
    let connector = gateway.pool.connector();
    for passage in passages {
        // Invariant 5: the daemon resolves the name, whatever address the agent chose.
        let opened = match passage.address {
            None => connector.open(&passage.authority, &passage.address_scope).await.map(Some),
            Some(wanted) => connector.open_at(&passage.authority, &passage.address_scope, wanted).await,
        };
        match opened {
            Ok(Some(opened)) => return Ok((passage, opened)),
            Ok(None) => {}
            Err(refusal) => refused = Some(refusal),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Refusal::new(
            Code::ProtocolDenied,
            "the bytes are neither TLS nor HTTP, and no rule allows the address",
            "ask an administrator to allow it: onecli rule add allow --host HOST --port PORT, or --address \
             NETWORK",
        )
    }))
}

/// Forwards bytes without reading them.
async fn pass<S>(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    identity: &Identity,
    passages: Vec<Passage>,
    stream: PrefixedStream<S>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(mut audit) = RequestAudit::begin(gateway, connection) else { return };
    audit.identify(identity);
    if let Err(refusal) = audit.enter(identity) {
        return audit.refuse(refusal.code).await;
    }
    let (passage, Opened { stream: upstream, address, .. }) = match open_passage(gateway, passages).await {
        Ok(opened) => opened,
        Err(refusal) => return audit.refuse_by(&refusal).await,
    };
    let authority = &passage.authority;
    audit.record().target(authority.host(), authority.port()).address = Some(Text::new(&address.to_string()));
    audit.record().rule = Some(Text::new(&passage.reason.to_string()));
    if let Err(refusal) = audit.decide_tunnel().await {
        return audit.refuse(refusal.code).await;
    }
    Counters::add(&gateway.counters.tunnels, 1);
    let agent = identity.agent().id;
    let revoked = gateway.until_refused(&connection.evidence, |snapshot, now| {
        let still = snapshot.identify(&connection.evidence, now).ok().filter(|now| now.agent().id == agent);
        let address_scope = still.and_then(|identity| {
            if passage.unread {
                return snapshot.allows_unread(&identity, authority).map(|(address_scope, _)| address_scope);
            }
            match snapshot.route(&identity, authority) {
                Route::Tunnel { address_scope, .. } => Some(address_scope),
                _ => None,
            }
        });
        address_scope
            .is_none_or(|address_scope| !gateway.pool.connector().admits(authority, address, &address_scope))
    });
    let bytes = TunnelBytes::default();
    let result = tunnel(stream, upstream, &bytes, gateway.timeouts.idle, revoked).await;
    if matches!(result, Ok(TunnelEnd::Stopped)) {
        audit.record().code = Some(Text::new(gateway.taken_back().as_str()));
    }
    audit.tunnelled(&bytes, result.map(drop));
}

/// Completes the TLS handshake of a refused connection, to report the refusal in HTTP.
async fn refuse_readably<S>(
    gateway: &Arc<Gateway>,
    connection: Connection,
    refusal: Refusal,
    stream: PrefixedStream<S>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(authority) = connection.authority.clone() else { return };
    let tls = match gateway.agent_tls.accept(authority.host(), stream).await {
        Ok(tls) => tls,
        Err(error) => {
            tracing::debug!(%error, %authority, "a refused client's TLS handshake failed");
            return refuse_unheard(gateway, &connection, &refusal).await;
        }
    };
    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let version = if h2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
    let asked = Arc::new(Mutex::new(false));
    let connection = Arc::new(connection);
    let refusal = Arc::new(refusal);
    let served = serve_with(tls, version, Default::default(), |request| {
        *asked.lock() = true;
        let (gateway, connection, refusal) =
            (Arc::clone(gateway), Arc::clone(&connection), Arc::clone(&refusal));
        async move {
            let version = request.version();
            let mut response = refuse_request(&gateway, &connection, &refusal, request).await;
            gateway.finish(version, &mut response);
            response
        }
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a refused client's connection ended");
    }
    if !*asked.lock() {
        refuse_unheard(gateway, &connection, &refusal).await;
    }
}

/// Refuses one request, but still reads its head. A placeholder of another agent, or one on its way to another host,
/// is a more severe refusal than a host that is not allowed.
async fn refuse_request(
    gateway: &Arc<Gateway>,
    connection: &Connection,
    refusal: &Refusal,
    request: Request<PeerBody>,
) -> Response<Body> {
    let Ok(mut audit) = RequestAudit::begin(gateway, connection) else {
        return reject::answer(refusal, None);
    };
    connection.note(&request, audit.record());
    let identity = connection.identify(gateway);
    if let Ok(identity) = &identity {
        audit.identify(identity);
    }
    let (parts, _) = request.into_parts();
    let alert = match (identity, Head::read(&parts, connection)) {
        (Ok(identity), Ok(head)) => match gateway.snapshot().decide(&identity, &head.facts()).decision {
            Decision::Deny(worse) if worse.code.is_alert() => Some(worse),
            _ => None,
        },
        _ => None,
    };
    let refusal = alert.as_ref().unwrap_or(refusal);
    audit.refuse_by(refusal).await;
    reject::answer(refusal, audit.request_id())
}
