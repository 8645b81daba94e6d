//! Processing of one query of one agent, from request bytes to answer bytes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use onecli_audit::{AuditLog, ConnectionMode, Quota, Record, Repeated, Text};
use onecli_model::{Clock, Code, Egress, Factors, Host, Random, RequestId};
use onecli_net::SyntheticAddresses;
use onecli_policy::{Identity, Snapshot};
use tokio::sync::watch;

use super::denied::{self, UnconnectedQuery, is_explained};
use super::lookup::{Addresses, HostLookup, LookupError};
use super::message::{Kind, Question, QuestionError, Transport};
use super::name_budget::NameState;
use super::server::DnsClient;

/// The maximum TTL of an answer, in seconds, so that changes by an operator take effect soon.
const MAX_TTL: u32 = 60;
/// The time limit of a lookup. Clients retry after five seconds (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_secs(5);
/// The time limit for a name that the upstream proxy can resolve if this host's servers do not.
const PROXIED_PATIENCE: Duration = Duration::from_secs(1);
/// The port of DNS, for audit records.
const PORT: u16 = 53;

/// The parts that the resolver uses.
pub struct QueryHandler {
    /// The policy; a new snapshot decides the next query.
    pub policy: watch::Receiver<Arc<Snapshot>>,
    /// The source of addresses.
    pub lookup: Arc<dyn HostLookup>,
    /// Addresses that represent names.
    pub synthetic: Arc<SyntheticAddresses>,
    /// The audit log, for refusals.
    pub audit: AuditLog,
    /// The quota of each agent's records.
    pub quota: Arc<Quota>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness, for request ids.
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for QueryHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryHandler").field("lookup", &self.lookup).finish_non_exhaustive()
    }
}

/// The treatment of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameDecision {
    /// Answer with this host's loopback.
    Loopback,
    /// Look it up.
    Resolve,
    /// A name of the agent with a search domain appended.
    Searched,
    /// Refuse it: this agent may not resolve it.
    Refuse,
}

/// Returns whether the name is this host's loopback (RFC 6761 section 6.3).
fn is_loopback(host: &Host) -> bool {
    host.as_name().is_some_and(|name| name == "localhost" || name.ends_with(".localhost"))
}

/// Judges a name by the policy.
pub(super) fn decide(snapshot: &Snapshot, identity: &Identity, host: &Host) -> NameDecision {
    let name = host.as_name().unwrap_or_default();
    if is_loopback(host) {
        return NameDecision::Loopback;
    }
    if snapshot.may_resolve(identity, host) {
        return NameDecision::Resolve;
    }
    let mut rest = name;
    while let Some((shorter, _)) = rest.rsplit_once('.') {
        rest = shorter;
        let known = |host: &Host| rest == "localhost" || snapshot.may_resolve(identity, host);
        if rest.parse().is_ok_and(|host: Host| known(&host)) {
            return NameDecision::Searched;
        }
    }
    NameDecision::Refuse
}

impl QueryHandler {
    /// Returns the answer to a message; `None` if it gets none.
    pub(super) async fn answer(
        &self,
        client: &DnsClient,
        message: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let question = match Question::read(message) {
            Ok(question) => question,
            Err(QuestionError::Ignore) => return None,
            Err(QuestionError::Answer(answer)) => return Some(answer),
        };
        let (code, addresses) = self.resolve(client, &question).await;
        question.answer(code, &addresses.list, addresses.ttl.min(MAX_TTL), transport)
    }

    async fn resolve(&self, client: &DnsClient, question: &Question) -> (ResponseCode, Addresses) {
        let snapshot = Arc::clone(&self.policy.borrow());
        let identity = match snapshot.identify(&client.evidence, self.clock.now()) {
            Ok(identity) if identity.agent().id == client.agent => identity,
            Ok(_) => return (self.refuse(client, None, question, Code::AgentUnknown).await, nothing()),
            Err(refusal) => return self.answer_disabled(client, question, refusal.code).await,
        };
        let Some(host) = question.host() else {
            return (self.refuse(client, Some(&identity), question, Code::EgressDenied).await, nothing());
        };
        match decide(&snapshot, &identity, &host) {
            NameDecision::Loopback => (ResponseCode::NoError, loopback()),
            NameDecision::Searched => (ResponseCode::NXDomain, nothing()),
            NameDecision::Refuse => {
                self.deny(client, Some(&identity), (question, &host), Code::EgressDenied).await
            }
            // Other types are answered without a query to a name server, so no data leaves in such names.
            NameDecision::Resolve if question.kind() == Kind::Other => (ResponseCode::NoError, nothing()),
            NameDecision::Resolve
                if !snapshot.is_written(&identity, &host)
                    && let Err(refused) = self.charge_name(client, &identity, question, &host).await =>
            {
                (refused, nothing())
            }
            NameDecision::Resolve => self.look_up(client, question, &host).await,
        }
    }

