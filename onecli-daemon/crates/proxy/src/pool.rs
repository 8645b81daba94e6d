//! Upstream connections: dialled, verified, reused by requests of the same agent with the same credentials.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response, header};
use onecli_model::{Authority, Clock, Code, Reach, Refusal};
use onecli_policy::Snapshot;
use onecli_tls::{Alpn, LateAlert};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::Scheme;
use super::expect::{self, Gate};
use super::head_size;
use super::http1_sender::Http1Sender;
use super::http2::H2Sender;
use super::outward::{Opened, Outward, Relay, timed_out};
use super::peer_body::PeerBody;
use super::pool_scope::PoolScope;
use super::replay::Attempt;
use super::send_failure::{SendFailure, UpstreamError};
use super::shares::{Share, Shares};

/// Idle connections for one agent and authority, at most.
const IDLE_PER_KEY: usize = 64;
/// How long an unused connection is kept: shorter than most servers' own patience.
const IDLE_FOR: Duration = Duration::from_secs(50);
/// How long a kept connection may take to be free.
const READY_WITHIN: Duration = Duration::from_millis(20);
/// Connections are shared neither between agents nor between requests with different credentials.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    scope: PoolScope,
    authority: Authority,
    https: bool,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    outward: Outward,
    clock: Arc<dyn Clock>,
    /// Connections that are kept, each one's part of what there is.
    shares: Shares,
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
    _share: Share,
}

/// Whom a connection leads to.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    /// TLS version; `None` for plain HTTP.
    tls: Option<&'static str>,
    /// In TLS 1.3 an upstream may refuse the client behind the handshake.
    alert: LateAlert,
    /// A proxy that reads the requests: plain HTTP alone.
    relay: Option<Relay>,
}

#[derive(Debug)]
enum Sender {
    Http1(Http1Sender),
    Http2(H2Sender),
}

