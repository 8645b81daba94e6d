//! Folds repeated refusals of one agent into one record with a count (invariant 9). An agent that retries endlessly,
//! or varies its requests, fills neither the log nor memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use onecli_audit::{ConnectionMode, Event, Fold, Record, Repeated, Text, Verdict};
use onecli_model::{AgentId, AgentName};
use onecli_policy::Snapshot;
use parking_lot::Mutex;

/// The code of a record that represents refusals of several kinds.
const SEVERAL: &str = "several";

/// Two refusals of one agent with the same kind are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// The policy that refused, because refusals after a policy change are counted separately.
    policy: usize,
    verdict: Option<Verdict>,
    code: Option<Text>,
    status: Option<u16>,
    mode: Option<ConnectionMode>,
    method: Option<Text>,
    host: Option<Text>,
    port: Option<u16>,
    path: Option<Text>,
}

impl Kind {
    fn of(record: &Record, policy: &Arc<Snapshot>) -> Kind {
        Kind {
            // The address is only compared, never dereferenced. If a new policy is stored at an old one's address,
            // the count continues.
            policy: Arc::as_ptr(policy).addr(),
            verdict: record.verdict,
            code: record.code.clone(),
            status: record.status,
            mode: record.mode,
            method: record.method().cloned(),
            host: record.host.clone(),
            port: record.port,
            path: record.path().cloned(),
        }
    }

    fn fill(self, record: &mut Record) {
        (record.code, record.status) = (self.code, self.status);
        record.verdict = self.verdict;
        record.mode = self.mode;
        (record.host, record.port) = (self.host, self.port);
        if self.method.is_some() || self.path.is_some() {
            let http = record.http_mut();
            (http.method, http.path) = (self.method, self.path);
        }
    }
}

/// The group of refusals that are folded. Alerts are separate from other refusals, so many refusals cannot hide an
/// alert.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Of {
    /// `None` for an unidentified client.
    agent: Option<AgentName>,
    /// The agent that is charged with the record.
    payer: AgentId,
    event: Event,
    /// An alert may also concern a request that is allowed.
    verdict: Option<Verdict>,
    /// Refusals are separate for each user that launched the agent, so one user's view does not depend on another's
    /// requests.
    launched_by: Option<u32>,
}

/// Refusals that were recorded, and those that wait for a record. For each agent, and user that launched its
/// commands, there are at most 32 kinds of each event (`audit::fold`). Each takes less than 7 KiB, because texts are
/// cut at 2 KiB.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Set if each refusal has its own record, up to the agent's quota.
    apart: bool,
    folds: Mutex<HashMap<Of, Fold<Kind>>>,
}

/// Refusals that one record will represent.
#[derive(Debug)]
pub(crate) struct Folded {
    of: Of,
    repeated: Repeated<Kind>,
}

impl Refusals {
    /// Folds repeated refusals if `fold` is set; otherwise records each.
    pub(crate) fn new(fold: bool) -> Refusals {
        Refusals { apart: !fold, ..Refusals::default() }
    }

    /// Counts a refusal by its record. Returns true if this record must be written now. It is never written after the
    /// agent has used up its quota; `may_write` is called only for a record that is about to be written.
    pub(crate) fn note(
        &self,
        now: Instant,
        (record, payer): (&Record, AgentId),
        policy: &Arc<Snapshot>,
        may_write: impl FnOnce() -> bool,
    ) -> bool {
        let mut folds = self.folds.lock();
        let kind = Kind::of(record, policy);
        let of = Of {
            agent: record.agent.clone(),
            payer,
            event: record.event,
            verdict: record.verdict,
            launched_by: record.launched_by,
        };
        if !self.apart {
            return folds.entry(of).or_default().note_if(now, &kind, may_write);
        }
        let writes = may_write();
        if !writes {
            folds.entry(of).or_default().note_other(now);
        }
        writes
    }

    /// Returns the refusals that have waited long enough. Call it periodically.
    pub(crate) fn due(&self, now: Instant) -> Vec<Folded> {
        self.take(|fold| fold.due(now))
    }

    /// Returns all waiting refusals, before shutdown.
    pub(crate) fn rest(&self, now: Instant) -> Vec<Folded> {
        self.take(|fold| fold.rest(now))
    }

    fn take(&self, mut take: impl FnMut(&mut Fold<Kind>) -> Vec<Repeated<Kind>>) -> Vec<Folded> {
        let mut all = Vec::new();
        self.folds.lock().retain(|of, fold| {
            let folded = take(fold).into_iter().map(|repeated| Folded { of: of.clone(), repeated });
            all.extend(folded);
            !fold.is_empty()
        });
        all
    }
}

impl Folded {
    /// The agent that is charged with the record.
    pub(crate) fn payer(&self) -> AgentId {
        self.of.payer
    }

    /// Fills in the record that represents the refusals.
    pub(crate) fn fill(self, record: &mut Record) {
        (record.agent, record.event) = (self.of.agent, self.of.event);
        (record.verdict, record.launched_by) = (self.of.verdict, self.of.launched_by);
        record.count = Some(self.repeated.count);
        match self.repeated.key {
            Some(kind) => kind.fill(record),
            None => record.code = Some(Text::new(SEVERAL)),
        }
    }
}