    /// Looks up the addresses of a name. A name that only the upstream proxy can resolve gets a synthetic address:
    /// connections to it go to the proxy with the name.
    async fn look_up(
        &self,
        client: &DnsClient,
        question: &Question,
        host: &Host,
    ) -> (ResponseCode, Addresses) {
        let is_proxied = self.synthetic.is_enabled() && self.lookup.is_proxied(host);
        let patience = if is_proxied { PROXIED_PATIENCE } else { PATIENCE };
        let found = tokio::time::timeout(patience, self.lookup.addresses(host)).await;
        match found {
            Ok(Ok(addresses)) if !(is_proxied && addresses.list.is_empty()) => {
                (ResponseCode::NoError, addresses)
            }
            _ if is_proxied && question.kind() == Kind::Ipv4 => {
                (ResponseCode::NoError, self.synthetic_address(client, host))
            }
            Ok(Ok(_)) => (ResponseCode::NoError, nothing()),
            _ if is_proxied => (ResponseCode::NoError, nothing()),
            Ok(Err(LookupError::NoSuchName)) => (ResponseCode::NXDomain, nothing()),
            Ok(Err(LookupError::Unavailable)) | Err(_) => (ResponseCode::ServFail, nothing()),
        }
    }

    /// Answers an agent that is refused everything, for the reason in `code`.
    async fn answer_disabled(
        &self,
        client: &DnsClient,
        question: &Question,
        code: Code,
    ) -> (ResponseCode, Addresses) {
        match question.host() {
            Some(host) if code == Code::AgentDisabled && is_loopback(&host) => {
                (ResponseCode::NoError, loopback())
            }
            Some(host) if code == Code::AgentDisabled => {
                self.deny(client, None, (question, &host), code).await
            }
            _ => (self.refuse(client, None, question, code).await, nothing()),
        }
    }

    /// Denies a name. If programs may connect to it, they get an address at which the daemon returns the reason. The
    /// record of the connection then also covers the query. No other name server is queried.
    async fn deny(
        &self,
        client: &DnsClient,
        identity: Option<&Identity>,
        (question, host): (&Question, &Host),
        code: Code,
    ) -> (ResponseCode, Addresses) {
        if !self.synthetic.is_enabled() || !is_explained(host) {
            return (self.refuse(client, identity, question, code).await, nothing());
        }
        let now = self.clock.instant();
        let waits = client.pending.lock().note(now, host, code);
        if !waits {
            client.refusals.lock().note_other(now);
        }
        match question.kind() {
            Kind::Ipv4 => (ResponseCode::NoError, self.synthetic_address(client, host)),
            // Not REFUSED, which ends the lookup of both families in some programs.
            Kind::Ipv6 => (ResponseCode::NoError, nothing()),
            Kind::Other => (ResponseCode::Refused, nothing()),
        }
    }

    /// Returns the address that represents a name.
    fn synthetic_address(&self, client: &DnsClient, host: &Host) -> Addresses {
        let address = self.synthetic.assign(client.agent, host);
        Addresses { list: address.map(IpAddr::from).into_iter().collect(), ttl: denied::TTL }
    }

    /// Permits the lookup of a name that no operator configured. The lookup sends the name to the operator of its
    /// domain. The name is therefore recorded before any server is queried, and the number of such names is limited.
    /// The lock serializes them, so that no server receives a name whose record is not yet written.
    ///
    /// The number is not limited for an agent with `egress allow`, which may send any data anyway.
    async fn charge_name(
        &self,
        client: &DnsClient,
        identity: &Identity,
        question: &Question,
        host: &Host,
    ) -> Result<(), ResponseCode> {
        let bounded = identity.agent().egress != Egress::Allow;
        let mut name_budget = tokio::time::timeout(PATIENCE, client.name_budget.lock())
            .await
            .map_err(|_| ResponseCode::ServFail)?;
        let now = self.clock.instant();
        match name_budget.state_of(now, host) {
            NameState::Known => return Ok(()),
            NameState::TooMany if bounded => {
                drop(name_budget);
                return Err(self.refuse(client, Some(identity), question, Code::LimitReached).await);
            }
            NameState::New | NameState::TooMany => {}
        }
        let name = host.as_name().unwrap_or_default();
        let mut record = self.record(client, Some(name)).ok_or(ResponseCode::ServFail)?;
        record.factors = Some(identity.proven());
        record.forward();
        if !self.may_write(client, now, &record) {
            drop(name_budget);
            return Err(self.refuse(client, Some(identity), question, Code::AuditQuota).await);
        }
        if let Err(error) = self.audit.decision(record).await {
            tracing::error!(%error, "a name is not looked up: its query is missing from the audit log");
            return Err(ResponseCode::ServFail);
        }
        name_budget.note(now, host.clone());
        Ok(())
    }

