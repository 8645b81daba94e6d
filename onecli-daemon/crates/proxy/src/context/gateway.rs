//! The shared state of the request path, as narrow handles that all connections use.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode, Version, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use onecli_audit::{AuditLog, Quota, Record};
use onecli_model::{AgentId, CgroupName, Clock, Code, Random, RequestId};
use onecli_net::{Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{Approvals, ClientEvidence, Limits, Snapshot};
use onecli_tls::{AgentTls, CertAuthority, UpstreamTls};
use onecli_vault::{Credentials, Vault};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::accept::listener_scheme::ListenerScheme;
use crate::http::body::Body;
use crate::http::body::body_memory::BodyMemory;
use crate::http::body::buffer;
use crate::http::decode;
use crate::http::scrub_values::{ScrubValues, UnexpectedMatches};
use crate::http::upstream::pool::Pool;
use crate::limits::agent_quota::AgentQuota;
use crate::limits::capacity::Capacity;
use crate::limits::connection_slot::UnidentifiedLimiter;
use crate::limits::failures::FailureLimits;
use crate::session::counters::Counters;
use crate::session::policy_watch::until_refused;
use crate::session::recorder::Recorder;
use crate::session::refusals::{Folded, Refusals};
use crate::upstream::connector::{UpstreamConnector, UpstreamProxy};

/// Time limit for aborted requests to end. They wait for no other task.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit from accepting a connection to its first request. When the daemon stops, it waits this long for such
/// requests.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(2);

/// How long the daemon waits for a connected upstream.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamTimeouts {
    /// Time limit for the head of the response, from the last progress in sending the request.
    pub head: Duration,
    /// Time limit for each piece of a response that has begun. A stream as a whole may last longer.
    pub idle: Duration,
}

/// The parts of a gateway.
pub struct GatewayParts {
    /// The policy; a new snapshot takes effect on the next request.
    pub policy: watch::Receiver<Arc<Snapshot>>,
    /// Opens secrets.
    pub vault: Arc<Vault>,
    /// Opens secrets for grants, and requests tokens.
    pub credentials: Arc<Credentials>,
    /// The audit log.
    pub audit: AuditLog,
    /// How many audit records each agent may cause.
    pub audit_quota: Arc<Quota>,
    /// Set if repeated refusals are folded into one record with a count.
    pub fold_refusals: bool,
    /// TLS towards agents.
    pub agent_tls: AgentTls,
    /// TLS towards upstreams.
    pub upstream_tls: UpstreamTls,
    /// Resolves names to checked addresses.
    pub resolver: Arc<Resolver>,
    /// Addresses that represent names.
    pub synthetic: Arc<SyntheticAddresses>,
    /// Connects to the resolved addresses.
    pub dialer: Dialer,
    /// How long the daemon waits for a connected upstream.
    pub timeouts: UpstreamTimeouts,
    /// The proxy to the upstreams, if one is configured.
    pub proxy: Option<UpstreamProxy>,
    /// Addresses of the explicit proxy. A redirected connection to one of them uses proxy HTTP, with or without TLS.
    pub explicit_addresses: Vec<(SocketAddr, ListenerScheme)>,
    /// Limits on what may be open at the same time.
    pub capacity: Capacity,
    /// Requests that wait for operator approval.
    pub approvals: Arc<Approvals>,
    /// How long requests wait for approval.
    pub approval_timeout: Duration,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids.
    pub random: Arc<dyn Random>,
}

/// The request path's shared state.
pub struct Gateway {
    pub(crate) policy: watch::Receiver<Arc<Snapshot>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) credentials: Arc<Credentials>,
    /// The audit log, with the limits on what an agent may write to it.
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) agent_tls: AgentTls,
    pub(crate) pool: Pool,
    /// Addresses that represent names.
    pub(crate) synthetic: Arc<SyntheticAddresses>,
    pub(crate) timeouts: UpstreamTimeouts,
    pub(crate) explicit_addresses: Vec<(SocketAddr, ListenerScheme)>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    /// Connections of agents.
    pub(crate) connections: AgentQuota,
    /// Requests and tunnels of agents; each may use an upstream connection.
    pub(crate) exchanges: AgentQuota,
    /// Body bytes that wait until a peer reads them.
    pub(crate) body_memory: BodyMemory,
    /// Responses that are decoded with a large window.
    pub(crate) decoders: AgentQuota,
    /// Request bodies in memory.
    pub(crate) held_bodies: AgentQuota,
    /// Request bodies that wait, with their request, for approval.
    pub(crate) asked_bodies: AgentQuota,
    /// Connections whose client is not identified yet.
    pub(crate) unidentified: UnidentifiedLimiter,
    pub(crate) failures: FailureLimits,
    /// The counters of limiting rules.
    pub(crate) limits: Limits,
    pub(crate) approvals: Arc<Approvals>,
    pub(crate) approval_timeout: Duration,
    /// The values that responses are searched for.
    pub(crate) scrub_values: Arc<ScrubValues>,
    /// Values that came back in responses although their request did not send them.
    pub(crate) unexpected: UnexpectedMatches,
    pub(crate) counters: Counters,
    /// Cancelled when the daemon accepts no new connections, so that open connections soon close.
    stopping: CancellationToken,
    /// Cancelled when the daemon stops now.
    pub(crate) ending: CancellationToken,
    /// Held by every connection as long as its client may be about to send the first request.
    awaiting_first_request: Arc<()>,
    /// Held by every request and tunnel while it is open.
    pub(crate) open: Arc<()>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway(..)")
    }
}

