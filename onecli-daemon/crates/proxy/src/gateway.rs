//! What the request path works with: narrow handles, shared by all connections.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode, Version, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use onecli_audit::{AuditLog, Quota, Record};
use onecli_model::{AgentId, CgroupName, Clock, Code, Host, Random, RequestId};
use onecli_net::{Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{Approvals, Evidence, Limits, Snapshot};
use onecli_tls::{AgentTls, CertAuthority, UpstreamTls};
use onecli_vault::{Credentials, Vault};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body::Body;
use super::body_memory::BodyMemory;
use super::buffer;
use super::capacity::Capacity;
use super::decode;
use super::explicit::Wire;
use super::hold;
use super::limits::FailureLimits;
use super::outward::{Outward, UpstreamProxy};
use super::place::Strangers;
use super::pool::Pool;
use super::refusals::{Folded, Refusals};
use super::returned::UnexpectedMatches;
use super::revoked;
use super::scrub_values::{ScrubValues, SearchSet};
use super::shares::Shares;

/// How long requests that are broken off may take to be gone. They do not wait for anybody.
const BREAKING_OFF: Duration = Duration::from_secs(5);

/// How long a connection may take from being accepted to its first request, and be waited for when the daemon stops.
const YOUTH: Duration = Duration::from_secs(2);

/// How long an upstream that is connected is waited for.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamPatience {
    /// For the head of its answer, from the last that it took of the request.
    pub head: Duration,
    /// For each piece of an answer that has begun: a stream as a whole may live long.
    pub idle: Duration,
}

/// What a gateway is made of.
pub struct GatewayParts {
    /// The policy; a new snapshot takes effect on the next request.
    pub policy: watch::Receiver<Arc<Snapshot>>,
    /// Opens secrets.
    pub vault: Arc<Vault>,
    /// Opens what is granted, and buys tokens.
    pub credentials: Arc<Credentials>,
    /// Records everything.
    pub audit: AuditLog,
    /// How much of the record each agent may cause.
    pub audit_quota: Arc<Quota>,
    /// Are refusals that repeat one record with a count?
    pub fold_refusals: bool,
    /// TLS towards agents.
    pub agent_tls: AgentTls,
    /// TLS towards upstreams.
    pub upstream_tls: UpstreamTls,
    /// Names to checked addresses.
    pub resolver: Arc<Resolver>,
    /// Addresses that stand for names.
    pub synthetic: Arc<SyntheticAddresses>,
    /// Connects to them.
    pub dialer: Dialer,
    /// How long they are waited for then.
    pub patience: UpstreamPatience,
    /// The proxy that upstreams are reached through, where there is one.
    pub proxy: Option<UpstreamProxy>,
    /// Addresses of the explicit proxy: a redirected connection to one of them speaks proxy HTTP, over TLS or not.
    pub explicit_addresses: Vec<(SocketAddr, Wire)>,
    /// How much may be open at a time.
    pub capacity: Capacity,
    /// Requests that wait for a person.
    pub approvals: Arc<Approvals>,
    /// How long they wait.
    pub approval_timeout: Duration,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids.
    pub random: Arc<dyn Random>,
}

/// The request path's shared state.
pub struct Gateway {
    pub(super) policy: watch::Receiver<Arc<Snapshot>>,
    pub(super) vault: Arc<Vault>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) audit: AuditLog,
    /// What each agent may cause to be recorded.
    pub(super) quota: Arc<Quota>,
    /// Refusals that repeat.
    pub(super) refusals: Refusals,
    pub(super) agent_tls: AgentTls,
    pub(super) pool: Pool,
    /// Addresses that stand for names.
    pub(super) synthetic: Arc<SyntheticAddresses>,
    pub(super) patience: UpstreamPatience,
    pub(super) explicit_addresses: Vec<(SocketAddr, Wire)>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    /// Connections of agents.
    pub(super) connections: Shares,
    /// Requests and tunnels of agents; each may hold an upstream connection.
    pub(super) exchanges: Shares,
    /// Body bytes that wait to be taken.
    pub(super) body_memory: BodyMemory,
    /// Answers that are decoded in a large window.
    pub(super) decoders: Shares,
    /// Request bodies held in memory.
    pub(super) held_bodies: Shares,
    /// Those that wait with their request for a person.
    pub(super) asked_bodies: Shares,
    /// Connections of nobody known, so far.
    pub(super) strangers: Strangers,
    pub(super) failures: FailureLimits,
    /// The counts of rules that limit.
    pub(super) limits: Limits,
    pub(super) approvals: Arc<Approvals>,
    pub(super) approval_timeout: Duration,
    /// The values that responses are searched for.
    pub(super) scrub_values: ScrubValues,
    /// Those that came back unasked.
    pub(super) unexpected: UnexpectedMatches,
    pub(super) counters: Counters,
    /// The daemon takes no new connections: those that are open are not to be used for long.
    stopping: CancellationToken,
    /// The daemon stops now.
    pub(super) ending: CancellationToken,
    /// Held by every connection for as long as its client may be about to send the first request.
    young: Arc<()>,
    /// Held by every request and tunnel while it is open.
    pub(super) open: Arc<()>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway(..)")
    }
}

