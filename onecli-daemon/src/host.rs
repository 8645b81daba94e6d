//! The operations that the admin API requests from the running daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use onecli_admin::{CgroupInfo, DaemonControl, Processes};
use onecli_api::Ca;
use onecli_api::Transparent;
use onecli_audit::{AuditLog, Record};
use onecli_config::DaemonLayout;
use onecli_model::harmless::{TestAnswer, TestRequest};
use onecli_model::{AgentId, AgentName, CgroupName, Clock, Random, Refusal, RequestId, error_chain};
use onecli_proxy::DataPlane;
use onecli_sys::kernel;

use crate::agents::TransparentMode;
use crate::certificate_authority::Authority;
use crate::policy::Policy;
use crate::process::AppError;

/// The time that killed processes may take to end, and the interval at which they are checked.
const KILL_TIME: Duration = Duration::from_secs(5);
const KILL_POLL: Duration = Duration::from_millis(10);

/// The daemon as the admin API sees it.
pub(super) struct AppHost {
    pub(super) managed: Arc<TransparentMode>,
    pub(super) policy: Arc<Policy>,
    pub(super) data_plane: Arc<DataPlane>,
    /// The DNS server, present if connections are redirected.
    pub(super) dns: Option<Arc<onecli_dns::Server>>,
    pub(super) place: DaemonLayout,
    pub(super) private_dirs: Vec<PathBuf>,
    pub(super) authority: Authority,
    pub(super) audit: AuditLog,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    pub(super) data_dir: PathBuf,
}

#[async_trait]
impl DaemonControl for AppHost {
    fn default_cgroup(&self, agent: &AgentName) -> Result<CgroupName, String> {
        self.managed.default_cgroup(agent)
    }

    fn ensure_cgroup(&self, name: &CgroupName) -> Result<CgroupInfo, String> {
        self.managed.ensure(name)
    }

    fn populated_cgroup(&self, name: &CgroupName) -> Result<Option<PathBuf>, String> {
        self.managed.populated(name)
    }

    async fn end_processes(&self, name: &CgroupName) -> Result<(), String> {
        self.managed.kill(name)?;
        let gone = async {
            while self.managed.populated(name)?.is_some() {
                tokio::time::sleep(KILL_POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(KILL_TIME, gone)
            .await
            .unwrap_or_else(|_| Err(format!("processes in the cgroup '{name}' were killed, but still run")))
    }

    fn remove_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        self.managed.remove(name)
    }

    fn transparent(&self) -> Transparent {
        self.managed.transparent()
    }

    fn check_transparent(&self) -> Result<(), String> {
        self.managed.check()
    }

    fn place(&self) -> DaemonLayout {
        self.place.clone()
    }

    fn ca(&self) -> Ca {
        self.authority.view()
    }

    async fn rotate_ca(&self, finish: bool) -> Result<Ca, String> {
        let message = |error: AppError| error.to_string();
        if finish {
            self.data_plane.set_authority(self.authority.finish().await.map_err(message)?);
        } else {
            self.authority.rotate().await.map_err(message)?;
        }
        Ok(self.authority.view())
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    fn record(&self, code: &'static str, detail: &str) {
        match RequestId::generate(self.clock.now(), self.random.as_ref()) {
            Ok(id) => self.audit.outcome(Record::administrative(id, code, detail)),
            Err(error) => tracing::error!(%error, code, "an administrator's action has no audit record"),
        }
    }

    async fn record_waiting(&self, agent: AgentId) {
        if let Some(dns) = &self.dns {
            dns.record_denied(agent);
        }
        if let Err(error) = self.audit.flush().await {
            tracing::error!(%error, "cannot record pending refusals");
        }
    }

    async fn test_secret(&self, test: &TestRequest) -> Result<TestAnswer, Refusal> {
        self.data_plane.test_secret(test).await
    }

    fn private_dirs(&self) -> Vec<PathBuf> {
        self.private_dirs.clone()
    }

    fn explicit_address(&self) -> Option<SocketAddr> {
        let explicit = &self.place.explicit;
        explicit.iter().find(|address| address.ip().is_loopback()).or(explicit.first()).copied()
    }

    fn explicit_addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        (self.place.explicit.clone(), self.place.explicit_tls.clone())
    }

    fn processes(&self, name: &CgroupName) -> Result<Processes, String> {
        let Some(directory) = self.managed.populated(name)? else { return Ok(Processes::default()) };
        let found = kernel::processes(&directory, self.clock.now());
        Ok(Processes { count: found.count, uids: found.uids.into_iter().collect(), since: found.since })
    }

    fn connections(&self, agent: AgentId) -> usize {
        self.data_plane.connections_of(agent)
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let data_plane = self.data_plane.counters().snapshot();
        let kernel = self.managed.stats().into_iter().map(|(name, n)| (format!("kernel_{name}"), n));
        data_plane.into_iter().map(|(name, n)| (name.to_owned(), n)).chain(kernel).collect()
    }

    async fn reload(&self) -> Result<(), String> {
        self.policy.reload().await.map_err(|error| error_chain(&error))
    }
}
