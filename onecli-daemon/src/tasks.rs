//! The tasks that run beside the connections, until the daemon stops.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use onecli_audit::AuditLog;
use onecli_config::{Config, Witness};
use onecli_proxy::DaemonClient;
use onecli_vault::Credentials;
use onecli_vault::sources::hashicorp::HashiCorp;
use tokio::sync::watch;

use crate::agents::{DenialReport, TransparentMode};
use crate::audit::ship::Shipper;
use crate::audit::witness;
use crate::backends;
use crate::build::{PolicyParts, Storage};
use crate::process::AppError;
use crate::process::task_group::{TaskEnded, TaskGroup};

/// During a stop, the time to bring audit records into the store: first while names are still resolved, then for the
/// records that arrived meanwhile.
const SHIPPING: Duration = Duration::from_secs(5);
const LAST_SHIPPING: Duration = Duration::from_secs(1);
/// During a stop, the time to send the last checkpoint to the witnesses.
const LAST_CHECKPOINT: Duration = Duration::from_secs(5);

/// The running tasks.
pub(crate) struct Tasks {
    /// Tasks that serve clients. They end when the daemon accepts nothing more.
    pub(crate) serving: TaskGroup,
    /// Tasks that maintain the data plane. They are aborted when it is about to end.
    pub(crate) upkeep: TaskGroup,
    /// Tasks that are aborted after the last connection.
    background: TaskGroup,
    /// Tasks that end after the audit log, each with the time that it may take.
    last: Vec<(TaskGroup, Duration)>,
    /// The last record on the disk, and the last in the store.
    durable: watch::Receiver<u64>,
    in_store: watch::Receiver<u64>,
}

impl Tasks {
    pub(crate) fn new(storage: &Storage, shipper: &Shipper) -> Tasks {
        let (durable, in_store) = (storage.audit.subscribe(), shipper.subscribe());
        let group = TaskGroup::default;
        Tasks { serving: group(), upkeep: group(), background: group(), last: Vec::new(), durable, in_store }
    }

    /// Resolves when a task ends although the daemon runs.
    pub(crate) async fn failed(&mut self) -> TaskEnded {
        // The last tasks may have no work, or end with the audit log.
        let last = self.last.iter_mut().map(|(group, _)| group.panicked().boxed());
        let running = [&mut self.serving, &mut self.upkeep, &mut self.background];
        let ended = running.into_iter().map(|group| group.ended().boxed());
        futures_util::future::select_all(ended.chain(last)).await.0
    }

    /// Starts a task that ends after the audit log, within `limit`.
    fn spawn_last(
        &mut self,
        name: &'static str,
        limit: Duration,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut group = TaskGroup::default();
        group.spawn(name, task);
        self.last.push((group, limit));
    }

    /// Maintains the login to the vault server and its leases, and erases old values.
    pub(crate) fn maintain_sources(
        &mut self,
        config: &Config,
        storage: &Storage,
        managed: &Arc<TransparentMode>,
        vault_server: Option<Arc<HashiCorp>>,
        credentials: Arc<Credentials>,
    ) {
        let retention = (Arc::clone(&storage.clock), config.vault.keep_replaced);
        let (store, managed) = (Arc::clone(&storage.store), Arc::clone(managed));
        let maintained = backends::maintain(vault_server, credentials, store, managed, retention);
        self.background.spawn("maintenance of secret sources", maintained);
    }

    /// Sends checkpoints of the audit log to the witnesses, and copies its records into the store.
    pub(crate) fn report(
        &mut self,
        witnesses: Vec<Witness>,
        audit: &AuditLog,
        daemon_client: Arc<DaemonClient>,
        shipper: Shipper,
    ) {
        let checkpoints = witness::tell(witnesses, audit.checkpoints(), daemon_client);
        self.spawn_last("checkpoints for witnesses", LAST_CHECKPOINT, checkpoints);
        self.spawn_last("audit records for the store", LAST_SHIPPING, shipper.run());
    }

    /// Follows changes of the root key and of the policy, and records refusals of the kernel programs.
    pub(crate) fn follow(&mut self, storage: &Storage, policy: &PolicyParts, managed: &Arc<TransparentMode>) {
        let rekeyer = Arc::clone(&storage.vault).follow_rekey(Arc::clone(&storage.store));
        let denials = DenialReport {
            managed: Arc::clone(managed),
            policy: policy.snapshot.clone(),
            audit: storage.audit.clone(),
            quota: Arc::clone(&storage.quota),
            clock: Arc::clone(&storage.clock),
            random: Arc::clone(&storage.random),
        };
        self.background.spawn("changes of the root key", rekeyer);
        self.background.spawn("changes of the policy", Arc::clone(&policy.policy).follow());
        if managed.is_attached() {
            self.background.spawn("refusals of the kernel programs", denials.run());
        }
    }

    /// Ends the tasks and the audit log. Agents' names are resolved for as long as other work remains. From then to the
    /// next daemon's first policy their queries wait. A client waits for five seconds, some for ten.
    pub(crate) async fn stop(
        mut self,
        dns: Option<Arc<onecli_dns::Server>>,
        audit: AuditLog,
    ) -> Result<(), AppError> {
        self.background.abort();
        let caught_up = self.in_store.wait_for(|seq| *seq >= *self.durable.borrow());
        let _ = tokio::time::timeout(SHIPPING, caught_up).await;
        if let Some(dns) = dns {
            dns.close().await;
        }
        audit.close().await?;
        // These tasks end once all reachable witnesses have the last checkpoint and the store has every record. The
        // next start ships any remaining records.
        let last = self.last.iter_mut().map(|(group, limit)| tokio::time::timeout(*limit, group.drain()));
        futures_util::future::join_all(last).await;
        Ok(())
    }
}
