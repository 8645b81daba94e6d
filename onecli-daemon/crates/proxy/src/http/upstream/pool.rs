//! Upstream connections: dialled, verified, and reused for requests of the same agent with the same credentials.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response, header};
use onecli_audit::{Record, Text};
use onecli_model::{AddressScope, Authority, Clock, Code, Refusal};
use onecli_policy::Snapshot;
use onecli_tls::{Alpn, LateAlert};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite};

use super::http1_sender::Http1Sender;
use super::pool_scope::PoolScope;
use super::send_failure::{SendFailure, UpstreamError};
use crate::http::body::expect;
use crate::http::body::expect::Gate;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::replay::AttemptBody;
use crate::http::fields::head_size;
use crate::http::h2::H2Sender;
use crate::limits::agent_quota::{AgentQuota, QuotaShare};
use crate::upstream::connector::{Opened, Relay, UpstreamConnector, timed_out};
use onecli_model::Scheme;

/// Maximum number of idle connections for one agent and authority.
const IDLE_PER_KEY: usize = 64;
/// How long an idle connection is retained: less than the idle timeout of most servers.
const IDLE_FOR: Duration = Duration::from_secs(50);
/// How long a pooled connection may take to become free.
const READY_WITHIN: Duration = Duration::from_millis(20);
/// The key of the pool. Agents do not share connections, and neither do requests with different credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    scope: PoolScope,
    authority: Authority,
    https: bool,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Arc<UpstreamConnector>,
    clock: Arc<dyn Clock>,
    /// The agents' quotas of idle connections.
    shares: AgentQuota,
    idle: Mutex<Idle>,
}

/// Idle connections.
#[derive(Debug, Default)]
struct Idle(HashMap<Key, Vec<Parked>>);

#[derive(Debug)]
struct Parked {
    sender: Sender,
    peer: Peer,
    since: Instant,
    _share: QuotaShare,
}

/// The peer of a connection.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    /// TLS version; `None` for plain HTTP.
    tls: Option<&'static str>,
    /// In TLS 1.3 an upstream may refuse the client after the handshake.
    alert: LateAlert,
    /// A proxy that reads the requests; for plain HTTP only.
    relay: Option<Relay>,
}

#[derive(Debug)]
enum Sender {
    Http1(Http1Sender),
    Http2(H2Sender),
}

impl Sender {
    /// Returns whether the connection can carry no further request.
    fn is_closed(&self) -> bool {
        match self {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Returns whether the connection is free, at once or as soon as its task has run. A connection that is still
    /// busy is dropped, for example one whose request body outlasted the response.
    async fn is_ready(&mut self) -> bool {
        let ready = async {
            match self {
                Sender::Http1(sender) => sender.is_ready().await,
                Sender::Http2(sender) => sender.is_ready().await,
            }
        };
        matches!(tokio::time::timeout(READY_WITHIN, ready).await, Ok(true))
    }

    /// Reports that the last response was read to its end.
    fn rest(&self) {
        if let Sender::Http2(sender) = self {
            sender.rest();
        }
    }

    /// Returns whether the connection may carry a request that requires `alpn`.
    fn suits(&self, alpn: Alpn) -> bool {
        alpn == Alpn::Any || matches!(self, Sender::Http1(_))
    }
}

/// A connection to the upstream of one request. Over TLS, its certificate was verified for the host of
/// [`Upstream::authority`]. Only the pool creates one.
#[derive(Debug)]
pub(crate) struct Upstream {
    key: Key,
    sender: Sender,
    peer: Peer,
    reused: bool,
}

impl Upstream {
    /// The authority that it was dialled and verified for.
    pub(crate) fn authority(&self) -> &Authority {
        &self.key.authority
    }

    /// Returns whether the upstream proved by certificate that it is that host.
    pub(crate) fn is_verified(&self) -> bool {
        self.peer.tls.is_some()
    }

    /// Writes into an audit record which connection carries the request.
    pub(crate) fn describe(&self, record: &mut Record) {
        record.address = Some(Text::new(&self.address().to_string()));
        record.tls = self.tls().map(Text::new);
        record.http_mut().alpn = Some(Text::new(if self.is_h2() { "h2" } else { "http/1.1" }));
    }

    /// The address that was dialled.
    pub(crate) fn address(&self) -> SocketAddr {
        self.peer.address
    }

    /// TLS version.
    pub(crate) fn tls(&self) -> Option<&'static str> {
        self.peer.tls
    }

    /// The proxy that reads the requests, if there is one.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.peer.relay.as_ref()
    }

    /// Returns whether the connection uses HTTP/2.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Returns whether the connection came from the pool.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Returns whether the upstream ended the connection with a TLS alert. It would end another connection in the
    /// same way.
    pub(crate) fn is_refused(&self) -> bool {
        self.peer.alert.get().is_some()
    }

    /// The refusal that explains the missing response.
    pub(crate) fn refusal(&self, error: &UpstreamError) -> Refusal {
        match self.peer.alert.get() {
            Some(failure) => {
                let message = format!("TLS with {} failed: {failure}", self.key.authority);
                Refusal::new(Code::UpstreamTls, message, failure.hint())
            }
            None => protocol_refusal(error),
        }
    }

    /// Sends a request. Its body may wait at `gate` until the upstream wants it (RFC 9110 section 10.1.1).
    ///
    /// # Errors
    /// [`SendFailure`].
    pub(crate) async fn send(
        &mut self,
        mut request: Request<AttemptBody>,
        gate: Option<&Gate>,
    ) -> Result<Response<PeerBody>, SendFailure> {
        let gate = gate.filter(|gate| gate.is_waiting());
        if gate.is_some() {
            request.headers_mut().insert(header::EXPECT, expect::CONTINUE);
        }
        match &mut self.sender {
            Sender::Http1(sender) => {
                let sent = sender.send(request, gate).await;
                sent.map_err(|error| SendFailure::http1(error, sender.has_received()))
            }
            Sender::Http2(sender) => {
                let sent = sender.send(request, gate).await;
                sent.map(|response| response.map(PeerBody::from)).map_err(SendFailure::http2)
            }
        }
    }
}

