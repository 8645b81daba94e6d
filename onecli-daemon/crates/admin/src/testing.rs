//! An in-process admin server with a real SQLite store and vault and a fake host. For tests of the clients.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "fixtures"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use onecli_api::{Ca, Transparent};
use onecli_config::DaemonLayout;
use onecli_model::{AgentId, AgentName, CgroupName};
use onecli_policy::Snapshot;
use onecli_store::{AuditRow, StoreContents};
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_vault::{KeySource, Vault};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::{AuditProgress, CgroupInfo, DaemonControl, Handles, Processes, bind, serve};

/// Returns whether the tests run as root, and prints which part is skipped otherwise.
pub fn root(part: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("not run: {part} (needs root)");
    }
    is_root
}

/// A host that only records the calls made to it.
pub struct FakeDaemon {
    transparent: Transparent,
    fault: Mutex<Option<String>>,
    reload_fault: Mutex<Option<String>>,
    cgroups: Mutex<Vec<String>>,
    busy: Mutex<Option<(String, bool)>>,
    reload_time: Mutex<Duration>,
    reloads: AtomicU64,
    data_dir: Mutex<PathBuf>,
    recorded: Mutex<Vec<String>>,
}

impl FakeDaemon {
    fn new(transparent: Transparent) -> FakeDaemon {
        FakeDaemon {
            transparent,
            fault: Mutex::default(),
            reload_fault: Mutex::default(),
            cgroups: Mutex::default(),
            busy: Mutex::default(),
            reload_time: Mutex::default(),
            reloads: AtomicU64::new(0),
            data_dir: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    pub fn redirecting() -> FakeDaemon {
        FakeDaemon::new(Transparent::Available)
    }

    pub fn without_ebpf() -> FakeDaemon {
        let (reason, fix) = ("started with --no-ebpf".to_owned(), "start the daemon without it".to_owned());
        FakeDaemon::new(Transparent::Off { reason, fix })
    }

    pub fn break_links(&self, fault: &str) {
        *self.fault.lock() = Some(fault.to_owned());
    }

    pub fn fail_reload(&self, fault: &str) {
        *self.reload_fault.lock() = Some(fault.to_owned());
    }

    pub fn slow_reload(&self, time: Duration) {
        *self.reload_time.lock() = time;
    }

    /// Puts processes into this cgroup; `immortal` ones survive a kill.
    pub fn populate(&self, cgroup: &str, immortal: bool) {
        *self.busy.lock() = Some((cgroup.to_owned(), immortal));
    }

    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::SeqCst)
    }

    /// Returns the entries passed to the audit log.
    pub fn recorded(&self) -> Vec<String> {
        self.recorded.lock().clone()
    }

    pub fn cgroups(&self) -> Vec<String> {
        self.cgroups.lock().clone()
    }
}

#[async_trait]
impl DaemonControl for FakeDaemon {
    fn default_cgroup(&self, agent: &AgentName) -> Result<CgroupName, String> {
        format!("onecli-agents-{agent}.slice").parse().map_err(|error| format!("{error}"))
    }

    fn ensure_cgroup(&self, name: &CgroupName) -> Result<CgroupInfo, String> {
        let mut cgroups = self.cgroups.lock();
        if !cgroups.iter().any(|known| known == name.as_str()) {
            cgroups.push(name.to_string());
        }
        Ok(CgroupInfo { path: Path::new("/cgroups").join(name.as_str()), id: 7 })
    }

    fn populated_cgroup(&self, name: &CgroupName) -> Result<Option<PathBuf>, String> {
        let busy = self.busy.lock().clone().filter(|(cgroup, _)| cgroup == name.as_str());
        Ok(busy.map(|(cgroup, _)| Path::new("/cgroups").join(cgroup)))
    }

