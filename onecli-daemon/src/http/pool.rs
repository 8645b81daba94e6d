//! Upstream connections: dialled, verified, kept for the next request of the same agent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::RequestBody;
use super::connection::Scheme;
use crate::model::{AgentId, Authority, Clock, Code, Reach, Refusal};
use crate::net::{CheckedAddr, DialError, Dialer, ResolveError, Resolver};
use crate::tls::{Alpn, UpstreamTls};

/// Idle HTTP/1 connections kept for one agent and authority.
const IDLE_PER_KEY: usize = 64;
/// How long an unused connection is kept: shorter than most servers' own patience.
const IDLE_FOR: Duration = Duration::from_secs(50);
/// How long a kept connection may take to be free.
const READY_WITHIN: Duration = Duration::from_millis(20);
/// HTTP/2 flow-control windows, in bytes: one stream's and one connection's (RFC 9113 section 5.2).
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Connections are never shared between agents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    agent: AgentId,
    authority: Authority,
    https: bool,
}

/// The pool.
#[derive(Debug)]
pub(super) struct Pool {
    resolver: Arc<Resolver>,
    dialer: Dialer,
    tls: UpstreamTls,
    clock: Arc<dyn Clock>,
    /// Connections kept in all.
    most_idle: usize,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    h1: HashMap<Key, Vec<Parked<http1::SendRequest<RequestBody>>>>,
    h2: HashMap<Key, Parked<http2::SendRequest<RequestBody>>>,
    count: usize,
}

#[derive(Debug)]
struct Parked<S> {
    sender: S,
    peer: Peer,
    since: Instant,
}

/// Whom a connection leads to.
#[derive(Debug, Clone, Copy)]
struct Peer {
    address: SocketAddr,
    /// TLS version; `None` for plain HTTP.
    tls: Option<&'static str>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
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

/// Why no answer came.
#[derive(Debug)]
pub(super) enum SendFailure {
    /// Nothing of the request was sent: the connection had died in the pool. The request comes back.
    Unsent(Box<Request<RequestBody>>),
    /// The connection failed in the middle.
    Failed(hyper::Error),
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

    /// Does it speak HTTP/2?
    pub(super) fn is_h2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Did it come out of the pool?
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`SendFailure`].
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => SendFailure::Unsent(Box::new(request)),
            None => SendFailure::Failed(error.into_error()),
        })
    }
}

impl Pool {
    pub(super) fn new(
        resolver: Arc<Resolver>,
        dialer: Dialer,
        tls: UpstreamTls,
        clock: Arc<dyn Clock>,
        most_idle: usize,
    ) -> Pool {
        Pool { resolver, dialer, tls, clock, most_idle, idle: Mutex::default() }
    }

    /// Names and addresses, for tunnels.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Dialling, for tunnels.
    pub(super) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// A connection for a request that rules allow to `reach`: a kept one, unless `fresh`; else a new one.
    ///
    /// # Errors
    /// A [`Refusal`]: unresolvable, blocked, unreachable, or not verified.
    pub(super) async fn checkout(
        &self,
        agent: AgentId,
        authority: &Authority,
        scheme: Scheme,
        alpn: Alpn,
        fresh: bool,
        reach: &Reach,
    ) -> Result<Upstream, Refusal> {
        let key = Key { agent, authority: authority.clone(), https: scheme == Scheme::Https };
        if !fresh && let Some(upstream) = self.take(&key, alpn, reach).await {
            return Ok(upstream);
        }
        let addresses =
            self.resolver.resolve(authority, reach).await.map_err(|error| resolve_refusal(&error))?;
        self.connect(key, &addresses, alpn).await
    }

    /// Puts a connection back whose answer was read to its end.
    pub(super) fn release(&self, upstream: Upstream) {
        let Upstream { key, sender: Sender::Http1(sender), peer, .. } = upstream else { return };
        let since = self.clock.instant();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.count >= self.most_idle || sender.is_closed() {
            return;
        }
        let parked = idle.h1.entry(key).or_default();
        if parked.len() < IDLE_PER_KEY {
            parked.push(Parked { sender, peer, since });
            idle.count += 1;
        }
    }

    /// Closes what was not used for 50 s.
    pub(super) fn close_idle(&self) {
        let now = self.clock.instant();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        idle.h1.retain(|_, parked| {
            parked.retain(|p| now.duration_since(p.since) < IDLE_FOR && !p.sender.is_closed());
            count += parked.len();
            !parked.is_empty()
        });
        idle.h2.retain(|_, parked| now.duration_since(parked.since) < IDLE_FOR && !parked.sender.is_closed());
        idle.count = count + idle.h2.len();
    }

