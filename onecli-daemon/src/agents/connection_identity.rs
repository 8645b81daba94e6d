//! The identity of a redirected connection: the kernel's record names the cgroup, and the cgroup names the agent.
//!
//! The proxy combines it with the request's token ([`onecli_policy::Snapshot::identify`]).

use onecli_model::{CgroupName, error_chain};
use onecli_net::{ConnectionOrigin, OriginLookup};
use tokio::net::TcpStream;

use super::transparent_mode::{Active, TransparentMode};

impl OriginLookup for TransparentMode {
    fn origin(&self, accepted: &TcpStream) -> Option<ConnectionOrigin> {
        let attached = self.state.as_ref().ok()?;
        match attached.redirect.flow(accepted) {
            Ok(flow) => flow.map(|flow| {
                let cgroup = attached.name_of(flow.agent_cgroup_id);
                let launched_by =
                    cgroup.as_ref().and_then(|agent| attached.launched_by(agent, flow.current_cgroup_id));
                ConnectionOrigin { flow, cgroup, launched_by }
            }),
            Err(error) => {
                tracing::error!(
                    error = error_chain(&error),
                    "cannot read the kernel's record of a connection"
                );
                None
            }
        }
    }
}

impl Active {
    /// The name of a cgroup, by the kernel's id.
    pub(super) fn name_of(&self, id: u64) -> Option<CgroupName> {
        if let Some(name) = self.names.read().get(&id) {
            return Some(name.clone());
        }
        // The cgroup was created or recreated since, for example by systemd. It is bound by path.
        let found = self.cgroups.path_of_id(&self.config.agents_root, id).ok()??;
        let name: CgroupName = found.file_name()?.to_str()?.parse().ok()?;
        self.bind(id, &name).ok()?;
        Some(name)
    }

    /// The user who launched the command whose process connected.
    pub(super) fn launched_by(&self, agent: &CgroupName, command: u64) -> Option<u32> {
        self.launches.launched_by(&self.cgroups, &self.config.agents_root, agent, command)
    }
}
