//! The agent side: accepts TLS with a leaf of the daemon's certificate authority.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lru::LruCache;
use onecli_limits::{Buckets, Rate, WhenFull};
use onecli_model::{AgentId, Clock, Host};
use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite};

use super::agent_stream::ServerStream;
use super::authority::{CaError, CertAuthority};
use super::provider;

/// The number of cached leaves. Each is below 4 KiB regardless of the length of its host's name, so all are below 4
/// MiB.
const CACHED_LEAVES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// The certificates that one agent may cause for refused hosts.
const REFUSALS: Rate = Rate::new(16.0, Duration::from_mins(1));
/// The certificates that one agent may cause for hosts that a pattern allows. A pattern allows any number of hosts.
const MINTS: Rate = Rate::new(128.0, Duration::from_mins(1));
/// The number of agents whose certificates are counted.
const AGENTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Accepts TLS from agents.
pub struct AgentTls {
    authority: RwLock<Arc<CertAuthority>>,
    clock: Arc<dyn Clock>,
    tickets: Arc<dyn ProducesTickets>,
    leaves: Mutex<LruCache<Host, CachedLeaf>>,
    /// The names of the explicit proxy if clients use TLS with it, and its leaf.
    proxy_names: Vec<Host>,
    proxy: Mutex<Option<CachedLeaf>>,
    refusals: Buckets<AgentId>,
    mints: Buckets<AgentId>,
}

#[derive(Clone)]
struct CachedLeaf {
    config: Arc<ServerConfig>,
    renew_at: Timestamp,
}

impl fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentTls(..)")
    }
}

impl AgentTls {
    /// Accepts connections with leaves of `authority`.
    ///
    /// # Errors
    /// [`CaError::Load`] if session tickets cannot be set up.
    pub fn new(authority: CertAuthority, clock: Arc<dyn Clock>) -> Result<AgentTls, CaError> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| CaError::Load(e.to_string()))?;
        Ok(AgentTls {
            authority: RwLock::new(Arc::new(authority)),
            clock,
            tickets,
            leaves: Mutex::new(LruCache::new(CACHED_LEAVES)),
            proxy_names: Vec::new(),
            proxy: Mutex::default(),
            refusals: Buckets::new(REFUSALS, AGENTS, WhenFull::Refuse),
            mints: Buckets::new(MINTS, AGENTS, WhenFull::Refuse),
        })
    }

    /// Sets the names of a proxy to which clients connect over TLS.
    #[must_use]
    pub fn with_proxy_names(mut self, names: Vec<Host>) -> AgentTls {
        self.proxy_names = names;
        self
    }

    fn authority(&self) -> Arc<CertAuthority> {
        Arc::clone(&self.authority.read())
    }

    /// Signs leaves with `authority` from now on. Open connections continue.
    pub fn set_authority(&self, authority: CertAuthority) {
        let mut leaves = self.leaves.lock();
        *self.authority.write() = Arc::new(authority);
        leaves.clear();
        *self.proxy.lock() = None;
    }

    /// Terminates the agent's TLS as `host`, with ALPN `h2` and `http/1.1` and without early data.
    ///
    /// # Errors
    /// The handshake's error, or [`CaError`] as [`std::io::Error`].
    pub async fn accept<S>(&self, host: &Host, io: S) -> std::io::Result<ServerStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config(host).map_err(std::io::Error::other)?;
        tokio_rustls::TlsAcceptor::from(config)
            .accept_with(io, |session| session.set_buffer_limit(Some(super::SEND_BUFFER)))
            .await
            .map(ServerStream::new)
    }

    /// Terminates TLS as the proxy that a client connects to, with ALPN `http/1.1`. One certificate has all names of
    /// the proxy, regardless of the name that the client requests. A client that is not yet identified as an agent
    /// cannot cause a new certificate.
    ///
    /// # Errors
    /// As for [`accept`](Self::accept).
    pub async fn accept_for_proxy<S>(&self, io: S) -> std::io::Result<ServerStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.proxy_config().map_err(std::io::Error::other)?;
        tokio_rustls::TlsAcceptor::from(config)
            .accept_with(io, |session| session.set_buffer_limit(Some(super::SEND_BUFFER)))
            .await
            .map(ServerStream::new)
    }

    /// Returns whether this agent may have TLS as `host` to receive the reason of a refusal. If there is no
    /// certificate for the host yet, a new one counts, because a refused host can have any name.
    pub fn may_refuse_readably(&self, agent: AgentId, host: &Host) -> bool {
        let now = self.clock.now();
        self.is_at_hand(host, now) || self.refusals.take(self.clock.instant(), &agent)
    }

    /// Returns whether this agent may have TLS as `host`. If no certificate is cached, a new one counts.
    pub fn may_accept(&self, agent: AgentId, host: &Host) -> bool {
        let now = self.clock.now();
        self.is_at_hand(host, now) || self.mints.take(self.clock.instant(), &agent)
    }

    fn is_at_hand(&self, host: &Host, now: Timestamp) -> bool {
        let leaves = self.leaves.lock();
        leaves.peek(host).is_some_and(|leaf| now < leaf.renew_at)
    }

    fn config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        let now = self.clock.now();
        {
            let mut leaves = self.leaves.lock();
            if let Some(leaf) = leaves.get(host).filter(|leaf| now < leaf.renew_at) {
                return Ok(Arc::clone(&leaf.config));
            }
        }
        let authority = self.authority();
        let made = self.make(&authority, std::slice::from_ref(host), &[b"h2", b"http/1.1"])?;
        let config = Arc::clone(&made.config);
        let mut leaves = self.leaves.lock();
        // A leaf of an authority that was replaced meanwhile is used for this connection only.
        if Arc::ptr_eq(&authority, &self.authority()) {
            leaves.put(host.clone(), made);
        }
        Ok(config)
    }

    fn proxy_config(&self) -> Result<Arc<ServerConfig>, CaError> {
        let now = self.clock.now();
        let kept = self.proxy.lock().clone();
        if let Some(leaf) = kept.filter(|leaf| now < leaf.renew_at) {
            return Ok(leaf.config);
        }
        let authority = self.authority();
        let made = self.make(&authority, &self.proxy_names, &[b"http/1.1"])?;
        let config = Arc::clone(&made.config);
        let mut proxy = self.proxy.lock();
        if Arc::ptr_eq(&authority, &self.authority()) {
            *proxy = Some(made);
        }
        Ok(config)
    }

    /// Creates a leaf and its server configuration.
    fn make(&self, authority: &CertAuthority, hosts: &[Host], alpn: &[&[u8]]) -> Result<CachedLeaf, CaError> {
        let leaf = authority.leaf(hosts, self.clock.now())?;
        let bad = |error: rustls::Error| CaError::Load(error.to_string());
        let provider = provider();
        let key = provider.key_provider.load_private_key(leaf.key).map_err(bad)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(leaf.chain, key))));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // Clients store the tickets. Without this, rustls would also store 256 sessions for each leaf, of TLS 1.2
        // clients without ticket support.
        config.ticketer = Arc::clone(&self.tickets);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Ok(CachedLeaf { config: Arc::new(config), renew_at: leaf.renew_at })
    }
}
