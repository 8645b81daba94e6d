//! Entering a cgroup, and making sure of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::LaunchError;

/// Moves this process into the cgroup at `directory`. Sockets opened from now on are born there; that is why this
/// comes before anything of the agent's runs.
pub(super) fn enter(directory: &Path) -> Result<(), LaunchError> {
    let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
    let expected = path_in_hierarchy(&mountinfo, directory)
        .ok_or_else(|| LaunchError::NotCgroup(directory.to_owned()))?;

    let procs = directory.join("cgroup.procs");
    // "0" is the writer itself (cgroups(7)).
    fs::write(&procs, "0").map_err(|source| LaunchError::Cgroup { path: procs, source })?;

    let memberships = read(Path::new("/proc/self/cgroup"))?;
    let actual = unified_path(&memberships).unwrap_or_default();
    if Path::new(actual) == expected {
        Ok(())
    } else {
        Err(LaunchError::WrongCgroup { expected: expected.display().to_string(), actual: actual.to_owned() })
    }
}

fn read(path: &Path) -> Result<String, LaunchError> {
    let failed = |source: io::Error| LaunchError::Cgroup { path: path.to_owned(), source };
    fs::read_to_string(path).map_err(failed)
}

/// The path that `/proc/PID/cgroup` shows for `directory`, by the mount table (`proc_pid_mountinfo(5)`).
pub(super) fn path_in_hierarchy(mountinfo: &str, directory: &Path) -> Option<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            if source.split(' ').next() != Some("cgroup2") {
                return None;
            }
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let below = directory.strip_prefix(point).ok()?;
            Some((point.len(), Path::new(root).join(below)))
        })
        .max_by_key(|(point_len, _)| *point_len)
        .map(|(_, path)| path)
}

/// The cgroup2 line of `/proc/PID/cgroup`.
pub(super) fn unified_path(memberships: &str) -> Option<&str> {
    memberships.lines().find_map(|line| line.strip_prefix("0::"))
}
