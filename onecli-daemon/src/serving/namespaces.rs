//! Listeners in the network namespaces of managed processes, mainly of containers.
//!
//! The kernel redirects a managed process to the loopback of its own namespace. It refuses the process's connections
//! while that namespace has no listener of the daemon. The helper therefore opens a listener as soon as it sees an
//! agent's process in a namespace. A container's cgroup appears long before its program starts: events of the agents'
//! cgroups ([`Watch`]) start a burst of scans. They miss a process that changes its namespace later. The counter of
//! unserved connects or the sweep finds such a process. Its connections wait until then, for seven seconds at most.
//!
//! A listener keeps its namespace alive. The daemon therefore closes a listener whose namespace has had no managed
//! process for a while.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use onecli_model::{CgroupName, error_chain};
use onecli_net::BoundListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::cgroup_events::Watch;
use super::connections::ConnectionHandler;
use crate::agents::TransparentMode;
use crate::helper::{HelperError, Kind, NamespaceScan, Opened, ScanResult};
use crate::process::AppError;

/// The maximum number of namespaces for one agent. Processes in any others are refused.
const MAX_OF_AGENT: usize = 64;
/// The maximum number of namespaces for all agents.
const MAX_OF_ALL: usize = 1024;

/// The delays in milliseconds after an event at which the agent is scanned. A process may enter its namespace some
/// time after it enters a cgroup.
const BURST: [u64; 8] = [0, 5, 15, 40, 100, 250, 600, 1500];
/// The minimum interval between two scans of one agent.
const PAUSE: Duration = Duration::from_millis(5);
/// The interval at which the kernel's counters are read.
const TICK: Duration = Duration::from_millis(100);
/// The intervals at which all agents are scanned: while their processes open sockets, and while they do not.
const BUSY_SWEEP: Duration = Duration::from_millis(500);
const IDLE_SWEEP: Duration = Duration::from_secs(3);
/// The time after which a namespace without managed processes is closed.
const LINGER: Duration = Duration::from_secs(5);

/// The kernel's counters of processes without a listener or a resolver, and of all that use the network.
const UNSERVED: [&str; 2] = ["connections_unserved", "packets_dropped"];
const SOCKETS: &str = "sockets_created";

/// Synchronizes the listeners with the agents' processes.
pub(crate) struct Namespaces {
    managed: Arc<TransparentMode>,
    dns: Option<Arc<onecli_dns::Server>>,
    handler: ConnectionHandler,
    watch: Option<Watch>,
    open: HashMap<u64, Open>,
    agents: HashMap<CgroupName, Agent>,
    counters: Counters,
    swept: Instant,
}

/// One namespace with listeners of the daemon.
struct Open {
    tasks: Vec<AbortHandle>,
    /// The time at which a managed process was last seen in it.
    used: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The state of one agent.
#[derive(Default)]
struct Agent {
    resolver: Option<Ipv4Addr>,
    /// The times at which to scan it, in order.
    due: Vec<Instant>,
    /// The namespaces of its processes at the last scan.
    live: HashSet<u64>,
    /// Namespaces that could not be opened. Each is logged once.
    unopened: BTreeMap<u64, String>,
    /// Whether the agent exceeded its limit. This is logged once.
    cut: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    unserved: u64,
    sockets: u64,
}

impl Namespaces {
    /// Watches the agents' cgroups if connections are redirected. Must be called in a tokio runtime.
    pub(crate) fn new(
        managed: Arc<TransparentMode>,
        dns: Option<Arc<onecli_dns::Server>>,
        handler: ConnectionHandler,
    ) -> Result<Namespaces, AppError> {
        let watch = managed.root_directory().map(Watch::new).transpose().map_err(AppError::Socket)?;
        Ok(Namespaces {
            managed,
            dns,
            handler,
            watch,
            open: HashMap::new(),
            agents: HashMap::new(),
            counters: Counters::default(),
            swept: Instant::now(),
        })
    }

    /// Serves until the helper is lost, which is its only end. Without redirection it waits forever.
    pub(crate) async fn serve(mut self) -> HelperError {
        let Some(mut watch) = self.watch.take() else { return pending().await };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.agents.values().filter_map(|agent| agent.due.first()).min().copied();
            tokio::select! {
                changed = watch.changed() => match changed {
                    Some(agent) => self.stir(&agent),
                    None => self.meet(&mut watch),
                },
                _ = tick.tick() => {
                    self.meet(&mut watch);
                    self.count();
                    self.give_up();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Err(lost) = self.scan_due().await {
                        return lost;
                    }
                }
            }
        }
    }

    /// Updates the list of agents and watches those whose cgroups have appeared.
    fn meet(&mut self, watch: &mut Watch) {
        let current: HashMap<CgroupName, Option<Ipv4Addr>> = self.managed.agents().into_iter().collect();
        self.agents.retain(|name, _| current.contains_key(name));
        for (name, resolver) in current {
            if watch.add(&name) {
                // A container engine, for example, creates the cgroup without notice to the daemon.
                self.managed.recognise(&name);
                self.agents.entry(name.clone()).or_default().begin_burst();
            }
            self.agents.entry(name).or_default().resolver = resolver;
        }
    }

    /// Handles a change in an agent's cgroup.
    fn stir(&mut self, name: &CgroupName) {
        if let Some(agent) = self.agents.get_mut(name) {
            agent.begin_burst();
        }
    }

