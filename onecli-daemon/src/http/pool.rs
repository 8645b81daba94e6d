//! Upstream connections: dialled, verified, kept for the next request of the same agent.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::RequestBody;
use super::connection::Scheme;
use super::outward::{Opened, Outward, Relay, timed_out};
use super::shares::{Share, Shares};
use crate::model::{AgentId, Authority, Clock, Code, Reach, Refusal};
use crate::tls::Alpn;

/// Idle HTTP/1 connections kept for one agent and authority.
const IDLE_PER_KEY: usize = 64;
/// How long an unused connection is kept: shorter than most servers' own patience.
const IDLE_FOR: Duration = Duration::from_secs(50);
/// How long a kept connection may take to be free.
const READY_WITHIN: Duration = Duration::from_millis(20);
/// Most HTTP/2 connections kept for one agent and authority.
const H2_PER_KEY: usize = 16;
/// Requests at a time on one HTTP/2 connection, where the upstream does not want fewer.
const STREAMS: u32 = 32;
/// HTTP/2 flow-control windows, in bytes: one stream's and one connection's (RFC 9113 section 5.2). The connection's
/// has room for all streams: answers that nobody reads must not stop the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

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
    outward: Outward,
    clock: Arc<dyn Clock>,
    /// Connections that are kept, each one's part of what there is.
    shares: Shares,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Connections that nobody uses.
    h1: HashMap<Key, Vec<Parked<http1::SendRequest<RequestBody>>>>,
    /// Connections that may have room for one request more.
    h2: HashMap<Key, Vec<Parked<SharedSender>>>,
}

/// An HTTP/2 connection's sender, and the requests on it.
type SharedSender = (http2::SendRequest<RequestBody>, Arc<Streams>);

#[derive(Debug)]
struct Parked<S> {
    sender: S,
    peer: Peer,
    since: Instant,
    _share: Share,
}

/// Requests on one HTTP/2 connection.
#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    /// What the upstream allows (`SETTINGS_MAX_CONCURRENT_STREAMS`).
    most: AtomicUsize,
}

/// One of them, until it is dropped.
#[derive(Debug)]
struct Stream(Arc<Streams>);

impl Streams {
    /// Room for one more: h2 would let the request wait for another one's end.
    fn take(self: &Arc<Streams>) -> Option<Stream> {
        let most = self.most.load(Ordering::Relaxed).min(STREAMS as usize);
        let more = |open| (open < most).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Stream(Arc::clone(self)))
    }

    fn is_used(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whom a connection leads to.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    /// TLS version; `None` for plain HTTP.
    tls: Option<&'static str>,
    /// A proxy that reads the requests: plain HTTP alone.
    relay: Option<Relay>,
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
    _stream: Option<Stream>,
}

/// Why no answer came.
pub(super) enum SendFailure {
    /// Nothing of the request was sent: the connection had died in the pool. The request comes back.
    Unsent(Box<Request<RequestBody>>),
    /// The connection failed in the middle.
    Failed(hyper::Error),
}

