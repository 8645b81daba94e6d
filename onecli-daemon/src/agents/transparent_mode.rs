//! The agents' cgroups and the kernel programs attached to them.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use onecli_admin::CgroupInfo;
use onecli_api::Transparent;
use onecli_config::{Config, DaemonLayout};
use onecli_model::{AgentName, CgroupName, error_chain};
use onecli_sys::kernel::AgentEntry;
use onecli_sys::kernel::{self, Cgroup2, Denials, KernelConfig, KernelError, Redirect};
use parking_lot::RwLock;

use super::launches::Launches;
use crate::helper::{Helper, HelperError, NamespaceScan, Opened, ScanResult};
use crate::process::AppError;
use crate::process::peer::is_within;

/// The interval at which the agents root is checked. If the root is recreated, agents are unenforced and `onecli run`
/// is refused for up to this time.
const ROOT_CHECK: Duration = Duration::from_millis(500);

/// The managed cgroups of this host.
pub(crate) struct TransparentMode {
    agents_root: PathBuf,
    pub(super) state: Result<Active, Unavailable>,
}

pub(super) struct Active {
    pub(super) redirect: Redirect,
    pub(super) cgroups: Cgroup2,
    /// The id of the agents root that the programs are attached to.
    root: u64,
    pub(super) config: KernelConfig,
    helper: Helper,
    /// Names by cgroup id. The kernel does not reuse an id before the next boot, so an entry can only become
    /// superfluous.
    pub(super) names: RwLock<HashMap<u64, CgroupName>>,
    /// The users who launched the commands in the cgroups.
    pub(super) launches: Launches,
    /// The entry that the kernel programs have for each agent's cgroup.
    entries: RwLock<HashMap<CgroupName, AgentEntry>>,
}

pub(super) struct Unavailable {
    reason: String,
    fix: String,
}

impl fmt::Debug for TransparentMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransparentMode").field("agents_root", &self.agents_root).finish_non_exhaustive()
    }
}

impl TransparentMode {
    /// Attaches the kernel programs, moves this process into the daemon's cgroup, outside every agent's, and starts
    /// the helper there. If the helper is a service, takes over the programs that it attached. If both fail, the
    /// daemon still serves the explicit proxy and logs the reason.
    pub(crate) fn attach(config: &Config) -> TransparentMode {
        let agents_root = PathBuf::from(&config.kernel.agents_root);
        let attached = if config.kernel.ebpf {
            Active::new(config).map_err(|error| Unavailable {
                reason: error_chain(&error),
                fix: "run 'sudo onecli doctor' to see what is missing: Linux 5.15 or later with BPF and cgroup2, or a \
                      helper that runs as root"
                    .to_owned(),
            })
        } else {
            Err(Unavailable {
                reason: "the daemon runs with --no-ebpf".to_owned(),
                fix: "restart the daemon without --no-ebpf, and with kernel.ebpf = true".to_owned(),
            })
        };
        if let Err(unavailable) = &attached {
            tracing::warn!(
                reason = unavailable.reason,
                "connections are not redirected: only the explicit proxy is served"
            );
        }
        TransparentMode { agents_root, state: attached }
    }

    /// Returns whether connections are redirected.
    pub(crate) fn is_attached(&self) -> bool {
        self.state.is_ok()
    }

    /// Marks a listener as the daemon's: the kernel redirects to no other listener. Does nothing if connections are
    /// not redirected.
    pub(crate) fn stamp(&self, listener: &impl AsFd) -> Result<(), KernelError> {
        self.state.as_ref().map_or(Ok(()), |attached| attached.redirect.stamp(listener))
    }

    /// Returns the state as the admin API reports it.
    pub(crate) fn transparent(&self) -> Transparent {
        match &self.state {
            Ok(_) => Transparent::Available,
            Err(unavailable) => {
                Transparent::Off { reason: unavailable.reason.clone(), fix: unavailable.fix.clone() }
            }
        }
    }

