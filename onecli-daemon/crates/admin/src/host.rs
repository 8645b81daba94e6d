//! The interface through which the admin API uses the running daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_api::{Ca, Transparent};
use onecli_config::DaemonLayout;
use onecli_model::harmless::{TestAnswer, TestRequest};
use onecli_model::{AgentId, AgentName, CgroupName, Refusal};
use serde::{Deserialize, Serialize};

/// An existing managed cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupInfo {
    /// Its directory in the cgroup2 mount.
    pub path: PathBuf,
    /// Its id: the inode of that directory, which the kernel's hooks report.
    pub id: u64,
}

/// The processes in a managed cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// The number of processes.
    pub count: usize,
    /// Their uids.
    pub uids: Vec<u32>,
    /// The start time of the oldest process.
    pub since: Option<Timestamp>,
}

/// The daemon around the admin API: its kernel part, its CA and its listeners.
///
/// Errors are sentences for the operator. They name the path or system call and never contain a secret value.
#[async_trait]
pub trait DaemonControl: Send + Sync {
    /// Returns the default cgroup name for an agent if `agent add` names none. The function is the same on systemd and
    /// other hosts; dashes are escaped as systemd does.
    ///
    /// # Errors
    /// The escaped name is longer than a cgroup name may be.
    fn default_cgroup(&self, agent: &AgentName) -> Result<CgroupName, String>;

    /// Creates the managed cgroup if it does not exist, and registers it with the kernel part.
    ///
    /// # Errors
    /// mkdir(2) failed, or the kernel part does not know the cgroup.
    fn ensure_cgroup(&self, name: &CgroupName) -> Result<CgroupInfo, String>;

    /// Returns the directory of the managed cgroup if it or a nested cgroup contains processes. An agent bound to the
    /// cgroup would own those processes.
    ///
    /// # Errors
    /// The state of the cgroup could not be read.
    fn populated_cgroup(&self, name: &CgroupName) -> Result<Option<PathBuf>, String>;

    /// Kills every process in the managed cgroup and below it, and waits until they are gone.
    ///
    /// # Errors
    /// The processes could not be killed, or some did not end in time.
    async fn end_processes(&self, name: &CgroupName) -> Result<(), String>;

    /// Removes the managed cgroup. A missing cgroup is not an error.
    ///
    /// # Errors
    /// The cgroup still contains processes.
    fn remove_cgroup(&self, name: &CgroupName) -> Result<(), String>;

    /// Returns whether transparent mode works on this daemon.
    fn transparent(&self) -> Transparent;

    /// Checks that the redirect's links are alive. Callers must call it before every session: removal of a cgroup
    /// silently disables a pinned link.
    ///
    /// # Errors
    /// Describes the fault and the next step.
    fn check_transparent(&self) -> Result<(), String>;

    /// Returns the locations of the daemon's parts, for `onecli doctor`.
    fn place(&self) -> DaemonLayout;

    /// Returns the CA certificates that agents trust.
    fn ca(&self) -> Ca;

    /// Creates the next CA, which agents then trust. With `finish`, lets that CA sign and ends trust in the previous
    /// one.
    ///
    /// # Errors
    /// A next CA already exists, or with `finish` none exists; or the CA could not be stored or written.
    async fn rotate_ca(&self, finish: bool) -> Result<Ca, String>;

    /// Returns the daemon's data directory.
    fn data_dir(&self) -> PathBuf;

    /// Records in the audit log an administrator's action that affects every credential.
    fn record(&self, code: &'static str, detail: &str);

    /// Writes the agent's refusals that still await recording, and returns when they are on disk.
    async fn record_waiting(&self, agent: AgentId);

    /// Returns the daemon's directories that agents must not access: data and pins.
    fn private_dirs(&self) -> Vec<PathBuf>;

    /// Returns an address of the explicit proxy if it listens, preferring loopback.
    fn explicit_address(&self) -> Option<SocketAddr>;

    /// Returns all addresses of the explicit proxy: those for plain connections, and those for TLS.
    fn explicit_addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>);

    /// Sends one request with a secret. The caller has checked that root makes the request.
    ///
    /// # Errors
    /// Nothing was sent, or no response arrived.
    async fn test_secret(&self, test: &TestRequest) -> Result<TestAnswer, Refusal>;
    /// Returns the processes in the managed cgroup, for `onecli ps`.
    ///
    /// # Errors
    /// The cgroup's name is not a path.
    fn processes(&self, name: &CgroupName) -> Result<Processes, String>;

    /// Returns the number of daemon connections that belong to the agent.
    fn connections(&self, agent: AgentId) -> usize;

    /// Returns the counters by name, for `onecli status`.
    fn counters(&self) -> BTreeMap<String, u64>;

    /// Rebuilds the policy snapshot from the store. The next request after the return uses it (invariant 11).
    ///
    /// # Errors
    /// The store could not be read. The daemon still uses the previous snapshot.
    async fn reload(&self) -> Result<(), String>;
}