/// The value may be in the request's URI.
impl fmt::Debug for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendFailure::Unsent(_) => f.write_str("Unsent(..)"),
            SendFailure::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
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
        self.connect(key, alpn, reach).await
    }

    /// Puts a connection back whose answer was read to its end.
    pub(super) fn release(&self, upstream: Upstream) {
        let Upstream { key, sender: Sender::Http1(sender), peer, .. } = upstream else { return };
        let since = self.clock.instant();
        if sender.is_closed() {
            return;
        }
        let Some(share) = self.shares.take(key.agent) else { return };
        let mut idle = self.idle();
        let parked = idle.h1.entry(key).or_default();
        if parked.len() < IDLE_PER_KEY {
            parked.push(Parked { sender, peer, since, _share: share });
        }
    }

    /// Closes what was not used for 50 s.
    pub(super) fn close_idle(&self) {
        let now = self.clock.instant();
        let mut idle = self.idle();
        idle.h1.retain(|_, parked| {
            parked.retain(|p| now.duration_since(p.since) < IDLE_FOR && !p.sender.is_closed());
            !parked.is_empty()
        });
        idle.h2.retain(|_, parked| {
            parked.retain(|p| {
                let (sender, streams) = &p.sender;
                (streams.is_used() || now.duration_since(p.since) < IDLE_FOR) && !sender.is_closed()
            });
            !parked.is_empty()
        });
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept connection, at an address that still may be reached.
    async fn take(&self, key: &Key, alpn: Alpn, reach: &Reach) -> Option<Upstream> {
        if alpn == Alpn::Any
            && let Some((mut sender, stream, peer)) = self.take_h2(key)
            && self.outward.admits(&key.authority, peer.address, reach)
            && is_ready(sender.ready()).await
        {
            let (sender, stream) = (Sender::Http2(sender), Some(stream));
            return Some(Upstream { key: key.clone(), sender, peer, reused: true, _stream: stream });
        }
        while let Some(Parked { mut sender, peer, .. }) = self.pop_h1(key) {
            if self.outward.admits(&key.authority, peer.address, reach) && is_ready(sender.ready()).await {
                return Some(Upstream {
                    key: key.clone(),
                    sender: Sender::Http1(sender),
                    peer,
                    reused: true,
                    _stream: None,
                });
            }
        }
        None
    }

    /// The first connection with room: those behind it may become idle, and end.
    fn take_h2(&self, key: &Key) -> Option<(http2::SendRequest<RequestBody>, Stream, Peer)> {
        let now = self.clock.instant();
        let mut idle = self.idle();
        let parked = idle.h2.get_mut(key)?;
        parked.retain(|parked| !parked.sender.0.is_closed());
        parked.iter_mut().find_map(|parked| {
            let (sender, streams) = &parked.sender;
            let stream = streams.take()?;
            parked.since = now;
            Some((sender.clone(), stream, parked.peer.clone()))
        })
    }

    fn pop_h1(&self, key: &Key) -> Option<Parked<http1::SendRequest<RequestBody>>> {
        let now = self.clock.instant();
        let mut idle = self.idle();
        loop {
            let parked = idle.h1.get_mut(key)?.pop()?;
            if now.duration_since(parked.since) < IDLE_FOR && !parked.sender.is_closed() {
                return Some(parked);
            }
        }
    }

    /// Keeps an HTTP/2 connection for requests beside the one that it was made for.
    fn park_h2(&self, key: &Key, sender: http2::SendRequest<RequestBody>, streams: Arc<Streams>, peer: Peer) {
        let since = self.clock.instant();
        let Some(share) = self.shares.take(key.agent) else { return };
        let mut idle = self.idle();
        let parked = idle.h2.entry(key.clone()).or_default();
        if parked.len() < H2_PER_KEY {
            parked.push(Parked { sender: (sender, streams), peer, since, _share: share });
        }
    }

    async fn connect(&self, key: Key, alpn: Alpn, reach: &Reach) -> Result<Upstream, Refusal> {
        if !key.https {
            let Opened { stream, address, relay } = self.outward.open_plain(&key.authority, reach).await?;
            let sender = Sender::Http1(handshake_h1(stream).await?);
            let peer = Peer { address, tls: None, relay };
            return Ok(Upstream { key, sender, peer, reused: false, _stream: None });
        }
        let Opened { stream, address, .. } = self.outward.open(&key.authority, reach).await?;
        let handshake = self.outward.tls.connect(key.agent, &key.authority, alpn, stream);
        let verified = match tokio::time::timeout(self.outward.dialer.connect_timeout, handshake).await {
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
        let peer = Peer { address, tls: Some(verified.version()), relay: None };
        let (sender, stream) = if verified.is_h2() {
            let (sender, streams) = handshake_h2(verified).await?;
            let stream = streams.take().ok_or_else(|| timed_out("a place on the connection"))?;
            self.park_h2(&key, sender.clone(), streams, peer.clone());
            (Sender::Http2(sender), Some(stream))
        } else {
            (Sender::Http1(handshake_h1(verified).await?), None)
        };
        Ok(Upstream { key, sender, peer, reused: false, _stream: stream })
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

async fn handshake_h2<S>(stream: S) -> Result<(http2::SendRequest<RequestBody>, Arc<Streams>), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // Until the upstream's settings tell.
        .initial_max_send_streams(1)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| protocol_refusal(&e))?;
    let streams = Arc::new(Streams { open: AtomicUsize::new(0), most: AtomicUsize::new(1) });
    let told = Arc::clone(&streams);
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            told.most.store(connection.current_max_send_streams(), Ordering::Relaxed);
            polled
        });
        if let Err(error) = ended.await {
            tracing::debug!(%error, "an upstream HTTP/2 connection ended");
        }
    });
    Ok((sender, streams))
}

/// The upstream's fault, in its own words.
pub(super) fn protocol_refusal(error: &hyper::Error) -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the upstream broke off or does not speak HTTP: {error}"),
        "try again; if it stays, look at the upstream",
    )
}