    /// Checks that all programs are still attached.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.attached()?.helper.check()
    }

    /// Waits until the agents root is no longer the cgroup that the programs are attached to, and returns the reason.
    /// Waits forever if no programs are attached.
    pub(crate) async fn root_lost(&self) -> String {
        let Ok(attached) = &self.state else { return std::future::pending().await };
        let mut tick = tokio::time::interval(ROOT_CHECK);
        loop {
            tick.tick().await;
            let name = self.agents_root.display();
            match attached.cgroups.id_of(&self.agents_root) {
                Ok(id) if id == attached.root => {}
                Ok(_) => {
                    return format!(
                        "the agents' cgroup {name} was removed and created again: nothing is enforced in it"
                    );
                }
                Err(_) if !attached.cgroups.exists(&self.agents_root) => {
                    return format!("the agents' cgroup {name} was removed");
                }
                // Other errors of this check do not end the daemon.
                Err(_) => {}
            }
        }
    }

    /// Opens the sockets that an agent lacks in the network namespaces of its processes. Blocks until the helper has
    /// answered.
    pub(crate) fn scan(&self, scan: NamespaceScan) -> Result<(Vec<Opened>, ScanResult), HelperError> {
        match &self.state {
            Ok(attached) => attached.helper.scan(scan),
            Err(unavailable) => Err(HelperError::Refused(unavailable.reason.clone())),
        }
    }

    /// Returns the agents' cgroups, each with the address of its resolver, as last [announced](Self::announce).
    pub(crate) fn agents(&self) -> Vec<(CgroupName, Option<Ipv4Addr>)> {
        let Ok(attached) = &self.state else { return Vec::new() };
        let entries = attached.entries.read();
        let resolver =
            |entry: &AgentEntry| Some(Ipv4Addr::from(entry.dns_addr)).filter(|a| !a.is_unspecified());
        entries.iter().map(|(name, entry)| (name.clone(), resolver(entry))).collect()
    }

    /// Registers an agent whose cgroup has appeared with the kernel programs.
    pub(crate) fn recognise(&self, name: &CgroupName) {
        let Ok(attached) = &self.state else { return };
        let bound = attached
            .cgroups
            .id_of(&self.agents_root.join(name.as_str()))
            .and_then(|id| attached.bind(id, name));
        if let Err(error) = bound {
            tracing::warn!(cgroup = %name, error = error_chain(&error), "cannot register an agent with the kernel");
        }
    }

    /// Returns the directory of the agents root; `None` if no programs are attached to it.
    pub(crate) fn root_directory(&self) -> Option<PathBuf> {
        self.state.as_ref().ok()?.cgroups.path(&self.agents_root).ok()
    }

    /// Returns the default cgroup of an agent.
    pub(crate) fn default_cgroup(&self, agent: &AgentName) -> Result<CgroupName, String> {
        let name = kernel::agent_directory(&self.agents_root, agent.as_str())
            .map_err(|error| error_chain(&error))?;
        name.parse().map_err(|error: onecli_model::agent::CgroupNameError| error.to_string())
    }

    /// Creates a cgroup if it is missing.
    pub(crate) fn ensure(&self, name: &CgroupName) -> Result<CgroupInfo, String> {
        let attached = self.attached()?;
        let path = self.agents_root.join(name.as_str());
        attached.helper.make_cgroup(name)?;
        let id = attached.cgroups.id_of(&path).map_err(|error| error_chain(&error))?;
        attached.bind(id, name).map_err(|error| error_chain(&error))?;
        Ok(CgroupInfo { path: attached.cgroups.path(&path).map_err(|error| error_chain(&error))?, id })
    }

    /// Registers the complete list of agents with the kernel programs, by the cgroups that exist now, each with the
    /// address of its resolver. DNS of an agent without a resolver is refused.
    pub(crate) fn announce<'n>(
        &self,
        agents: impl Iterator<Item = (&'n CgroupName, Option<Ipv4Addr>)>,
    ) -> Result<(), KernelError> {
        let Ok(attached) = &self.state else { return Ok(()) };
        let entries: HashMap<CgroupName, AgentEntry> = (0..)
            .zip(agents)
            .map(|(index, (name, resolver))| {
                let dns_addr = resolver.unwrap_or(Ipv4Addr::UNSPECIFIED).octets();
                (name.clone(), AgentEntry { index, flags: 0, dns_addr })
            })
            .collect();
        let names: Vec<CgroupName> = entries.keys().cloned().collect();
        *attached.entries.write() = entries;
        for name in names {
            if let Ok(id) = attached.cgroups.id_of(&self.agents_root.join(name.as_str())) {
                attached.bind(id, &name)?;
            }
        }
        Ok(())
    }

    /// Returns the directory of a cgroup that contains processes. Queries the kernel even if connections are not
    /// redirected, because the next start of the daemon may redirect them.
    pub(crate) fn populated(&self, name: &CgroupName) -> Result<Option<PathBuf>, String> {
        let path = self.agents_root.join(name.as_str());
        let Some(cgroups) = self.cgroups() else { return Ok(None) };
        let populated = cgroups.is_populated(&path).map_err(|error| error_chain(&error))?;
        populated.then(|| cgroups.path(&path).map_err(|error| error_chain(&error))).transpose()
    }

    /// Kills all processes in a cgroup.
    pub(crate) fn kill(&self, name: &CgroupName) -> Result<(), String> {
        if let Ok(attached) = &self.state {
            return attached.helper.kill_cgroup(name);
        }
        let path = self.agents_root.join(name.as_str());
        self.cgroups().map_or(Ok(()), |cgroups| cgroups.kill(&path)).map_err(|error| error_chain(&error))
    }

    fn cgroups(&self) -> Option<Cgroup2> {
        self.state.as_ref().map_or_else(|_| Cgroup2::find().ok(), |attached| Some(attached.cgroups.clone()))
    }

    /// Removes an agent's cgroup.
    pub(crate) fn remove(&self, name: &CgroupName) -> Result<(), String> {
        let Ok(attached) = &self.state else { return Ok(()) };
        let path = self.agents_root.join(name.as_str());
        if let Ok(id) = attached.cgroups.id_of(&path) {
            attached.redirect.remove_agent(id).map_err(|error| error_chain(&error))?;
        }
        attached.helper.remove_cgroup(name)
    }

    /// Returns the kernel programs' counters.
    pub(crate) fn stats(&self) -> Vec<(&'static str, u64)> {
        self.state.as_ref().ok().and_then(|attached| attached.redirect.stats().ok()).unwrap_or_default()
    }

    /// Returns the kernel's refusals, for the one task that reads them.
    pub(crate) fn take_denials(&self) -> Option<Denials> {
        let attached = self.state.as_ref().ok()?;
        attached
            .redirect
            .take_denials()
            .inspect_err(|error| {
                tracing::warn!(error = error_chain(error), "cannot read the refusals of the kernel programs");
            })
            .ok()?
    }

    /// Returns the name of the agent's cgroup with this id.
    pub(crate) fn name_of(&self, id: u64) -> Option<CgroupName> {
        self.state.as_ref().ok()?.name_of(id)
    }

    /// Returns the uid that launched the command in the cgroup with id `command`. `agent` is the id of its agent's
    /// cgroup.
    pub(crate) fn launched_by(&self, agent: u64, command: u64) -> Option<u32> {
        let attached = self.state.as_ref().ok()?;
        attached.launched_by(&attached.name_of(agent)?, command)
    }

    fn attached(&self) -> Result<&Active, String> {
        self.state.as_ref().map_err(|unavailable| format!("{}: {}", unavailable.reason, unavailable.fix))
    }
}

