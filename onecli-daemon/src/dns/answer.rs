//! One query of one agent, from its bytes to the answer's.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use tokio::sync::watch;

use super::coined::Coin;
use super::message::{Kind, Question, Transport, Unreadable};
use super::names::{Addresses, Names, NoAddress};
use super::server::Asker;
use crate::audit::{AuditLog, Mode, Quota, Record, Repeated, Text};
use crate::model::{Clock, Code, Egress, Factors, Host, Random, RequestId};
use crate::policy::{Identity, Snapshot};

/// Longest that an answer may be kept, in seconds: what an operator changes shall be seen soon.
const MAX_TTL: u32 = 60;
/// How long a lookup may take; clients ask again after five seconds (resolv.conf(5), `timeout`).
const PATIENCE: Duration = Duration::from_secs(5);
/// Port of DNS, which an audit record has as its port.
const PORT: u16 = 53;

/// What the resolver works with.
pub struct Parts {
    /// The policy; a new snapshot decides the next query.
    pub policy: watch::Receiver<Arc<Snapshot>>,
    /// Where addresses come from.
    pub names: Arc<dyn Names>,
    /// Records refusals.
    pub audit: AuditLog,
    /// What each agent may record.
    pub quota: Arc<Quota>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids.
    pub random: Arc<dyn Random>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("names", &self.names).finish_non_exhaustive()
    }
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// This host's loopback.
    Loopback,
    /// Looked up.
    Resolve,
    /// A name of the agent's with a search domain behind it.
    Searched,
    /// Not for this agent.
    Refuse,
}

/// Judges a name by the policy.
pub(super) fn judge(snapshot: &Snapshot, identity: &Identity, host: &Host) -> Judgement {
    let name = host.as_name().unwrap_or_default();
    if name == "localhost" || name.ends_with(".localhost") {
        return Judgement::Loopback;
    }
    if snapshot.may_resolve(identity, host) {
        return Judgement::Resolve;
    }
    let mut rest = name;
    while let Some((shorter, _)) = rest.rsplit_once('.') {
        rest = shorter;
        let known = |host: &Host| rest == "localhost" || snapshot.may_resolve(identity, host);
        if rest.parse().is_ok_and(|host: Host| known(&host)) {
            return Judgement::Searched;
        }
    }
    Judgement::Refuse
}

impl Parts {
    /// The answer to a message, or `None` where it gets none.
    pub(super) async fn answer(
        &self,
        asker: &Asker,
        message: &[u8],
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let question = match Question::read(message) {
            Ok(question) => question,
            Err(Unreadable::Ignore) => return None,
            Err(Unreadable::Answer(answer)) => return Some(answer),
        };
        let (code, addresses) = self.resolve(asker, &question).await;
        question.answer(code, &addresses.list, addresses.ttl.min(MAX_TTL), transport)
    }

    async fn resolve(&self, asker: &Asker, question: &Question) -> (ResponseCode, Addresses) {
        let nothing = || Addresses { list: Vec::new(), ttl: 0 };
        let snapshot = Arc::clone(&self.policy.borrow());
        let identity = match snapshot.identify(&asker.evidence, self.clock.now()) {
            Ok(identity) if identity.agent().id == asker.agent => identity,
            Ok(_) => return (self.refuse(asker, None, question, Code::AgentUnknown).await, nothing()),
            Err(refusal) => return (self.refuse(asker, None, question, refusal.code).await, nothing()),
        };
        let Some(host) = question.host() else {
            return (self.refuse(asker, Some(&identity), question, Code::EgressDenied).await, nothing());
        };
        match judge(&snapshot, &identity, &host) {
            Judgement::Loopback => (ResponseCode::NoError, loopback()),
            Judgement::Searched => (ResponseCode::NXDomain, nothing()),
            Judgement::Refuse => {
                (self.refuse(asker, Some(&identity), question, Code::EgressDenied).await, nothing())
            }
            // Nobody is asked for other types, so nothing leaves in their names either.
            Judgement::Resolve if question.kind() == Kind::Other => (ResponseCode::NoError, nothing()),
            Judgement::Resolve
                if !snapshot.is_written(&identity, &host)
                    && let Err(refused) = self.coin(asker, &identity, question, &host).await =>
            {
                (refused, nothing())
            }
            Judgement::Resolve => match tokio::time::timeout(PATIENCE, self.names.addresses(&host)).await {
                Ok(Ok(addresses)) => (ResponseCode::NoError, addresses),
                Ok(Err(NoAddress::NoSuchName)) => (ResponseCode::NXDomain, nothing()),
                Ok(Err(NoAddress::Unavailable)) | Err(_) => (ResponseCode::ServFail, nothing()),
            },
        }
    }