    /// Records a refusal unless an equal one was recorded recently. The record is in the log before the agent
    /// receives the answer.
    async fn refuse(
        &self,
        client: &DnsClient,
        identity: Option<&Identity>,
        question: &Question,
        code: Code,
    ) -> ResponseCode {
        let name = question.host().map_or_else(|| question.shown(), |host| host.to_string());
        let now = self.clock.instant();
        let key = (name, code);
        let mut record = None;
        let first = client.refusals.lock().note_if(now, &key, || {
            record = self.refusal(client, &key, identity.map(Identity::proven));
            record.as_ref().is_none_or(|record| self.may_write(client, now, record))
        });
        if first && let Some(record) = record {
            // The query is refused in any case. The log itself reports records that it could not write.
            if let Err(error) = self.audit.decision(record).await {
                tracing::error!(%error, "a refused DNS query is missing from the audit log");
            }
        }
        ResponseCode::Refused
    }

    /// Charges one more record to the agent, unless its quota of the audit log is used up.
    fn may_write(&self, client: &DnsClient, now: Instant, record: &Record) -> bool {
        let scarce = self.audit.space_is_scarce();
        self.quota.take(now, client.agent, (1, record.line_bytes()), scarce).is_ok()
    }

    /// Records folded refusals, and queries without a connection that have waited long enough.
    pub(super) fn report(&self, client: &DnsClient) {
        let now = self.clock.instant();
        let was_connected = |name: &Host, since| self.synthetic.was_connected(client.agent, name, since);
        let mut pending = client.pending.lock();
        let unconnected = pending.due(now, was_connected);
        drop(pending);
        self.record_unconnected(client, now, unconnected);
        let due = client.refusals.lock().due(now);
        self.write(client, due);
    }

    /// Records queries without a connection, as refusals that may repeat.
    fn record_unconnected(&self, client: &DnsClient, now: Instant, unconnected: Vec<UnconnectedQuery>) {
        for UnconnectedQuery { name, code, count } in unconnected {
            let key = (name.to_string(), code);
            let mut record = None;
            let mut refusals = client.refusals.lock();
            let is_first = refusals.note_if(now, &key, || {
                record = self.refusal(client, &key, (code != Code::AgentDisabled).then_some(Factors::CGROUP));
                record.as_ref().is_none_or(|record| self.may_write(client, now, record))
            });
            refusals.add(&key, count.saturating_sub(1));
            drop(refusals);
            if let Some(record) = record.filter(|_| is_first) {
                self.audit.outcome(record);
            }
        }
    }

    /// Builds the record of a refusal.
    fn refusal(
        &self,
        client: &DnsClient,
        (name, code): &(String, Code),
        factors: Option<Factors>,
    ) -> Option<Record> {
        let mut record = self.record(client, Some(name))?;
        record.deny(*code);
        record.factors = factors;
        Some(record)
    }

    /// Records all queries that no connection has followed so far.
    pub(super) fn report_unconnected(&self, client: &DnsClient) {
        let was_connected = |name: &Host, since| self.synthetic.was_connected(client.agent, name, since);
        let unconnected = client.pending.lock().rest(was_connected);
        self.record_unconnected(client, self.clock.instant(), unconnected);
    }

    /// Records all pending refusals, because the agent is no longer served.
    pub(super) fn report_rest(&self, client: &DnsClient) {
        self.report_unconnected(client);
        let now = self.clock.instant();
        let rest = client.refusals.lock().rest(now);
        self.write(client, rest);
    }

    fn write(&self, client: &DnsClient, repeated: Vec<Repeated<(String, Code)>>) {
        for Repeated { key, count } in repeated {
            let (name, code) = key.map_or((None, Code::EgressDenied), |(name, code)| (Some(name), code));
            if let Some(mut record) = self.record(client, name.as_deref()) {
                record.deny(code);
                record.count = Some(count);
                record.factors = Some(Factors::CGROUP);
                self.quota.charge(self.clock.instant(), client.agent, (1, record.line_bytes()));
                self.audit.outcome(record);
            }
        }
    }

    fn record(&self, client: &DnsClient, name: Option<&str>) -> Option<Record> {
        let id = RequestId::generate(self.clock.now(), self.random.as_ref())
            .inspect_err(|error| tracing::error!(%error, "a DNS query is not recorded: no request id"))
            .ok()?;
        let mut record = Record::new(id);
        record.agent = Some(client.name.clone());
        record.mode = Some(ConnectionMode::Transparent);
        record.cgroup = client.evidence.cgroup.as_ref().map(|cgroup| Text::new(cgroup.as_str()));
        record.host = name.map(Text::new);
        record.port = Some(PORT);
        Some(record)
    }
}

fn nothing() -> Addresses {
    Addresses { list: Vec::new(), ttl: 0 }
}

fn loopback() -> Addresses {
    let list = vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    Addresses { list, ttl: MAX_TTL }
}