impl Active {
    fn new(config: &Config) -> Result<Active, AppError> {
        let helper = config.helper_socket.as_deref();
        let config = DaemonLayout::new(config).kernel_config();
        let cgroups = Cgroup2::find()?;
        let (redirect, helper) = if let Some(socket) = helper {
            let (helper, maps) =
                Helper::connect(socket).map_err(|error| AppError::Helper(error.to_string()))?;
            (Redirect::adopt(maps)?, helper)
        } else {
            let redirect = Redirect::attach(&config)?;
            // A service already runs in a cgroup of its own, and a slice with controllers accepts no processes.
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            if !is_within(&own, &config.daemon_cgroup) {
                cgroups.move_self_into(&config.daemon_cgroup)?;
            }
            (redirect, Helper::start(&config)?)
        };
        let root = cgroups.id_of(&config.agents_root)?;
        Ok(Active {
            redirect,
            cgroups,
            root,
            config,
            helper,
            names: RwLock::default(),
            launches: Launches::default(),
            entries: RwLock::default(),
        })
    }

    /// Records the name of a cgroup id and, if it is an agent's, registers it with the kernel programs.
    pub(super) fn bind(&self, id: u64, name: &CgroupName) -> Result<(), KernelError> {
        self.names.write().insert(id, name.clone());
        let entry = self.entries.read().get(name).copied();
        entry.map_or(Ok(()), |entry| self.redirect.set_agent(id, entry))
    }
}