    /// A name that no operator wrote is looked up: on record before anybody hears of it, and only so many. Whoever serves the
    /// domain learns what the name says. One at a time, so that nobody is told of a name whose record is still on its way.
    ///
    /// Where the agent may send anything to anybody, the number is none of ours.
    async fn coin(
        &self,
        asker: &Asker,
        identity: &Identity,
        question: &Question,
        host: &Host,
    ) -> Result<(), ResponseCode> {
        let bounded = identity.agent().egress != Egress::Allow;
        let mut coined =
            tokio::time::timeout(PATIENCE, asker.coined.lock()).await.map_err(|_| ResponseCode::ServFail)?;
        let now = self.clock.instant();
        match coined.look(now, host) {
            Coin::Known => return Ok(()),
            Coin::TooMany if bounded => {
                drop(coined);
                return Err(self.refuse(asker, Some(identity), question, Code::LimitReached).await);
            }
            Coin::New | Coin::TooMany => {}
        }
        let name = host.as_name().unwrap_or_default();
        let mut record = self.record(asker, Some(name)).ok_or(ResponseCode::ServFail)?;
        record.factors = Some(identity.proven());
        record.forward();
        if !self.may_write(asker, now, &record) {
            drop(coined);
            return Err(self.refuse(asker, Some(identity), question, Code::AuditQuota).await);
        }
        if let Err(error) = self.audit.decision(record).await {
            tracing::error!(%error, "a name is not looked up: it is missing from the audit log");
            return Err(ResponseCode::ServFail);
        }
        coined.note(now, host.clone());
        Ok(())
    }

    /// Records a refusal, unless its like was recorded just now; it stands in the log before the agent hears of it.
    async fn refuse(
        &self,
        asker: &Asker,
        identity: Option<&Identity>,
        question: &Question,
        code: Code,
    ) -> ResponseCode {
        let name = question.host().map_or_else(|| question.shown(), |host| host.to_string());
        let now = self.clock.instant();
        let key = (name, code);
        let mut record = None;
        let first = asker.refusals.lock().unwrap_or_else(PoisonError::into_inner).note_if(now, &key, || {
            record = self.record(asker, Some(&key.0));
            record.as_mut().is_none_or(|record| {
                record.deny(code);
                record.factors = identity.map(Identity::proven);
                self.may_write(asker, now, record)
            })
        });
        if first && let Some(record) = record {
            // Refused all the same; the log itself tells of what it could not write.
            if let Err(error) = self.audit.decision(record).await {
                tracing::error!(%error, "a refused DNS query is missing from the audit log");
            }
        }
        ResponseCode::Refused
    }

    /// Counts one more record of the agent, unless its part of the audit log is used up.
    fn may_write(&self, asker: &Asker, now: Instant, record: &Record) -> bool {
        let scarce = self.audit.space_is_scarce();
        self.quota.take(now, asker.agent, (1, record.line_bytes()), scarce).is_ok()
    }

    /// Records the refusals that were folded and have waited long enough.
    pub(super) fn report(&self, asker: &Asker) {
        let now = self.clock.instant();
        let due = asker.refusals.lock().unwrap_or_else(PoisonError::into_inner).due(now);
        self.write(asker, due);
    }

    /// Records all that were folded: the agent is served no longer.
    pub(super) fn report_rest(&self, asker: &Asker) {
        let now = self.clock.instant();
        let rest = asker.refusals.lock().unwrap_or_else(PoisonError::into_inner).rest(now);
        self.write(asker, rest);
    }

    fn write(&self, asker: &Asker, repeated: Vec<Repeated<(String, Code)>>) {
        for Repeated { key, count } in repeated {
            let (name, code) = key.map_or((None, Code::EgressDenied), |(name, code)| (Some(name), code));
            if let Some(mut record) = self.record(asker, name.as_deref()) {
                record.deny(code);
                record.count = Some(count);
                record.factors = Some(Factors::CGROUP);
                self.quota.charge(self.clock.instant(), asker.agent, (1, record.line_bytes()));
                self.audit.outcome(record);
            }
        }
    }

    fn record(&self, asker: &Asker, name: Option<&str>) -> Option<Record> {
        let id = RequestId::generate(self.clock.now(), self.random.as_ref())
            .inspect_err(|error| tracing::error!(%error, "a DNS query has no request id"))
            .ok()?;
        let mut record = Record::new(id);
        record.agent = Some(asker.name.clone());
        record.mode = Some(Mode::Transparent);
        record.cgroup = asker.evidence.cgroup.as_ref().map(|cgroup| Text::new(cgroup.as_str()));
        record.host = name.map(Text::new);
        record.port = Some(PORT);
        Some(record)
    }
}

fn loopback() -> Addresses {
    let list = vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    Addresses { list, ttl: MAX_TTL }
}
