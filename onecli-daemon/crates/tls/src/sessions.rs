//! TLS sessions with upstreams, stored for resumption: those of all agents, under one limit.
//!
//! The upstream, which an agent may have chosen, determines the size of a session. rustls accepts a ticket (or,
//! before TLS 1.3, its equivalent) and a chain of certificates of at most 64 KiB each.
//! [`MOST_CERTIFICATES`](super::client) limits the chain's additional memory. A session is therefore below 136 KiB,
//! the sessions of one agent are below 34 MiB, and all are below 136 MiB. A common session has 3 to 5 KiB.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use onecli_model::AgentId;
use parking_lot::{Mutex, MutexGuard};
use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use super::client::Alpn;

/// The number of pairs of agent and upstream whose sessions are stored.
const UPSTREAMS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// The number of upstreams of one agent. Further ones replace that agent's own, not those of others.
const UPSTREAMS_OF_AGENT: usize = 64;
/// The number of sessions with one upstream, the newest ones. Each TLS 1.3 session is used once (RFC 8446 appendix
/// C.4).
const SESSIONS: usize = 4;

/// The sessions of all agents. Agents never share a session.
pub(super) struct SessionCache(Mutex<LruCache<SessionKey, UpstreamSessions>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SessionKey {
    agent: AgentId,
    alpn: Alpn,
    upstream: ServerName<'static>,
}

#[derive(Default)]
struct UpstreamSessions {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

/// The session store that rustls uses for one agent's configuration.
pub(super) struct AgentSessions {
    pub(super) all: Arc<SessionCache>,
    pub(super) agent: AgentId,
    pub(super) alpn: Alpn,
}

impl SessionCache {
    pub(super) fn new() -> SessionCache {
        SessionCache(Mutex::new(LruCache::new(UPSTREAMS)))
    }

    /// Drops the sessions with an upstream that failed verification.
    pub(super) fn forget(&self, agent: AgentId, alpn: Alpn, upstream: ServerName<'static>) {
        self.lock().pop(&SessionKey { agent, alpn, upstream });
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<SessionKey, UpstreamSessions>> {
        self.0.lock()
    }

    fn change(&self, of: SessionKey, change: impl FnOnce(&mut UpstreamSessions)) {
        let mut all = self.lock();
        if !all.contains(&of) {
            let own = || all.iter().map(|(other, _)| other).filter(|other| other.agent == of.agent);
            // The last entry is the least recently used one.
            let oldest = (own().count() >= UPSTREAMS_OF_AGENT).then(|| own().next_back().cloned()).flatten();
            if let Some(oldest) = oldest {
                all.pop(&oldest);
            }
        }
        change(all.get_or_insert_mut(of, UpstreamSessions::default));
    }
}

impl AgentSessions {
    fn of(&self, upstream: ServerName<'static>) -> SessionKey {
        SessionKey { agent: self.agent, alpn: self.alpn, upstream }
    }
}

impl fmt::Debug for AgentSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentSessions(..)")
    }
}

impl ClientSessionStore for AgentSessions {
    fn set_kx_hint(&self, upstream: ServerName<'static>, group: NamedGroup) {
        self.all.change(self.of(upstream), |sessions| sessions.group = Some(group));
    }

    fn kx_hint(&self, upstream: &ServerName<'_>) -> Option<NamedGroup> {
        self.all.lock().get(&self.of(upstream.to_owned()))?.group
    }

    fn set_tls12_session(&self, upstream: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.all.change(self.of(upstream), |sessions| {
            sessions.tls13.clear();
            sessions.tls12 = Some(session);
        });
    }

    fn tls12_session(&self, upstream: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.all.lock().get(&self.of(upstream.to_owned()))?.tls12.clone()
    }

    fn remove_tls12_session(&self, upstream: &ServerName<'static>) {
        if let Some(sessions) = self.all.lock().get_mut(&self.of(upstream.clone())) {
            sessions.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, upstream: ServerName<'static>, session: Tls13ClientSessionValue) {
        self.all.change(self.of(upstream), |sessions| {
            sessions.tls12 = None;
            if sessions.tls13.len() >= SESSIONS {
                sessions.tls13.pop_front();
            }
            sessions.tls13.push_back(session);
        });
    }

    fn take_tls13_ticket(&self, upstream: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.all.lock().get_mut(&self.of(upstream.clone()))?.tls13.pop_back()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Stores an entry for upstream number `n`.
    fn note(all: &Arc<SessionCache>, agent: u128, n: usize) {
        let own =
            AgentSessions { all: Arc::clone(all), agent: AgentId(Uuid::from_u128(agent)), alpn: Alpn::Any };
        own.set_kx_hint(format!("h{n}.test").try_into().unwrap(), NamedGroup::X25519);
    }

    fn sessions(all: &SessionCache, agent: u128) -> usize {
        all.lock().iter().filter(|(of, _)| of.agent == AgentId(Uuid::from_u128(agent))).count()
    }

    #[test]
    fn sessions_beyond_the_agent_limit_replace_its_own() {
        let all = Arc::new(SessionCache::new());
        note(&all, 1, 0);
        for n in 0..1000 {
            note(&all, 2, n);
        }
        assert_eq!((sessions(&all, 1), sessions(&all, 2)), (1, UPSTREAMS_OF_AGENT));
        let newest = all.lock().iter().next().map(|(of, _)| of.upstream.to_str().into_owned());
        assert_eq!(newest.as_deref(), Some("h999.test"));
        for agent in 3..20 {
            (0..100).for_each(|n| note(&all, agent, n));
        }
        assert_eq!(all.lock().len(), UPSTREAMS.get());
    }
}
