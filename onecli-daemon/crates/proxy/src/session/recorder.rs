//! What writes audit records about agents, within their quotas.

use std::fmt;
use std::sync::Arc;

use onecli_audit::{AuditLog, Quota};
use onecli_model::Clock;
use onecli_policy::Snapshot;
use tokio::sync::watch;

use super::refusals::Refusals;

/// The audit log, with the limits on what an agent may write to it.
pub(crate) struct Recorder {
    pub(crate) policy: watch::Receiver<Arc<Snapshot>>,
    pub(crate) audit: AuditLog,
    /// How many audit records each agent may cause.
    pub(crate) quota: Arc<Quota>,
    /// Repeated refusals.
    pub(crate) refusals: Refusals,
    pub(crate) clock: Arc<dyn Clock>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder(..)")
    }
}

impl Recorder {
    /// The current policy.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.policy.borrow())
    }
}
