//! Removing the programs for good, without setting an agent free.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    Cgroup2, KernelError,
    attach::{self, Place},
    bpffs::Pins,
    link::Target,
};

/// Directories below an agents root's mount that are looked at for a cgroup id. A host has some hundred.
const MAX_CGROUPS: usize = 100_000;

/// What became of the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Directories of the cgroups whose agents the programs held.
    pub cgroups: Vec<PathBuf>,
    /// Why the programs are still attached; `None` where they are not.
    pub kept: Option<Kept>,
}

/// Why programs stay attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Kept {
    /// Processes live there. Without the programs they would reach the network directly.
    #[error("agents are still running in {}", .0.display())]
    Populated(PathBuf),
    /// A link says which cgroup it holds, and no directory has that id.
    #[error("the kernel programs hold cgroup {0}, and no directory of cgroup2 has that id")]
    Unknown(u64),
}

/// Detaches the programs that are pinned below `bpffs_dir`, unless a process lives in a cgroup that they hold. The links
/// themselves say which cgroups those are, so a configuration that changed since makes no difference. In doubt the programs
/// stay.
///
/// # Errors
/// [`KernelError`]; the programs are attached then, or nothing says that they are not.
pub fn retire(bpffs_dir: &Path) -> Result<Retired, KernelError> {
    let pins = Pins::below(bpffs_dir);
    if pins.are_absent() {
        // A daemon that serves only the explicit proxy attaches nothing.
        return Ok(Retired { cgroups: Vec::new(), kept: None });
    }
    let cgroups = Cgroup2::find()?;
    let mut found = Vec::new();
    for id in held(&pins)? {
        let Some(directory) = with_id(cgroups.root(), id) else {
            return Ok(Retired { cgroups: found, kept: Some(Kept::Unknown(id)) });
        };
        let below = directory.strip_prefix(cgroups.root()).unwrap_or(&directory);
        let is_populated = cgroups.is_populated(below)?;
        found.push(directory.clone());
        if is_populated {
            return Ok(Retired { cgroups: found, kept: Some(Kept::Populated(directory)) });
        }
    }
    attach::detach(bpffs_dir)?;
    Ok(Retired { cgroups: found, kept: None })
}

/// Ids of the cgroups that the agents' programs are attached to. A link whose cgroup is gone holds nobody.
fn held(pins: &Pins) -> Result<BTreeSet<u64>, KernelError> {
    let mut ids = BTreeSet::new();
    for hook in attach::hooks(pins).filter(|hook| hook.place == Place::Agents) {
        if let Some((_, info)) = attach::open_link(hook, pins)?
            && let Target::Cgroup(id @ 1..) = info.target
        {
            ids.insert(id);
        }
    }
    Ok(ids)
}

/// The directory whose inode number is the cgroup's id, wherever in the hierarchy it is.
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
