//! Removes the programs for good, without releasing a running agent from enforcement.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    attach,
    bpffs::Pins,
    cgroup::Cgroup2,
    error::KernelError,
    hooks::{AttachPoint, hooks},
    link::Target,
};

/// Directories below the root of cgroup2 that are searched for a cgroup id. A host has some hundred.
const MAX_CGROUPS: usize = 100_000;

/// The result of removing the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetireOutcome {
    /// Directories of the cgroups that the agents' programs were attached to.
    pub cgroups: Vec<PathBuf>,
    /// The reason why the programs are still attached; `None` if they are not.
    pub kept: Option<StillAttached>,
}

/// Reasons why programs stay attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StillAttached {
    /// Processes run there. Without the programs they would reach the network directly.
    #[error("agents are still running in {}", .0.display())]
    Populated(PathBuf),
    /// A link names a cgroup, and no directory has that id.
    #[error("the kernel programs are attached to cgroup {0}, and no directory of cgroup2 has that id")]
    Unknown(u64),
}

/// Detaches the programs that are pinned below `bpffs_dir`, unless a process is in a cgroup that they are attached to.
/// The links name those cgroups, so a later change of the configuration makes no difference. In doubt the programs stay
/// attached.
///
/// # Errors
/// [`KernelError`]; the programs are then attached, or their state is unknown.
pub fn retire(bpffs_dir: &Path) -> Result<RetireOutcome, KernelError> {
    let pins = Pins::below(bpffs_dir);
    if pins.are_absent() {
        // A daemon that serves only the explicit proxy attaches nothing.
        return Ok(RetireOutcome { cgroups: Vec::new(), kept: None });
    }
    let cgroups = Cgroup2::find()?;
    let mut found = Vec::new();
    for id in held(&pins)? {
        let Some(directory) = with_id(cgroups.root(), id) else {
            return Ok(RetireOutcome { cgroups: found, kept: Some(StillAttached::Unknown(id)) });
        };
        let below = directory.strip_prefix(cgroups.root()).unwrap_or(&directory);
        let is_populated = cgroups.is_populated(below)?;
        found.push(directory.clone());
        if is_populated {
            return Ok(RetireOutcome { cgroups: found, kept: Some(StillAttached::Populated(directory)) });
        }
    }
    attach::detach(bpffs_dir)?;
    Ok(RetireOutcome { cgroups: found, kept: None })
}

/// Returns the ids of the cgroups that the agents' programs are attached to. A link whose cgroup is removed is left
/// out.
fn held(pins: &Pins) -> Result<BTreeSet<u64>, KernelError> {
    let mut ids = BTreeSet::new();
    for hook in hooks(pins).filter(|hook| hook.place == AttachPoint::Agents) {
        if let Some((_, info)) = attach::open_link(hook, pins)?
            && let Target::Cgroup(id @ 1..) = info.target
        {
            ids.insert(id);
        }
    }
    Ok(ids)
}

/// Returns the directory whose inode number is the cgroup's id, anywhere in the hierarchy.
fn with_id(root: &Path, id: u64) -> Option<PathBuf> {
    let mut directories = vec![root.to_owned()];
    for _ in 0..MAX_CGROUPS {
        let directory = directories.pop()?;
        for entry in fs::read_dir(&directory).ok()?.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && metadata.ino() == id {
                return Some(entry.path());
            }
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    None
}