impl Gateway {
    /// From now on agents get leaves of `authority`.
    pub fn set_authority(&self, authority: CertAuthority) {
        self.agent_tls.set_authority(authority);
    }

    /// Puts the parts together.
    pub fn new(parts: GatewayParts) -> Gateway {
        let capacity = parts.capacity;
        let outward = Outward {
            resolver: parts.resolver,
            dialer: parts.dialer,
            tls: Arc::new(parts.upstream_tls),
            proxy: parts.proxy,
        };
        let pool = Pool::new(outward, Arc::clone(&parts.clock), capacity.idle_upstreams);
        Gateway {
            policy: parts.policy,
            vault: parts.vault,
            credentials: parts.credentials,
            audit: parts.audit,
            quota: parts.audit_quota,
            refusals: Refusals::new(parts.fold_refusals),
            agent_tls: parts.agent_tls,
            pool,
            synthetic: parts.synthetic,
            patience: parts.patience,
            explicit_addresses: parts.explicit_addresses,
            connections: Shares::new(capacity.connections_per_agent, capacity.connections),
            exchanges: Shares::new(capacity.exchanges_per_agent, capacity.exchanges),
            body_memory: BodyMemory::default(),
            decoders: Shares::new(decode::DECODERS_PER_AGENT, decode::DECODERS),
            held_bodies: Shares::new(buffer::HELD_PER_AGENT, buffer::HELD),
            asked_bodies: Shares::new(hold::HELD_PER_AGENT, hold::HELD),
            strangers: Strangers::new(capacity.strangers_per_source, capacity.strangers, capacity.displaced),
            failures: FailureLimits::new(Arc::clone(&parts.clock)),
            limits: Limits::new(parts.clock.instant()),
            approvals: parts.approvals,
            approval_timeout: parts.approval_timeout,
            clock: parts.clock,
            random: parts.random,
            scrub_values: ScrubValues::new(),
            unexpected: UnexpectedMatches::new(),
            counters: Counters::default(),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
            young: Arc::default(),
            open: Arc::default(),
        }
    }

