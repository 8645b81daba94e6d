//! The data plane: builds the parts of this crate and starts, maintains and ends them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onecli_audit::{AuditLog, Quota};
use onecli_model::harmless::{TestAnswer, TestRequest};
use onecli_model::{AgentId, Clock, Random, Refusal};
use onecli_net::{ConnectionOrigin, Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{Approvals, Limits as RuleLimits, Snapshot};
use onecli_tls::{AgentTls, CertAuthority, UpstreamTls};
use onecli_vault::{Credentials, Vault};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::accept::Acceptor;
use crate::accept::listener_scheme::ListenerScheme;
use crate::accept::protocol::Protocol;
use crate::accept::router::Router;
use crate::http::context::handles::{BodyLimits, Conditions, Http, Secrets};
use crate::http::exchange::secret_test;
use crate::http::scrub_values::{ScrubValues, UnexpectedMatches};
use crate::http::upstream::pool::Pool;
use crate::limits::capacity::Capacity;
use crate::session::counters::Counters;
use crate::session::limits::Limits;
use crate::session::recorder::Recorder;
use crate::session::refusals::Refusals;
use crate::session::{PolicyView, Services};
use crate::tunnel::Tunnel;
use crate::upstream::connector::{UpstreamConnector, UpstreamProxy};
use crate::upstream::{UpstreamTimeouts, Upstreams};

/// What the data plane is built from.
pub struct DataPlaneParts {
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
    pub upstream_tls: Arc<UpstreamTls>,
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

/// Serves the connections of agents.
#[derive(Debug)]
pub struct DataPlane {
    services: Services,
    acceptor: Acceptor,
    http: Arc<Http>,
}

impl DataPlane {
    /// Builds the data plane.
    pub fn new(parts: DataPlaneParts) -> DataPlane {
        let services = parts.services();
        let http = Arc::new(parts.http(&services));
        // The tunnel is the last, because it takes what no other protocol reads.
        let protocols: Vec<Arc<dyn Protocol>> = vec![Arc::clone(&http) as _, Arc::new(Tunnel)];
        let router = Arc::new(Router::new(protocols, parts.agent_tls));
        http.set_router(&router);
        let acceptor = Acceptor {
            services: services.clone(),
            router,
            synthetic: parts.synthetic,
            explicit_addresses: parts.explicit_addresses,
            clock: parts.clock,
        };
        DataPlane { services, acceptor, http }
    }

    #[cfg(test)]
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Issues leaf certificates of `authority` to agents from now on.
    pub fn set_authority(&self, authority: CertAuthority) {
        self.acceptor.router.agent_tls.set_authority(authority);
    }

    /// Serves one connection to the explicit proxy from outside all managed cgroups, until it ends or the daemon stops.
    pub async fn serve_explicit(&self, stream: TcpStream, peer: SocketAddr, scheme: ListenerScheme) {
        let served = self.acceptor.serve_explicit(stream, peer, scheme);
        self.services.lifecycle.until_aborted(served).await;
    }

    /// Serves one connection that the transparent listener accepted, with the kernel's record of it, until it ends or
    /// the daemon stops.
    pub async fn serve_transparent(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        origin: Option<ConnectionOrigin>,
    ) {
        let served = self.acceptor.serve_transparent(stream, peer, origin);
        self.services.lifecycle.until_aborted(served).await;
    }

    /// Serves a connection of another part of the daemon until it ends or the daemon stops.
    pub async fn until_end(&self, served: impl Future<Output = ()>) {
        self.services.lifecycle.until_aborted(served).await;
    }

    /// Sends a request with a secret that no agent sent. The caller must have checked that root makes the call.
    ///
    /// # Errors
    /// A [`Refusal`]: nothing was sent, or there was no response.
    pub async fn test_secret(&self, test: &TestRequest) -> Result<TestAnswer, Refusal> {
        secret_test::test_secret(&self.http, &self.services, test).await
    }

    /// The counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.services.recorder.counters
    }

    /// Number of connections that belong to this agent.
    pub fn connections_of(&self, agent: AgentId) -> usize {
        self.services.limits.connections_of(agent)
    }

    /// Closes idle upstream connections of revoked grants at each change of policy. Returns when the policy channel
    /// closes.
    pub async fn follow_policy(&self) {
        let mut policy = self.services.policy.subscribe();
        while policy.changed().await.is_ok() {
            let snapshot = Arc::clone(&policy.borrow_and_update());
            self.http.pool.close_revoked(&snapshot);
        }
    }

    /// Closes upstream connections that have been idle for a while, and records repeated refusals. Call it
    /// periodically.
    pub fn tidy(&self) {
        self.http.pool.close_idle();
        // Closes a connection whose request ended during a change of policy.
        self.http.pool.close_revoked(&self.services.policy.snapshot());
        let now = self.services.recorder.clock.instant();
        self.http.secrets.scrub_values.tidy(now);
        self.services.recorder.tidy(now);
    }

    /// Lets open requests and tunnels continue for as long as `grace`, then aborts them. When it returns, the
    /// audit log has the outcome of each. Call it after the daemon has stopped accepting connections; connections
    /// accepted just before still get the time to send their first request.
    pub async fn end(&self, grace: Duration) {
        self.services.lifecycle.end(grace).await;
        self.services.recorder.finish();
    }
}

/// The parts that several handles share are cloned; the others move into [`DataPlane::new`].
impl DataPlaneParts {
    fn services(&self) -> Services {
        let policy = PolicyView::new(self.policy.clone(), Arc::clone(&self.clock));
        Services {
            limits: Arc::new(Limits::new(&self.capacity, Arc::clone(&self.clock))),
            recorder: Arc::new(Recorder {
                policy: policy.clone(),
                audit: self.audit.clone(),
                quota: Arc::clone(&self.audit_quota),
                refusals: Refusals::new(self.fold_refusals),
                counters: Counters::default(),
                clock: Arc::clone(&self.clock),
                random: Arc::clone(&self.random),
            }),
            upstreams: Arc::new(Upstreams {
                connector: Arc::new(UpstreamConnector {
                    resolver: Arc::clone(&self.resolver),
                    dialer: self.dialer,
                    tls: Arc::clone(&self.upstream_tls),
                    proxy: self.proxy.clone(),
                }),
                timeouts: self.timeouts,
            }),
            lifecycle: Arc::default(),
            policy,
        }
    }

    fn http(&self, services: &Services) -> Http {
        let clock = Arc::clone(&self.clock);
        let connector = Arc::clone(&services.upstreams.connector);
        let scrub_values =
            ScrubValues::new(self.policy.clone(), Arc::clone(&self.credentials), Arc::clone(&clock));
        Http {
            router: OnceLock::new(),
            pool: Pool::new(connector, Arc::clone(&clock), self.capacity.idle_upstreams),
            secrets: Secrets {
                vault: Arc::clone(&self.vault),
                credentials: Arc::clone(&self.credentials),
                scrub_values: Arc::new(scrub_values),
                unexpected: UnexpectedMatches::new(),
            },
            conditions: Conditions {
                limits: RuleLimits::new(clock.instant()),
                approvals: Arc::clone(&self.approvals),
                approval_timeout: self.approval_timeout,
            },
            bodies: BodyLimits::default(),
            random: Arc::clone(&self.random),
            clock,
        }
    }
}
