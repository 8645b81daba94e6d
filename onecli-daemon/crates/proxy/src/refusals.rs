//! Refusals of one agent that repeat are one record with a count (invariant 9): an agent that tries again and again, or
//! for ever something else, fills neither the log nor the memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use onecli_audit::{Event, Fold, Mode, Record, Repeated, Text, Verdict};
use onecli_model::{AgentId, AgentName};
use onecli_policy::Snapshot;

/// The code of a record that stands for refusals of several kinds.
const SEVERAL: &str = "several";

/// What makes two refusals of one agent the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// The policy that refused: what is refused after a change is another matter than before.
    policy: usize,
    verdict: Option<Verdict>,
    code: Option<Text>,
    status: Option<u16>,
    mode: Option<Mode>,
    method: Option<Text>,
    host: Option<Text>,
    port: Option<u16>,
    path: Option<Text>,
}

impl Kind {
    fn of(record: &Record, policy: &Arc<Snapshot>) -> Kind {
        Kind {
            // Only told apart, never followed. One that lies where an old one was merely goes on with its count.
            policy: Arc::as_ptr(policy).addr(),
            verdict: record.verdict,
            code: record.code.clone(),
            status: record.status,
            mode: record.mode,
            method: record.method.clone(),
            host: record.host.clone(),
            port: record.port,
            path: record.path.clone(),
        }
    }

    fn fill(self, record: &mut Record) {
        (record.code, record.status) = (self.code, self.status);
        record.verdict = self.verdict;
        record.mode = self.mode;
        (record.method, record.host) = (self.method, self.host);
        (record.port, record.path) = (self.port, self.path);
    }
}

/// What is folded together. Alerts are apart from other refusals: who makes many of these does not hide one of those.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Of {
    /// `None`: nobody known.
    agent: Option<AgentName>,
    /// Who is charged with the record.
    payer: AgentId,
    event: Event,
    /// An alert may also be about a request that goes on.
    verdict: Option<Verdict>,
    /// Each person's refusals are apart: what one sees of the own ones depends on no other's.
    launched_by: Option<u32>,
}

/// Refusals that were recorded, and those that wait to be: of each agent and person who launched its commands at most 32 kinds of each event (`audit::fold`), each
/// below 7 KiB, because texts are cut at 2 KiB.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Each has a record of its own, as far as the agent's quota goes.
    apart: bool,
    folds: Mutex<HashMap<Of, Fold<Kind>>>,
}

/// Refusals that one record is to stand for.
#[derive(Debug)]
pub(super) struct Folded {
    of: Of,
    repeated: Repeated<Kind>,
}

impl Refusals {
    /// Folds those that repeat, or keeps them apart.
    pub(super) fn new(fold: bool) -> Refusals {
        Refusals { apart: !fold, ..Refusals::default() }
    }

    /// Counts a refusal as its record tells it. True: it wants this record, now. Where the agent has used up its quota
    /// (`may_write`, which is asked only about what is to be written), it never does.
    pub(super) fn note(
        &self,
        now: Instant,
        (record, payer): (&Record, AgentId),
        policy: &Arc<Snapshot>,
        may_write: impl FnOnce() -> bool,
    ) -> bool {
        let mut folds = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// What has waited long enough. To be called now and then.
    pub(super) fn due(&self, now: Instant) -> Vec<Folded> {
        self.take(|fold| fold.due(now))
    }

    /// All that waits, when there will be no later call.
    pub(super) fn rest(&self, now: Instant) -> Vec<Folded> {
        self.take(|fold| fold.rest(now))
    }

    fn take(&self, mut take: impl FnMut(&mut Fold<Kind>) -> Vec<Repeated<Kind>>) -> Vec<Folded> {
        let mut all = Vec::new();
        self.folds.lock().unwrap_or_else(PoisonError::into_inner).retain(|of, fold| {
            let folded = take(fold).into_iter().map(|repeated| Folded { of: of.clone(), repeated });
            all.extend(folded);
            !fold.is_empty()
        });
        all
    }
}

impl Folded {
    /// Who is charged with the record that stands for them.
    pub(super) fn payer(&self) -> AgentId {
        self.of.payer
    }

    /// Fills in the record that stands for them.
    pub(super) fn fill(self, record: &mut Record) {
        (record.agent, record.event) = (self.of.agent, self.of.event);
        (record.verdict, record.launched_by) = (self.of.verdict, self.of.launched_by);
        record.count = Some(self.repeated.count);
        match self.repeated.key {
            Some(kind) => kind.fill(record),
            None => record.code = Some(Text::new(SEVERAL)),
        }
    }
}