    /// The policy as it is now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.policy.borrow())
    }

    /// The agent of a cgroup, also a disabled one.
    pub(super) fn agent_in(&self, cgroup: Option<&CgroupName>) -> Option<AgentId> {
        self.policy.borrow().agent_of_cgroup(cgroup?).map(|agent| agent.id)
    }

    /// What responses of `host` are searched for under the policy as it is now.
    pub(super) fn searched(&self, host: &Host) -> Arc<SearchSet> {
        self.searched_under(&self.snapshot(), host)
    }

    /// The same under this policy, the newest one.
    pub(super) fn searched_under(&self, policy: &Arc<Snapshot>, host: &Host) -> Arc<SearchSet> {
        self.scrub_values.at(policy, host, &self.credentials, self.clock.instant())
    }

    /// Resolves when a new policy, or the end of the session in `evidence`, makes `refused` true, or when the daemon
    /// stops. Immediately, if it is so by now.
    pub(super) async fn until_refused(
        &self,
        evidence: &Evidence,
        refused: impl Fn(&Snapshot, Timestamp) -> bool,
    ) {
        tokio::select! {
            () = revoked::until_refused(self.policy.clone(), self.clock.as_ref(), evidence, refused) => {}
            () = self.ending.cancelled() => {}
        }
    }

    /// What is spoken there, where this is one of the explicit proxy's addresses.
    pub(super) fn explicit_wire(&self, address: SocketAddr) -> Option<Wire> {
        let named = self.explicit_addresses.iter().find(|(own, _)| {
            own.port() == address.port() && (own.ip() == address.ip() || own.ip().is_unspecified())
        });
        named.map(|(_, wire)| *wire)
    }

    /// Counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a connection until it ends or the daemon stops.
    pub fn until_end(&self, served: impl Future<Output = ()>) -> impl Future<Output = ()> {
        // It is large, and callers await it from inside of others.
        let served = Box::pin(served);
        let young = Arc::clone(&self.young);
        async move {
            let grow_up = async move {
                tokio::time::sleep(YOUTH).await;
                drop(young);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = served => {}
                () = grow_up => {}
                () = self.ending.cancelled() => {}
            }
        }
    }

    /// Completes the head of a response. While the daemon stops, a client of HTTP/1 learns that the connection ends (RFC 9112
    /// section 9.6), so that it sends the next request on another one. Over HTTP/2 the response gets a date (RFC 9110
    /// section 6.6.1), which hyper sets over HTTP/1.
    pub(super) fn finish(&self, version: Version, response: &mut Response<Body>) {
        if version == Version::HTTP_2 {
            response.headers_mut().entry(header::DATE).or_insert_with(|| http_date(self.clock.now()));
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.stopping.is_cancelled() && version <= Version::HTTP_11 && !switches {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Lets open requests and tunnels go on for as long as `patience`, then breaks them off. When it returns, the outcome
    /// of each is with the audit log. Call it when no connection is accepted any more: those accepted just before get the
    /// time to send their first request.
    pub async fn end(&self, patience: Duration) {
        self.stopping.cancel();
        while Arc::strong_count(&self.young) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if timeout(patience, self.drained()).await.is_err() {
            tracing::info!(open = Arc::strong_count(&self.open) - 1, "requests are broken off");
            self.ending.cancel();
            if timeout(BREAKING_OFF, self.drained()).await.is_err() {
                tracing::error!("a request did not end: its outcome will be missing from the audit log");
            }
        }
        self.record_folded(self.refusals.rest(self.clock.instant()));
    }

    fn record_folded(&self, all: Vec<Folded>) {
        for folded in all {
            match RequestId::generate(self.clock.now(), self.random.as_ref()) {
                Ok(id) => {
                    let mut record = Record::new(id);
                    let payer = folded.payer();
                    folded.fill(&mut record);
                    self.quota.charge(self.clock.instant(), payer, (1, record.line_bytes()));
                    self.audit.outcome(record);
                }
                Err(error) => tracing::error!(%error, "refusals that repeat have no request id"),
            }
        }
    }

    /// Why a request ends that nobody ended: one of the two sides of it went away.
    pub(super) fn broken_off(&self) -> Code {
        if self.ending.is_cancelled() { Code::Interrupted } else { Code::ClientGone }
    }

    /// Why a request ends that [`Gateway::until_refused`] ended.
    pub(super) fn taken_back(&self) -> Code {
        if self.ending.is_cancelled() { Code::Interrupted } else { Code::Revoked }
    }

    /// Resolves when no request and no tunnel is open.
    async fn drained(&self) {
        while Arc::strong_count(&self.open) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Closes idle upstream connections of revoked grants, at each change of policy. Returns when policy ends.
    pub async fn follow_policy(&self) {
        let mut policy = self.policy.clone();
        while policy.changed().await.is_ok() {
            let snapshot = Arc::clone(&policy.borrow_and_update());
            self.pool.close_revoked(&snapshot);
        }
    }

    /// Connections of clients that are known to be this agent's.
    pub fn connections_of(&self, agent: AgentId) -> usize {
        self.connections.taken_by(agent)
    }

    /// Closes upstream connections that nobody used for a while, and records refusals that repeated. Call it now and
    /// then.
    pub fn tidy(&self) {
        self.pool.close_idle();
        // A connection whose request ended during a change of policy.
        self.pool.close_revoked(&self.snapshot());
        let now = self.clock.instant();
        self.scrub_values.tidy(now);
        self.record_folded(self.refusals.due(now));
        self.quota.tidy(now);
    }
}

/// The `Date` field of this moment (RFC 9110 section 5.6.7).
fn http_date(now: Timestamp) -> HeaderValue {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok();
    // Only a year beyond 9999 has no date.
    date.and_then(|date| date.try_into().ok())
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the start, for `onecli status`.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(super) $name: AtomicU64,)*
        }

        impl Counters {
            /// Every counter with its name.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections,
    /// Requests that were forwarded with a credential.
    requests_injected,
    /// Requests that were forwarded without one.
    requests_forwarded,
    /// Requests and connections that were refused.
    requests_denied,
    /// Connections that were passed through.
    tunnels,
    /// Values that were scrubbed out of answers.
    scrub_hits,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
