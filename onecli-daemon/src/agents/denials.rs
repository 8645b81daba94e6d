//! Records the kernel's refusals in the audit log, with the process and the attempted operation. Repeats are folded.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onecli_audit::{AuditLog, ConnectionMode, FOLD_WINDOW, Fold, Quota, Record, Text};
use onecli_model::{AgentId, Clock, Code, Random, RequestId, error_chain};
use onecli_policy::Snapshot;
use onecli_sys::kernel::Denial;
use tokio::sync::watch;

use super::transparent_mode::TransparentMode;

/// The number of pairs of agent and uid whose repeats are counted separately.
const AGENTS: usize = 1024;
/// The kernel's counter of refusals without an event, because one agent or all together had too many.
const LOST: &str = "deny_events_lost";
/// The pause after an event that cannot be read.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that records refusals.
pub(crate) struct DenialReport {
    pub(crate) managed: Arc<TransparentMode>,
    pub(crate) policy: watch::Receiver<Arc<Snapshot>>,
    pub(crate) audit: AuditLog,
    pub(crate) quota: Arc<Quota>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
}

/// The key for folding refusals: the agent's cgroup and the uid that launched the command, if known.
type Of = (u64, Option<u32>);

/// The properties that make two refusals of one agent equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// Hook and reason.
    rule: String,
    destination: Option<SocketAddr>,
}

impl DenialReport {
    /// Records until it is dropped. Returns at once if no connections are redirected.
    pub(crate) async fn run(self) {
        let Some(mut denials) = self.managed.take_denials() else { return };
        let mut folds: HashMap<Of, Fold<Kind>> = HashMap::new();
        let mut lost = self.lost();
        let mut sweep = tokio::time::interval(FOLD_WINDOW / 2);
        loop {
            tokio::select! {
                denial = denials.next() => match denial {
                    Ok(denial) => self.note(&mut folds, &denial),
                    Err(error) => {
                        tracing::warn!(error = error_chain(&error), "cannot read a refusal of the kernel programs");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                _ = sweep.tick() => {
                    self.sweep(&mut folds);
                    lost = self.note_lost(lost);
                }
            }
        }
    }

    fn note(&self, folds: &mut HashMap<Of, Fold<Kind>>, denial: &Denial) {
        let agent = denial.agent_cgroup_id;
        // The kernel may send a packet in the context of any process.
        let launched_by =
            denial.process.as_ref().and_then(|_| self.managed.launched_by(agent, denial.current_cgroup_id));
        let of = (agent, launched_by);
        if folds.len() >= AGENTS && !folds.contains_key(&of) {
            // The kernel still counts it (`kernel_operations_denied`).
            return;
        }
        let rule = format!("kernel {:?} {:?}", denial.hook, denial.reason).to_lowercase();
        let kind = Kind { rule, destination: denial.destination };
        let (now, mut new) = (self.clock.instant(), None);
        let first = folds.entry(of).or_default().note_if(now, &kind, || {
            let Some((payer, mut record)) = self.record(of, Some(&kind)) else { return true };
            if let Some(task) = &denial.process {
                record.uid = Some(task.uid);
                record.pid = Some(task.pid);
                record.comm = Some(Text::new(&task.comm));
            }
            let size = (1, new.insert(record).line_bytes());
            self.quota.take(now, payer, size, self.audit.space_is_scarce()).is_ok()
        });
        if first && let Some(record) = new {
            self.audit.outcome(record);
        }
    }

    fn sweep(&self, folds: &mut HashMap<Of, Fold<Kind>>) {
        let now = self.clock.instant();
        folds.retain(|of, fold| {
            for repeated in fold.due(now) {
                if let Some((payer, mut record)) = self.record(*of, repeated.key.as_ref()) {
                    record.count = Some(repeated.count);
                    self.quota.charge(now, payer, (1, record.line_bytes()));
                    self.audit.outcome(record);
                }
            }
            !fold.is_empty()
        });
    }

    /// Returns the number of refusals so far for which the kernel sent no event.
    fn lost(&self) -> u64 {
        let stats = self.managed.stats();
        stats.iter().find(|(name, _)| *name == LOST).map_or(0, |(_, count)| *count)
    }

    /// Records the number of refusals without an event since `before`, if there were any.
    fn note_lost(&self, before: u64) -> u64 {
        let now = self.lost();
        let more = now.saturating_sub(before);
        let kind = Kind { rule: "kernel untold".to_owned(), destination: None };
        if more > 0
            && let Some((_, mut record)) = self.record((0, None), Some(&kind))
        {
            record.count = Some(more);
            self.audit.outcome(record);
        }
        now
    }

    /// Builds the record and determines the agent it is charged to.
    fn record(&self, (agent, launched_by): Of, kind: Option<&Kind>) -> Option<(AgentId, Record)> {
        let id = RequestId::generate(self.clock.now(), self.random.as_ref())
            .inspect_err(|error| tracing::error!(%error, "a kernel refusal is not recorded: no request id"))
            .ok()?;
        let (mut payer, mut record) = (AgentId::NOBODY, Record::new(id));
        record.mode = Some(ConnectionMode::Transparent);
        record.deny(Code::KernelDenied);
        // There is no response with a status: the system call failed with EPERM.
        record.status = None;
        record.cgroup_id = (agent != 0).then_some(agent);
        record.launched_by = launched_by;
        if let Some(cgroup) = self.managed.name_of(agent) {
            if let Some(agent) = self.policy.borrow().agent_of_cgroup(&cgroup) {
                (payer, record.agent) = (agent.id, Some(agent.name.clone()));
            }
            record.cgroup = Some(Text::new(cgroup.as_str()));
        }
        if let Some(kind) = kind {
            record.rule = Some(Text::new(&kind.rule));
            if let Some(destination) = kind.destination {
                record.target(&destination.ip().into(), destination.port());
                record.address = Some(Text::new(&destination.to_string()));
            }
        }
        Some((payer, record))
    }
}
