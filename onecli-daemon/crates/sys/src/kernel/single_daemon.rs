//! A lock that allows one daemon at a time for the same agents.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{Cgroup2, KernelError, bpffs::Pins};
use crate::lock::ExclusiveLock;

/// Exclusive use of the kernel programs: no other process attaches to the same agents root or uses the same pins.
/// Released when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Claim {
    _agents_root: ExclusiveLock,
    _pins: ExclusiveLock,
}

/// Claims the agents root, a path below cgroup2, and the directory of pins. Both are made if they are missing.
///
/// # Errors
/// [`KernelError::Claimed`] if another process holds one of them; otherwise the errors of [`super::Redirect::attach`].
pub fn claim(agents_root: &Path, bpffs_dir: &Path) -> Result<Claim, KernelError> {
    let cgroups = Cgroup2::find()?;
    cgroups.ensure(agents_root)?;
    // A file in the cgroup, because each attach briefly locks its directory.
    let of_cgroup = cgroups.path(agents_root)?.join("cgroup.procs");
    let file = File::open(&of_cgroup).map_err(KernelError::cgroup("open", &of_cgroup))?;
    let agents_root = take(file, of_cgroup)?;
    Pins::below(bpffs_dir).create()?;
    let directory = File::open(bpffs_dir).map_err(KernelError::bpffs("open", bpffs_dir))?;
    let pins = take(directory, bpffs_dir.to_owned())?;
    Ok(Claim { _agents_root: agents_root, _pins: pins })
}

fn take(file: File, path: PathBuf) -> Result<ExclusiveLock, KernelError> {
    ExclusiveLock::take(file).map_err(|source| KernelError::Claimed { path, source })
}