impl Sender {
    /// Can it carry no further request?
    fn is_closed(&self) -> bool {
        match self {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Is it free? It is at once, or as soon as its task has run. One that is still busy, with a request body that
    /// outlasted its answer perhaps, is given up.
    async fn is_ready(&mut self) -> bool {
        let ready = async {
            match self {
                Sender::Http1(sender) => sender.is_ready().await,
                Sender::Http2(sender) => sender.is_ready().await,
            }
        };
        matches!(tokio::time::timeout(READY_WITHIN, ready).await, Ok(true))
    }

    /// Its last response was read to its end.
    fn rest(&self) {
        if let Sender::Http2(sender) = self {
            sender.rest();
        }
    }

    /// May it carry a request that wants `alpn`?
    fn suits(&self, alpn: Alpn) -> bool {
        alpn == Alpn::Any || matches!(self, Sender::Http1(_))
    }
}

/// A connection to the upstream of one request. Over TLS its certificate was verified for
/// [`Upstream::authority`]'s host. Only the pool makes one.
#[derive(Debug)]
pub(super) struct Upstream {
    key: Key,
    sender: Sender,
    peer: Peer,
    reused: bool,
}

impl Upstream {
    /// What it was dialled and verified for.
    pub(super) fn authority(&self) -> &Authority {
        &self.key.authority
    }

    /// Did it prove, by certificate, to be that host?
    pub(super) fn is_verified(&self) -> bool {
        self.peer.tls.is_some()
    }

    /// The address it was dialled at.
    pub(super) fn address(&self) -> SocketAddr {
        self.peer.address
    }

    /// TLS version.
    pub(super) fn tls(&self) -> Option<&'static str> {
        self.peer.tls
    }

    /// The proxy that reads the requests, where there is one.
    pub(super) fn relay(&self) -> Option<&Relay> {
        self.peer.relay.as_ref()
    }

    /// Does it speak HTTP/2?
    pub(super) fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Did it come out of the pool?
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Did it end the connection by an alert of TLS? Another connection would end so too.
    pub(super) fn is_refused(&self) -> bool {
        self.peer.alert.get().is_some()
    }

    /// Why it gave no response.
    pub(super) fn refusal(&self, error: &UpstreamError) -> Refusal {
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
    pub(super) async fn send(
        &mut self,
        mut request: Request<Attempt>,
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
    pub(super) fn new(outward: Outward, clock: Arc<dyn Clock>, most_idle: usize) -> Pool {
        let shares = Shares::new(most_idle / 4, most_idle);
        Pool { outward, clock, shares, idle: Mutex::default() }
    }

    /// The way out, for tunnels.
    pub(super) fn outward(&self) -> &Outward {
        &self.outward
    }

    /// A connection for a request that rules allow to `reach`: a kept one, unless `fresh`; else a new one.
    ///
    /// # Errors
    /// A [`Refusal`]: unresolvable, blocked, unreachable, or not verified.
    pub(super) async fn checkout(
        &self,
        scope: PoolScope,
        authority: &Authority,
        scheme: Scheme,
        alpn: Alpn,
        fresh: bool,
        reach: &Reach,
    ) -> Result<Upstream, Refusal> {
        let key = Key { scope, authority: authority.clone(), https: scheme == Scheme::Https };
        if !fresh && let Some(upstream) = self.take(&key, alpn, reach).await {
            return Ok(upstream);
        }
        self.connect(key, alpn, reach).await
    }

    /// Puts a connection back whose answer was read to its end.
    pub(super) fn release(&self, upstream: Upstream) {
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

    /// Closes what was not used for 50 s.
    pub(super) fn close_idle(&self) {
        let now = self.clock.instant();
        self.idle().0.retain(|_, parked| {
            parked.retain(|p| now.duration_since(p.since) < IDLE_FOR && !p.sender.is_closed());
            !parked.is_empty()
        });
    }

    /// Closes idle connections of requests whose secrets the agent may no longer use.
    pub(super) fn close_revoked(&self, policy: &Snapshot) {
        self.idle().0.retain(|key, _| key.scope.is_granted(policy));
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept connection, at an address that still may be reached.
    async fn take(&self, key: &Key, alpn: Alpn, reach: &Reach) -> Option<Upstream> {
        while let Some(Parked { mut sender, peer, .. }) = self.pop(key, alpn) {
            if self.outward.admits(&key.authority, peer.address, reach) && sender.is_ready().await {
                return Some(Upstream { key: key.clone(), sender, peer, reused: true });
            }
        }
        None
    }

    /// The connection that was used last: those before it may become idle, and end.
    fn pop(&self, key: &Key, alpn: Alpn) -> Option<Parked> {
        let now = self.clock.instant();
        let mut idle = self.idle();
        let parked = idle.0.get_mut(key)?;
        parked.retain(|p| now.duration_since(p.since) < IDLE_FOR && !p.sender.is_closed());
        let at = parked.iter().rposition(|p| p.sender.suits(alpn))?;
        Some(parked.remove(at))
    }

    async fn connect(&self, key: Key, alpn: Alpn, reach: &Reach) -> Result<Upstream, Refusal> {
        if !key.https {
            let Opened { stream, address, relay } = self.outward.open_plain(&key.authority, reach).await?;
            let sender = begin_http1(stream).await?;
            let peer = Peer { address, tls: None, alert: LateAlert::default(), relay };
            return Ok(Upstream { key, sender, peer, reused: false });
        }
        let Opened { stream, address, .. } = self.outward.open(&key.authority, reach).await?;
        let handshake = self.outward.tls.connect(key.scope.agent(), &key.authority, alpn, stream);
        let verified = match tokio::time::timeout(self.outward.dialer.connect_timeout, handshake).await {
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

/// The upstream's fault, in its own words.
pub(super) fn protocol_refusal(error: &UpstreamError) -> Refusal {
    if error.is_head_too_large() {
        return head_size::refused_response("is larger than 64 KiB, or has more than 4,096 fields");
    }
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the upstream broke off or does not speak HTTP: {error}"),
        "try again; if it stays, look at the upstream",
    )
}
