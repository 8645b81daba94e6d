//! What the admin API asks of the running daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::error::chain;
use super::managed::Managed;
use super::policy::Policy;
use crate::admin::{CgroupInfo, Host, Transparent};
use crate::http::Gateway;
use crate::model::{AgentName, CgroupName};

/// How long killed processes may take to end, and how often they are looked at.
const KILL_TIME: Duration = Duration::from_secs(5);
const KILL_POLL: Duration = Duration::from_millis(10);

/// The daemon as the admin API sees it.
pub(super) struct AppHost {
    pub(super) managed: Arc<Managed>,
    pub(super) policy: Arc<Policy>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) ca_pem: String,
    pub(super) bundle: PathBuf,
    pub(super) private_dirs: Vec<PathBuf>,
    pub(super) explicit: Vec<SocketAddr>,
}

#[async_trait]
impl Host for AppHost {
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
            .unwrap_or_else(|_| Err(format!("processes in the cgroup '{name}' were killed, but do not end")))
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

    fn ca_pem(&self) -> String {
        self.ca_pem.clone()
    }

    fn ca_bundle_path(&self) -> PathBuf {
        self.bundle.clone()
    }

    fn private_dirs(&self) -> Vec<PathBuf> {
        self.private_dirs.clone()
    }

    fn explicit_address(&self) -> Option<SocketAddr> {
        self.explicit.iter().find(|address| address.ip().is_loopback()).or(self.explicit.first()).copied()
    }

    fn explicit_addresses(&self) -> Vec<SocketAddr> {
        self.explicit.clone()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let gateway = self.gateway.counters().snapshot();
        let kernel = self.managed.stats().into_iter().map(|(name, n)| (format!("kernel_{name}"), n));
        gateway.into_iter().map(|(name, n)| (name.to_owned(), n)).chain(kernel).collect()
    }

    async fn reload(&self) -> Result<(), String> {
        self.policy.reload().await.map_err(|error| chain(&error))
    }
}
