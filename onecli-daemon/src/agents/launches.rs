//! The user who launched the command that a cgroup belongs to.

use std::collections::HashMap;
use std::path::Path;

use onecli_model::{CgroupName, command_cgroup};
use onecli_sys::kernel::Cgroup2;
use parking_lot::RwLock;

/// The number of cached cgroups, 24 bytes each. A full cache is cleared, and all are looked up again.
const REMEMBERED: usize = 8192;

/// Uids by the ids of commands' cgroups. The kernel does not reuse an id before the next boot.
#[derive(Debug, Default)]
pub(super) struct Launches(RwLock<HashMap<u64, Option<u32>>>);

impl Launches {
    /// Returns the uid for the cgroup with id `command`, a direct child of the agent's cgroup `agent` in `root`.
    pub(super) fn launched_by(
        &self,
        cgroups: &Cgroup2,
        root: &Path,
        agent: &CgroupName,
        command: u64,
    ) -> Option<u32> {
        if let Some(known) = self.0.read().get(&command) {
            return *known;
        }
        let children = cgroups.agents(&root.join(agent.as_str())).ok()?;
        let mut known = self.0.write();
        if known.len() + children.len() >= REMEMBERED {
            known.clear();
        }
        for child in children.into_iter().take(REMEMBERED) {
            let name = child.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            known.insert(child.id, command_cgroup::launched_by(agent, name));
        }
        // A more deeply nested cgroup belongs to a container or another manager.
        *known.entry(command).or_default()
    }
}
