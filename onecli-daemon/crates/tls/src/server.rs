//! The agents' side: TLS accepted with a leaf of our authority.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use onecli_model::{AgentId, Clock, Host};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite};

use super::agent_stream::ServerStream;
use super::authority::{CaError, CertAuthority};
use super::provider;

/// Leaves kept ready. Each is below 4 KiB however long its host's name is, so all are below 4 MiB.
const CACHED_LEAVES: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Certificates that one agent may have made for hosts it is refused, in each window.
const REFUSAL_BUDGET: u32 = 16;
/// Certificates that one agent may have made for hosts that a pattern allows it, in each window: a pattern allows any
/// number.
const MINT_BUDGET: u32 = 128;
/// That window.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
/// Agents whose budget is remembered; those whose window is over are forgotten.
const BUDGETS: usize = 4096;

/// Accepts TLS from agents.
pub struct AgentTls {
    authority: RwLock<Arc<CertAuthority>>,
    clock: Arc<dyn Clock>,
    tickets: Arc<dyn ProducesTickets>,
    leaves: Mutex<LruCache<Host, CachedLeaf>>,
    /// What the explicit proxy is called where it is spoken to over TLS, and its leaf.
    proxy_names: Vec<Host>,
    proxy: Mutex<Option<CachedLeaf>>,
    refusals: Budgets,
    mints: Budgets,
}

#[derive(Clone)]
struct CachedLeaf {
    config: Arc<ServerConfig>,
    renew_at: Timestamp,
}

/// So many of something for each agent in each window.
#[derive(Default)]
struct Budgets(Mutex<HashMap<AgentId, Budget>>);

struct Budget {
    window: Timestamp,
    used: u32,
}

impl Budgets {
    /// Is one of `most` left for the agent? It is used then.
    fn take(&self, agent: AgentId, most: u32, now: Timestamp) -> bool {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() >= BUDGETS && !budgets.contains_key(&agent) {
            budgets.retain(|_, budget| now.duration_since(budget.window) < WINDOW);
            if budgets.len() >= BUDGETS {
                return false;
            }
        }
        let budget = budgets.entry(agent).or_insert(Budget { window: now, used: 0 });
        if now.duration_since(budget.window) >= WINDOW {
            *budget = Budget { window: now, used: 0 };
        }
        budget.used = budget.used.saturating_add(1);
        budget.used <= most
    }
}

impl fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentTls(..)")
    }
}

impl AgentTls {
    /// Accepts with leaves of `authority`.
    ///
    /// # Errors
    /// [`CaError::Load`] where session tickets cannot be set up.
    pub fn new(authority: CertAuthority, clock: Arc<dyn Clock>) -> Result<AgentTls, CaError> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| CaError::Load(e.to_string()))?;
        Ok(AgentTls {
            authority: RwLock::new(Arc::new(authority)),
            clock,
            tickets,
            leaves: Mutex::new(LruCache::new(CACHED_LEAVES)),
            proxy_names: Vec::new(),
            proxy: Mutex::default(),
            refusals: Budgets::default(),
            mints: Budgets::default(),
        })
    }

    /// The same for a proxy that clients speak TLS to, under any of these names.
    #[must_use]
    pub fn with_proxy_names(mut self, names: Vec<Host>) -> AgentTls {
        self.proxy_names = names;
        self
    }

    fn authority(&self) -> Arc<CertAuthority> {
        Arc::clone(&self.authority.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on leaves are signed by `authority`. Connections that are open stay.
    pub fn set_authority(&self, authority: CertAuthority) {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authority);
        leaves.clear();
        *self.proxy.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Ends the agent's TLS as `host`; ALPN `h2` and `http/1.1`, no early data.
    ///
    /// # Errors
    /// The handshake's, or [`CaError`] as [`std::io::Error`].
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

    /// Ends TLS as the proxy that a client speaks to; ALPN `http/1.1`. One certificate has all of its names, whichever the
    /// client asks for: who is no agent yet has none made.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
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

    /// May this agent have TLS as `host` to learn that it is refused? If there is no certificate for the host yet, making one
    /// counts: a refused host can be any.
    pub fn may_refuse_readably(&self, agent: AgentId, host: &Host) -> bool {
        let now = self.clock.now();
        self.is_at_hand(host, now) || self.refusals.take(agent, REFUSAL_BUDGET, now)
    }

    /// May this agent have TLS as `host`? Where its certificate is not at hand, making one counts.
    pub fn may_accept(&self, agent: AgentId, host: &Host) -> bool {
        let now = self.clock.now();
        self.is_at_hand(host, now) || self.mints.take(agent, MINT_BUDGET, now)
    }

    fn is_at_hand(&self, host: &Host, now: Timestamp) -> bool {
        let leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.peek(host).is_some_and(|leaf| now < leaf.renew_at)
    }

    fn config(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        let now = self.clock.now();
        {
            let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(leaf) = leaves.get(host).filter(|leaf| now < leaf.renew_at) {
                return Ok(Arc::clone(&leaf.config));
            }
        }
        let authority = self.authority();
        let made = self.make(&authority, std::slice::from_ref(host), &[b"h2", b"http/1.1"])?;
        let config = Arc::clone(&made.config);
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        // Signed by one that signs no more: good for this connection, and for no other.
        if Arc::ptr_eq(&authority, &self.authority()) {
            leaves.put(host.clone(), made);
        }
        Ok(config)
    }

    fn proxy_config(&self) -> Result<Arc<ServerConfig>, CaError> {
        let now = self.clock.now();
        let kept = self.proxy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(leaf) = kept.filter(|leaf| now < leaf.renew_at) {
            return Ok(leaf.config);
        }
        let authority = self.authority();
        let made = self.make(&authority, &self.proxy_names, &[b"http/1.1"])?;
        let config = Arc::clone(&made.config);
        let mut proxy = self.proxy.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&authority, &self.authority()) {
            *proxy = Some(made);
        }
        Ok(config)
    }

    /// A new leaf, and what serves it.
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
        // Tickets are kept by who gets them. rustls would keep 256 sessions for each leaf besides, of clients of TLS 1.2 that
        // take no tickets.
        config.ticketer = Arc::clone(&self.tickets);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Ok(CachedLeaf { config: Arc::new(config), renew_at: leaf.renew_at })
    }
}