    async fn end_processes(&self, name: &CgroupName) -> Result<(), String> {
        let mut busy = self.busy.lock();
        match busy.take() {
            Some((cgroup, true)) if cgroup == name.as_str() => {
                *busy = Some((cgroup, true));
                Err("processes do not end".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn remove_cgroup(&self, name: &CgroupName) -> Result<(), String> {
        if self.populated_cgroup(name)?.is_some() {
            return Err("processes live in it".to_owned());
        }
        self.cgroups.lock().retain(|known| known != name.as_str());
        Ok(())
    }

    fn transparent(&self) -> Transparent {
        self.transparent.clone()
    }

    fn check_transparent(&self) -> Result<(), String> {
        self.fault.lock().clone().map_or(Ok(()), Err)
    }

    fn place(&self) -> DaemonLayout {
        DaemonLayout {
            ebpf: false,
            agents_root: "agents.slice".into(),
            daemon_cgroup: "daemon.slice".into(),
            bpffs_dir: "/sys/fs/bpf/onecli-test".into(),
            transparent_port: 10256,
            explicit: Vec::new(),
            explicit_tls: Vec::new(),
            proxied: false,
        }
    }

    fn ca(&self) -> Ca {
        Ca {
            pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            bundle: "/run/onecli/ca-bundle.pem".into(),
            certificates: Vec::new(),
        }
    }

    async fn rotate_ca(&self, finish: bool) -> Result<Ca, String> {
        if finish { Err("there is no next authority".to_owned()) } else { Ok(self.ca()) }
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir.lock().clone()
    }

    fn record(&self, code: &'static str, detail: &str) {
        self.recorded.lock().push(format!("{code}: {detail}"));
    }

    async fn record_waiting(&self, _: AgentId) {}

    async fn test_secret(
        &self,
        _test: &onecli_model::harmless::TestRequest,
    ) -> Result<onecli_model::harmless::TestAnswer, onecli_model::Refusal> {
        Err(onecli_model::Refusal::new(onecli_model::Code::Internal, "no upstream here", ""))
    }

    fn private_dirs(&self) -> Vec<PathBuf> {
        vec!["/var/lib/onecli".into()]
    }

    fn explicit_address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 1], 10255)))
    }

    fn explicit_addresses(&self) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        (self.explicit_address().into_iter().collect(), Vec::new())
    }

    fn processes(&self, name: &CgroupName) -> Result<Processes, String> {
        let populated = self.populated_cgroup(name)?.is_some();
        Ok(Processes { count: populated.into(), ..Processes::default() })
    }

    fn connections(&self, _: AgentId) -> usize {
        0
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([("requests".to_owned(), 3)])
    }

    async fn reload(&self) -> Result<(), String> {
        if let Some(fault) = self.reload_fault.lock().clone() {
            return Err(fault);
        }
        let time = *self.reload_time.lock();
        tokio::time::sleep(time).await;
        self.reloads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// The server; stops on drop.
pub struct Served {
    dir: TempDir,
    runtime: Runtime,
    host: Arc<FakeDaemon>,
    handles: Handles,
    progress: watch::Sender<u64>,
    stop: Option<oneshot::Sender<()>>,
}

impl Served {
    pub fn start(host: FakeDaemon) -> Served {
        Served::with_agents_root(host, "onecli.slice/onecli-agents.slice")
    }

    pub fn with_agents_root(host: FakeDaemon, agents_root: &str) -> Served {
        let dir = tempfile::tempdir().unwrap();
        let data = PrivateDir::create(&dir.path().join("data")).unwrap();
        let runtime = Runtime::new().unwrap();
        data.path().clone_into(&mut host.data_dir.lock());
        let host = Arc::new(host);
        let (store, vault) = runtime.block_on(async {
            let store =
                onecli_store::open(&format!("sqlite://{}", data.join("onecli.db").display())).await.unwrap();
            let vault =
                Vault::unlock(store.as_ref(), &KeySource::file(&data), Arc::new(OsRandom)).await.unwrap();
            (store, Arc::new(vault))
        });
        let progress = watch::Sender::new(0);
        let handles = Handles {
            keep_replaced: Duration::from_hours(24),
            server: None,
            commands_off: None,
            own_uids: Vec::new(),
            store,
            vault,
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            audit: AuditProgress {
                durable: progress.subscribe(),
                shipped: progress.subscribe(),
                fault: watch::Sender::new(None).subscribe(),
                shipping_fault: watch::Sender::new(None).subscribe(),
            },
            host: Arc::clone(&host) as Arc<dyn DaemonControl>,
            policy: watch::Sender::new(Arc::<Snapshot>::default()).subscribe(),
            approvals: Arc::default(),
            agents_root: agents_root.to_owned(),
        };
        let listener = bind(&dir.path().join("admin.sock")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        runtime.spawn(serve(listener, handles.clone(), async {
            let _ = stopped.await;
        }));
        Served { dir, runtime, host, handles, progress, stop: Some(stop) }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    pub fn host(&self) -> &FakeDaemon {
        &self.host
    }

    /// Returns the parts that the server uses.
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }

    /// Runs a future on the server's runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub fn vault(&self) -> &Vault {
        &self.handles.vault
    }

    /// Returns the stored state.
    pub fn state(&self) -> StoreContents {
        self.runtime.block_on(self.handles.store.load()).unwrap()
    }

    /// Adds an audit record as the shipper would.
    pub fn add_audit(&self, seq: u64, agent: &str) {
        let time = "2026-01-02T03:04:05.000006Z".parse().unwrap();
        let json = format!(
            r#"{{"time":"{time}","seq":{seq},"event":"decision","agent":"{agent}","host":"api.test"}}"#
        );
        let row = AuditRow {
            id: 0,
            log: onecli_model::LogId(uuid::Uuid::nil()),
            seq,
            time,
            request_id: None,
            event: "decision".to_owned(),
            agent: Some(agent.to_owned()),
            host: Some("api.test".to_owned()),
            verdict: None,
            code: None,
            launched_by: None,
            json,
        };
        self.runtime.block_on(self.handles.store.insert_audit(&[row])).unwrap();
        self.progress.send_replace(seq);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}
