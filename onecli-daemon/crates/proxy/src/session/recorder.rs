//! What writes audit records about agents, within their quotas.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use onecli_audit::{AuditLog, Quota, QuotaExceeded, Record};
use onecli_model::{AgentId, Clock, Random, RandomError, RequestId};
use onecli_policy::Snapshot;

use super::counters::Counters;
use super::policy_view::PolicyView;
use super::refusals::{Folded, Refusals};

/// The audit log, with the limits on what an agent may write to it.
pub(crate) struct Recorder {
    pub(crate) policy: PolicyView,
    pub(crate) audit: AuditLog,
    /// How many audit records each agent may cause.
    pub(crate) quota: Arc<Quota>,
    /// Repeated refusals.
    pub(crate) refusals: Refusals,
    /// Counts of events.
    pub(crate) counters: Counters,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder(..)")
    }
}

impl Recorder {
    /// The current policy.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.policy.snapshot()
    }

    /// A new request's id.
    ///
    /// # Errors
    /// The host's random number generator failed.
    pub(super) fn request_id(&self) -> Result<RequestId, RandomError> {
        RequestId::generate(self.clock.now(), self.random.as_ref())
    }

    /// Counts `records` records of `size` bytes in total against the quota of `payer`.
    ///
    /// # Errors
    /// The quota that is used up.
    pub(crate) fn take_quota(
        &self,
        now: Instant,
        payer: AgentId,
        (records, size): (u32, u64),
    ) -> Result<(), QuotaExceeded> {
        self.quota.take(now, payer, (records, size), self.audit.space_is_scarce())
    }

    /// Counts an alert. Returns true if this record must be written now, and false if it is recorded together with
    /// others.
    pub(crate) fn counts_alert(&self, alert: &Record, payer: AgentId) -> bool {
        let now = self.clock.instant();
        let may_write = || self.take_quota(now, payer, (1, alert.line_bytes())).is_ok();
        self.refusals.note(now, (alert, payer), &self.snapshot(), may_write)
    }

    /// Records repeated refusals that have waited long enough. Call it periodically.
    pub(crate) fn tidy(&self, now: Instant) {
        self.record_folded(self.refusals.due(now));
        self.quota.tidy(now);
    }

    /// Records all repeated refusals, before shutdown.
    pub(crate) fn finish(&self) {
        self.record_folded(self.refusals.rest(self.clock.instant()));
    }

    fn record_folded(&self, all: Vec<Folded>) {
        for folded in all {
            match self.request_id() {
                Ok(id) => {
                    let mut record = Record::new(id);
                    let payer = folded.payer();
                    folded.fill(&mut record);
                    self.quota.charge(self.clock.instant(), payer, (1, record.line_bytes()));
                    self.audit.outcome(record);
                }
                Err(error) => tracing::error!(%error, "no request id for repeated refusals"),
            }
        }
    }
}