    /// A kept connection, at an address that still may be reached.
    async fn take(&self, key: &Key, alpn: Alpn, reach: &Reach) -> Option<Upstream> {
        if alpn == Alpn::Any
            && let Some((mut sender, peer)) = self.take_h2(key)
            && self.resolver.admits(peer.address, reach)
            && is_ready(sender.ready()).await
        {
            return Some(Upstream { key: key.clone(), sender: Sender::Http2(sender), peer, reused: true });
        }
        while let Some(Parked { mut sender, peer, .. }) = self.pop_h1(key) {
            if self.resolver.admits(peer.address, reach) && is_ready(sender.ready()).await {
                return Some(Upstream {
                    key: key.clone(),
                    sender: Sender::Http1(sender),
                    peer,
                    reused: true,
                });
            }
        }
        None
    }

    fn take_h2(&self, key: &Key) -> Option<(http2::SendRequest<RequestBody>, Peer)> {
        let now = self.clock.instant();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let parked = idle.h2.get_mut(key)?;
        if parked.sender.is_closed() {
            idle.h2.remove(key);
            idle.count = idle.count.saturating_sub(1);
            return None;
        }
        parked.since = now;
        Some((parked.sender.clone(), parked.peer))
    }

    fn pop_h1(&self, key: &Key) -> Option<Parked<http1::SendRequest<RequestBody>>> {
        let now = self.clock.instant();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let parked = idle.h1.get_mut(key)?.pop()?;
            idle.count = idle.count.saturating_sub(1);
            if now.duration_since(parked.since) < IDLE_FOR && !parked.sender.is_closed() {
                return Some(parked);
            }
        }
    }

    async fn connect(&self, key: Key, addresses: &[CheckedAddr], alpn: Alpn) -> Result<Upstream, Refusal> {
        let (tcp, address) = self.dialer.dial(addresses).await.map_err(|error| dial_refusal(&error))?;
        if !key.https {
            let sender = handshake_h1(tcp).await?;
            let peer = Peer { address, tls: None };
            return Ok(Upstream { key, sender: Sender::Http1(sender), peer, reused: false });
        }
        let handshake = self.tls.connect(key.agent, &key.authority, alpn, tcp);
        let verified = match tokio::time::timeout(self.dialer.connect_timeout, handshake).await {
            Ok(Ok(verified)) => verified,
            Ok(Err(error)) => {
                return Err(Refusal::new(
                    Code::UpstreamTls,
                    error.to_string(),
                    "its certificate must be valid for the host; a private CA goes into [upstream] extra_ca_files",
                ));
            }
            Err(_) => return Err(timed_out("the TLS handshake")),
        };
        let peer = Peer { address, tls: Some(verified.version()) };
        let sender = if verified.is_h2() {
            let sender = handshake_h2(verified).await?;
            let since = self.clock.instant();
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.count < self.most_idle {
                let parked = Parked { sender: sender.clone(), peer, since };
                if idle.h2.insert(key.clone(), parked).is_none() {
                    idle.count += 1;
                }
            }
            Sender::Http2(sender)
        } else {
            Sender::Http1(handshake_h1(verified).await?)
        };
        Ok(Upstream { key, sender, peer, reused: false })
    }
}

/// Is a kept connection free? It is at once, or as soon as its task has run. One that is still busy, with a request
/// body that outlasted its answer perhaps, is given up.
async fn is_ready(ready: impl Future<Output = Result<(), hyper::Error>>) -> bool {
    matches!(tokio::time::timeout(READY_WITHIN, ready).await, Ok(Ok(())))
}

async fn handshake_h1<S>(stream: S) -> Result<http1::SendRequest<RequestBody>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| protocol_refusal(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream HTTP/1 connection ended");
        }
    });
    Ok(sender)
}

async fn handshake_h2<S>(stream: S) -> Result<http2::SendRequest<RequestBody>, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| protocol_refusal(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream HTTP/2 connection ended");
        }
    });
    Ok(sender)
}

/// The upstream's fault, in its own words.
pub(super) fn protocol_refusal(error: &hyper::Error) -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the upstream broke off or does not speak HTTP: {error}"),
        "try again; if it stays, look at the upstream",
    )
}

pub(super) fn resolve_refusal(error: &ResolveError) -> Refusal {
    match error {
        ResolveError::Blocked(_) => Refusal::new(
            Code::AddressBlocked,
            error.to_string(),
            "an administrator can name the network: onecli rule add allow --host HOST --address NETWORK",
        ),
        ResolveError::Failed { .. } => Refusal::new(
            Code::UpstreamResolve,
            error.to_string(),
            "check the host's name, and the DNS servers of the host that OneCLI runs on",
        ),
    }
}

pub(super) fn dial_refusal(error: &DialError) -> Refusal {
    match error {
        DialError::Refused { .. } => {
            Refusal::new(Code::UpstreamConnect, error.to_string(), "is the upstream up, and the port right?")
        }
        DialError::TimedOut(_) => timed_out("connecting"),
    }
}

pub(super) fn timed_out(what: &str) -> Refusal {
    Refusal::new(Code::UpstreamTimeout, format!("{what} took too long"), "try again; is the upstream up?")
}