impl Gateway {
    /// Issues leaf certificates of `authority` to agents from now on.
    pub fn set_authority(&self, authority: CertAuthority) {
        self.agent_tls.set_authority(authority);
    }

    /// Builds a gateway.
    pub fn new(parts: GatewayParts) -> Gateway {
        let capacity = parts.capacity;
        let connector = UpstreamConnector {
            resolver: parts.resolver,
            dialer: parts.dialer,
            tls: Arc::new(parts.upstream_tls),
            proxy: parts.proxy,
        };
        let pool = Pool::new(connector, Arc::clone(&parts.clock), capacity.idle_upstreams);
        let recorder = Recorder {
            policy: parts.policy.clone(),
            audit: parts.audit,
            quota: parts.audit_quota,
            refusals: Refusals::new(parts.fold_refusals),
            clock: Arc::clone(&parts.clock),
        };
        let scrub_values =
            ScrubValues::new(parts.policy.clone(), Arc::clone(&parts.credentials), Arc::clone(&parts.clock));
        Gateway {
            policy: parts.policy,
            vault: parts.vault,
            credentials: parts.credentials,
            recorder: Arc::new(recorder),
            agent_tls: parts.agent_tls,
            pool,
            synthetic: parts.synthetic,
            timeouts: parts.timeouts,
            explicit_addresses: parts.explicit_addresses,
            connections: AgentQuota::new(capacity.connections_per_agent, capacity.connections),
            exchanges: AgentQuota::new(capacity.exchanges_per_agent, capacity.exchanges),
            body_memory: BodyMemory::default(),
            decoders: AgentQuota::new(decode::DECODERS_PER_AGENT, decode::DECODERS),
            held_bodies: AgentQuota::new(buffer::HELD_PER_AGENT, buffer::HELD),
            asked_bodies: AgentQuota::new(buffer::FOR_APPROVAL_PER_AGENT, buffer::FOR_APPROVAL),
            unidentified: UnidentifiedLimiter::new(
                capacity.unidentified_per_source,
                capacity.unidentified,
                capacity.displaced,
            ),
            failures: FailureLimits::new(Arc::clone(&parts.clock)),
            limits: Limits::new(parts.clock.instant()),
            approvals: parts.approvals,
            approval_timeout: parts.approval_timeout,
            clock: parts.clock,
            random: parts.random,
            scrub_values: Arc::new(scrub_values),
            unexpected: UnexpectedMatches::new(),
            counters: Counters::default(),
            stopping: CancellationToken::new(),
            ending: CancellationToken::new(),
            awaiting_first_request: Arc::default(),
            open: Arc::default(),
        }
    }