impl Pool {
    pub(crate) fn new(connector: Arc<UpstreamConnector>, clock: Arc<dyn Clock>, most_idle: usize) -> Pool {
        let shares = AgentQuota::new(most_idle / 4, most_idle);
        Pool { connector, clock, shares, idle: Mutex::default() }
    }

    /// Connects to upstreams, for tunnels.
    /// Returns a connection for a request that rules allow in `address_scope`: a pooled one, unless `fresh`, or a new
    /// one.
    ///
    /// # Errors
    /// A [`Refusal`]: unresolvable, blocked, unreachable, or not verified.
    pub(crate) async fn checkout(
        &self,
        scope: PoolScope,
        authority: &Authority,
        scheme: Scheme,
        alpn: Alpn,
        fresh: bool,
        address_scope: &AddressScope,
    ) -> Result<Upstream, Refusal> {
        let key = Key { scope, authority: authority.clone(), https: scheme == Scheme::Https };
        if !fresh && let Some(upstream) = self.take(&key, alpn, address_scope).await {
            return Ok(upstream);
        }
        self.connect(key, alpn, address_scope).await
    }

    /// Returns a connection to the pool after its response was read to its end.
    pub(crate) fn release(&self, upstream: Upstream) {
        let Upstream { key, sender, peer, .. } = upstream;
        let since = self.clock.instant();
        if sender.is_closed() {
            return;
        }
        sender.rest();
        let Some(share) = self.shares.take(key.scope.agent()) else { return };
        let mut idle = self.idle();
        let parked = idle.0.entry(key).or_default();
        if parked.len() < IDLE_PER_KEY {
            parked.push(Parked { sender, peer, since, _share: share });
        }
    }

    /// Closes connections that were idle for 50 s.
    pub(crate) fn close_idle(&self) {
        let now = self.clock.instant();
        self.idle().0.retain(|_, parked| {
            parked.retain(|p| now.duration_since(p.since) < IDLE_FOR && !p.sender.is_closed());
            !parked.is_empty()
        });
    }

    /// Closes idle connections of requests with secrets that the agent may no longer use.
    pub(crate) fn close_revoked(&self, policy: &Snapshot) {
        self.idle().0.retain(|key, _| key.scope.is_granted(policy));
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock()
    }

    /// Returns a pooled connection whose address is still allowed.
    async fn take(&self, key: &Key, alpn: Alpn, address_scope: &AddressScope) -> Option<Upstream> {
        while let Some(Parked { mut sender, peer, .. }) = self.pop(key, alpn) {
            if self.connector.admits(&key.authority, peer.address, address_scope) && sender.is_ready().await {
                return Some(Upstream { key: key.clone(), sender, peer, reused: true });
            }
        }
        None
    }

    /// Returns the most recently used connection, so that earlier ones become idle and end.
    fn pop(&self, key: &Key, alpn: Alpn) -> Option<Parked> {
        let now = self.clock.instant();
        let mut idle = self.idle();
        let parked = idle.0.get_mut(key)?;
        parked.retain(|p| now.duration_since(p.since) < IDLE_FOR && !p.sender.is_closed());
        let at = parked.iter().rposition(|p| p.sender.suits(alpn))?;
        Some(parked.remove(at))
    }

    async fn connect(&self, key: Key, alpn: Alpn, address_scope: &AddressScope) -> Result<Upstream, Refusal> {
        if !key.https {
            let Opened { stream, address, relay } =
                self.connector.open_plain(&key.authority, address_scope).await?;
            let sender = begin_http1(stream).await?;
            let peer = Peer { address, tls: None, alert: LateAlert::default(), relay };
            return Ok(Upstream { key, sender, peer, reused: false });
        }
        let Opened { stream, address, .. } = self.connector.open(&key.authority, address_scope).await?;
        let handshake = self.connector.tls.connect(key.scope.agent(), &key.authority, alpn, stream);
        let verified = match tokio::time::timeout(self.connector.dialer.connect_timeout, handshake).await {
            Ok(Ok(verified)) => verified,
            Ok(Err(error)) => return Err(Refusal::new(Code::UpstreamTls, error.to_string(), error.hint())),
            Err(_) => return Err(timed_out("the TLS handshake")),
        };
        let (tls, alert) = (Some(verified.version()), verified.late_alert());
        let peer = Peer { address, tls, alert, relay: None };
        let sender = if verified.is_h2() {
            let begun = H2Sender::handshake(verified).await;
            Sender::Http2(begun.map_err(|error| protocol_refusal(&error.into()))?)
        } else {
            begin_http1(verified).await?
        };
        Ok(Upstream { key, sender, peer, reused: false })
    }
}

async fn begin_http1<S>(stream: S) -> Result<Sender, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = Http1Sender::handshake(stream).await;
    begun.map(Sender::Http1).map_err(|error| protocol_refusal(&error.into()))
}

/// The refusal for an upstream's protocol error, with the error's text.
pub(super) fn protocol_refusal(error: &UpstreamError) -> Refusal {
    if error.is_head_too_large() {
        return head_size::refused_response("is larger than 64 KiB, or has more than 4,096 fields");
    }
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the upstream closed the connection or does not speak HTTP: {error}"),
        "try again; if the error persists, check the upstream",
    )
}