    /// Reads the kernel's counters. Scans at once if processes were refused for lack of a listener.
    fn count(&mut self) {
        let stats = self.managed.stats();
        let stat = |name| stats.iter().find(|(known, _)| *known == name).map_or(0, |(_, n)| *n);
        let now = Counters { unserved: UNSERVED.into_iter().map(stat).sum(), sockets: stat(SOCKETS) };
        let sweep = if now == self.counters { IDLE_SWEEP } else { BUSY_SWEEP };
        if now.unserved != self.counters.unserved || self.swept.elapsed() >= sweep {
            self.counters = now;
            self.swept = Instant::now();
            for agent in self.agents.values_mut() {
                agent.scan_soon();
            }
        }
    }

    /// Closes namespaces that no process has used for a while.
    fn give_up(&mut self) {
        let in_use: HashSet<u64> = self.agents.values().flat_map(|agent| &agent.live).copied().collect();
        self.open.retain(|netns, open| {
            if in_use.contains(netns) {
                open.used = Instant::now();
            }
            let stays = open.used.elapsed() < LINGER;
            if !stays {
                tracing::debug!(netns, "no managed process is left in a network namespace");
                if let Some(dns) = &self.dns {
                    dns.leave(*netns);
                }
            }
            stays
        });
    }

    async fn scan_due(&mut self) -> Result<(), HelperError> {
        let now = Instant::now();
        let due: Vec<CgroupName> = self
            .agents
            .iter_mut()
            .filter_map(|(name, agent)| agent.take_due(now).then(|| name.clone()))
            .collect();
        for name in due {
            self.scan(name).await?;
        }
        Ok(())
    }

    async fn scan(&mut self, name: CgroupName) -> Result<(), HelperError> {
        let Some(agent) = self.agents.get(&name) else { return Ok(()) };
        let own = agent.live.iter().filter(|netns| self.open.contains_key(netns)).count();
        let scan = NamespaceScan {
            cgroup: name.clone(),
            resolver: agent.resolver,
            listening: self.open.keys().copied().collect(),
            resolving: self.dns.as_ref().map(|dns| dns.namespaces(&name)).unwrap_or_default(),
            room: MAX_OF_AGENT.saturating_sub(own).min(MAX_OF_ALL.saturating_sub(self.open.len())),
        };
        let managed = Arc::clone(&self.managed);
        let asked = tokio::task::spawn_blocking(move || managed.scan(scan)).await;
        match asked.map_err(|error| HelperError::Gone(error.to_string()))? {
            Ok((opened, scanned)) => {
                for new in opened {
                    self.take(&name, new);
                }
                if let Some(agent) = self.agents.get_mut(&name) {
                    agent.note(&name, scanned);
                }
                Ok(())
            }
            Err(HelperError::Refused(reason)) => {
                tracing::warn!(cgroup = %name, reason, "cannot search the network namespaces of an agent");
                Ok(())
            }
            Err(lost @ HelperError::Gone(_)) => Err(lost),
        }
    }

    /// Serves the sockets of one namespace.
    fn take(&mut self, name: &CgroupName, new: Opened) {
        let Opened { netns, cookie, sockets } = new;
        let mut tasks = Vec::new();
        for (kind, socket) in sockets {
            let served = match kind {
                Kind::Transparent => self.listen(socket).map(|task| tasks.push(task)),
                Kind::Resolver => self.resolve(name, netns, socket),
            };
            if let Err(reason) = served {
                tracing::warn!(cgroup = %name, netns, reason, "cannot serve a socket in a network namespace");
            }
        }
        if !tasks.is_empty() {
            tracing::info!(cgroup = %name, netns, cookie, "listening in a network namespace");
            self.open.insert(netns, Open { tasks, used: Instant::now() });
        }
    }

    fn listen(&self, socket: OwnedFd) -> Result<AbortHandle, String> {
        let bound = BoundListener::try_from(socket).map_err(|error| error.to_string())?;
        // Stamped before any client can connect: the kernel redirects only to a stamped listener.
        self.managed.stamp(&bound).map_err(|error| error_chain(&error))?;
        let listener = bound.listen().map_err(|error| error.to_string())?;
        Ok(tokio::spawn(self.handler.clone().transparent(listener)).abort_handle())
    }

    fn resolve(&self, name: &CgroupName, netns: u64, socket: OwnedFd) -> Result<(), String> {
        let Some(dns) = &self.dns else { return Ok(()) };
        dns.serve_in(netns, name, socket.into()).map_err(|error| error.to_string())
    }
}

impl Agent {
    fn begin_burst(&mut self) {
        let now = Instant::now();
        self.due = BURST.iter().map(|&after| now + Duration::from_millis(after)).collect();
    }

    fn scan_soon(&mut self) {
        if self.due.is_empty() {
            self.due.push(Instant::now());
        }
    }

    /// Returns whether a scan is due. If it is, drops all times up to now and those within the pause that follows.
    fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.first().is_some_and(|due| *due <= now);
        if is_due {
            self.due.retain(|due| *due > now + PAUSE);
        }
        is_due
    }

    /// Records the result of a scan.
    fn note(&mut self, name: &CgroupName, scanned: ScanResult) {
        let ScanResult { live, failed, cut } = scanned;
        let failed: BTreeMap<u64, String> = failed.into_iter().collect();
        for (netns, reason) in failed.iter().filter(|(netns, _)| !self.unopened.contains_key(netns)) {
            tracing::warn!(
                cgroup = %name, netns, reason,
                "cannot open a listener in a network namespace: connections of managed processes there are refused"
            );
        }
        if cut && !self.cut {
            tracing::warn!(
                cgroup = %name,
                limit = MAX_OF_AGENT,
                "the agent has more processes or network namespaces than the limit: connections from the others are refused"
            );
        }
        (self.live, self.unopened, self.cut) = (live.into_iter().collect(), failed, cut);
    }
}