    /// The current policy.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.policy.borrow())
    }

    /// The agent of a cgroup, even a disabled one.
    pub(crate) fn agent_in(&self, cgroup: Option<&CgroupName>) -> Option<AgentId> {
        self.policy.borrow().agent_of_cgroup(cgroup?).map(|agent| agent.id)
    }

    /// Resolves when the daemon stops, or when a new policy or the end of the session in `evidence` makes `refused`
    /// true. If that is already so, it resolves immediately.
    pub(crate) async fn until_refused(
        &self,
        evidence: &ClientEvidence,
        refused: impl Fn(&Snapshot, Timestamp) -> bool,
    ) {
        tokio::select! {
            () = until_refused(self.policy.clone(), self.clock.as_ref(), evidence, refused) => {}
            () = self.ending.cancelled() => {}
        }
    }

    /// The protocol at `address`, if it is one of the explicit proxy's addresses.
    pub(crate) fn explicit_scheme(&self, address: SocketAddr) -> Option<ListenerScheme> {
        let named = self.explicit_addresses.iter().find(|(own, _)| {
            own.port() == address.port() && (own.ip() == address.ip() || own.ip().is_unspecified())
        });
        named.map(|(_, scheme)| *scheme)
    }

    /// The counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Serves a connection until it ends or the daemon stops.
    pub fn until_end(&self, served: impl Future<Output = ()>) -> impl Future<Output = ()> {
        // The future is large, and callers await it within other futures.
        let served = Box::pin(served);
        let awaiting_first_request = Arc::clone(&self.awaiting_first_request);
        async move {
            let first_request_grace = async move {
                tokio::time::sleep(FIRST_REQUEST_GRACE).await;
                drop(awaiting_first_request);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = served => {}
                () = first_request_grace => {}
                () = self.ending.cancelled() => {}
            }
        }
    }

    /// Completes the head of a response. While the daemon stops, it tells an HTTP/1 client that the connection ends
    /// (RFC 9112 section 9.6), so that the client sends the next request on another one. Over HTTP/2 it adds the date
    /// (RFC 9110 section 6.6.1), which hyper sets over HTTP/1.
    pub(crate) fn finish(&self, version: Version, response: &mut Response<Body>) {
        if version == Version::HTTP_2 {
            response.headers_mut().entry(header::DATE).or_insert_with(|| http_date(self.clock.now()));
        }
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.stopping.is_cancelled() && version <= Version::HTTP_11 && !switches {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Lets open requests and tunnels continue for as long as `grace`, then aborts them. When it returns, the
    /// audit log has the outcome of each. Call it after the daemon has stopped accepting connections; connections
    /// accepted just before still get the time to send their first request.
    pub async fn end(&self, grace: Duration) {
        self.stopping.cancel();
        while Arc::strong_count(&self.awaiting_first_request) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if timeout(grace, self.drained()).await.is_err() {
            tracing::info!(open = Arc::strong_count(&self.open) - 1, "aborting open requests");
            self.ending.cancel();
            if timeout(ABORT_TIMEOUT, self.drained()).await.is_err() {
                tracing::error!("a request did not end: its outcome will be missing from the audit log");
            }
        }
        self.record_folded(self.recorder.refusals.rest(self.clock.instant()));
    }

    fn record_folded(&self, all: Vec<Folded>) {
        for folded in all {
            match RequestId::generate(self.clock.now(), self.random.as_ref()) {
                Ok(id) => {
                    let mut record = Record::new(id);
                    let payer = folded.payer();
                    folded.fill(&mut record);
                    self.recorder.quota.charge(self.clock.instant(), payer, (1, record.line_bytes()));
                    self.recorder.audit.outcome(record);
                }
                Err(error) => tracing::error!(%error, "no request id for repeated refusals"),
            }
        }
    }

    /// The code for a request that ends because the client or the upstream disconnected.
    pub(crate) fn broken_off(&self) -> Code {
        if self.ending.is_cancelled() { Code::Interrupted } else { Code::ClientGone }
    }

    /// The code for a request that [`Gateway::until_refused`] ended.
    pub(crate) fn taken_back(&self) -> Code {
        if self.ending.is_cancelled() { Code::Interrupted } else { Code::Revoked }
    }

    /// Resolves when no request and no tunnel is open.
    async fn drained(&self) {
        while Arc::strong_count(&self.open) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Closes idle upstream connections of revoked grants at each change of policy. Returns when the policy channel
    /// closes.
    pub async fn follow_policy(&self) {
        let mut policy = self.policy.clone();
        while policy.changed().await.is_ok() {
            let snapshot = Arc::clone(&policy.borrow_and_update());
            self.pool.close_revoked(&snapshot);
        }
    }

    /// Number of connections that belong to this agent.
    pub fn connections_of(&self, agent: AgentId) -> usize {
        self.connections.used_by(agent)
    }

    /// Closes upstream connections that have been idle for a while, and records repeated refusals. Call it
    /// periodically.
    pub fn tidy(&self) {
        self.pool.close_idle();
        // Closes a connection whose request ended during a change of policy.
        self.pool.close_revoked(&self.snapshot());
        let now = self.clock.instant();
        self.scrub_values.tidy(now);
        self.record_folded(self.recorder.refusals.due(now));
        self.recorder.quota.tidy(now);
    }
}

/// The current `Date` field (RFC 9110 section 5.6.7).
fn http_date(now: Timestamp) -> HeaderValue {
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok();
    // Only a year beyond 9999 has no date.
    date.and_then(|date| date.try_into().ok())
        .unwrap_or(HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}
