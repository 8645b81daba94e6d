//! What the admin API needs of the running daemon, and nothing more of it.

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

/// A managed cgroup as it exists now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupInfo {
    /// Its directory in the cgroup2 mount.
    pub path: PathBuf,
    /// Its id: the inode of that directory, which the kernel's hooks report.
    pub id: u64,
}

/// What runs in a managed cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many processes there are.
    pub count: usize,
    /// Their users.
    pub uids: Vec<u32>,
    /// When the oldest of them was started.
    pub since: Option<Timestamp>,
}

/// The daemon around the admin API: its kernel part, its CA and its listeners.
///
/// Errors are sentences for the operator; they name the path or system call and never hold a value.
#[async_trait]
pub trait Host: Send + Sync {
    /// The cgroup name an agent gets where `agent add` names none: one function for systemd and plain hosts,
    /// dashes escaped as systemd does.
    ///
    /// # Errors
    /// The escaped name is longer than a cgroup's may be.
    fn default_cgroup(&self, agent: &AgentName) -> Result<CgroupName, String>;

    /// Makes the managed cgroup if it does not exist, and tells the kernel part of it.
    ///
    /// # Errors
    /// mkdir(2) failed, or the kernel part does not know the cgroup.
    fn ensure_cgroup(&self, name: &CgroupName) -> Result<CgroupInfo, String>;

    /// The directory of the managed cgroup if processes live in it, or nested below it. Whoever is bound to the cgroup
    /// is who they are.
    ///
    /// # Errors
    /// The kernel's word could not be read.
    fn populated_cgroup(&self, name: &CgroupName) -> Result<Option<PathBuf>, String>;

    /// Kills every process in the managed cgroup and below it, and waits until they are gone.
    ///
    /// # Errors
    /// They could not be killed, or some did not end in time.
    async fn end_processes(&self, name: &CgroupName) -> Result<(), String>;

    /// Removes the managed cgroup; one that does not exist is no error.
    ///
    /// # Errors
    /// Processes still live in it.
    fn remove_cgroup(&self, name: &CgroupName) -> Result<(), String>;

    /// Whether transparent mode works on this daemon.
    fn transparent(&self) -> Transparent;

    /// Checks that the redirect's links are alive. Called before every session, because removing a cgroup makes
    /// a pinned link defunct in silence.
    ///
    /// # Errors
    /// What is broken, and what to do.
    fn check_transparent(&self) -> Result<(), String>;

    /// Where the daemon's parts are, for `onecli doctor`.
    fn place(&self) -> DaemonLayout;

    /// What agents trust of ours.
    fn ca(&self) -> Ca;

    /// Makes the next CA, which agents trust from then on; or, to `finish`, lets it sign and ends the trust in the other.
    ///
    /// # Errors
    /// There is one already, or none; or it could not be stored or written.
    async fn rotate_ca(&self, finish: bool) -> Result<Ca, String>;

    /// The daemon's own directory.
    fn data_dir(&self) -> PathBuf;

    /// Tells the audit log what an administrator did that concerns every credential.
    fn record(&self, code: &'static str, detail: &str);

    /// Records what an agent was refused and waits to be recorded, and returns once that is on the disk.
    async fn record_waiting(&self, agent: AgentId);

    /// Directories of the daemon's own, which no agent has business in: data, pins.
    fn private_dirs(&self) -> Vec<PathBuf>;

    /// An address of the explicit proxy, if it listens; loopback rather than another.
    fn explicit_address(&self) -> Option<SocketAddr>;

    /// All addresses of the explicit proxy: those where it is spoken to in the clear, and those over TLS.
    fn explicit_addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>);

    /// Sends one request with a secret. The caller has checked that root asks.
    ///
    /// # Errors
    /// Nothing was sent, or no answer came.
    async fn test_secret(&self, test: &TestRequest) -> Result<TestAnswer, Refusal>;
    /// What runs in the managed cgroup, for `onecli ps`.
    ///
    /// # Errors
    /// The cgroup's name is no path.
    fn processes(&self, name: &CgroupName) -> Result<Processes, String>;

    /// How many connections to the daemon are known to be the agent's.
    fn connections(&self, agent: AgentId) -> usize;

    /// Counters by name, for `onecli status`.
    fn counters(&self) -> BTreeMap<String, u64>;

    /// Rebuilds the policy snapshot from the store. When it returns, the next request sees it (invariant 11).
    ///
    /// # Errors
    /// The store could not be read; the daemon still serves the snapshot from before.
    async fn reload(&self) -> Result<(), String>;
}
