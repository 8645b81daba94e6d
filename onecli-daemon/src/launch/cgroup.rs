//! Entering a cgroup, and making sure of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::LaunchError;

/// Here where systemd is the service manager (`sd_booted(3)`): it then owns the cgroups.
const SYSTEMD: &str = "/run/systemd/system";
/// How long systemd may take to move a process.
const MOVE_TIME: Duration = Duration::from_secs(10);
const MOVE_POLL: Duration = Duration::from_millis(2);

/// Moves this process into the cgroup at `directory`, or below. Sockets opened from now on are born there; that is why
/// this comes before anything of the agent's runs.
pub(super) fn enter(directory: &Path) -> Result<(), LaunchError> {
    match directory.file_name().and_then(|name| name.to_str()) {
        Some(slice) if is_slice(directory) && Path::new(SYSTEMD).exists() => enter_scope(directory, slice),
        _ => enter_directly(directory),
    }
}

/// Is it named as systemd names slices?
fn is_slice(directory: &Path) -> bool {
    directory.extension().is_some_and(|extension| extension == "slice")
}

/// Has systemd make a scope of this process in the agent's slice. A process in a slice itself would be in systemd's way,
/// and the kernel refuses it where the slice has controllers enabled (cgroups(7), "no internal processes").
fn enter_scope(directory: &Path, slice: &str) -> Result<(), LaunchError> {
    let failed = |message: String| LaunchError::Scope { slice: slice.to_owned(), message };
    let pid = std::process::id();
    let unit = format!("{}-run-{pid}.scope", slice.trim_end_matches(".slice"));
    let properties = format!("Slice s {slice} CollectMode s inactive-or-failed PIDs au 1 {pid}");
    let made = Command::new("busctl")
        .args(["--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"])
        .args([
            "org.freedesktop.systemd1.Manager",
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            &unit,
            "fail",
            "3",
        ])
        .args(properties.split(' '))
        .arg("0")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("busctl: {error}")))?;
    if !made.status.success() {
        return Err(failed(String::from_utf8_lossy(&made.stderr).trim().to_owned()));
    }
    let expected = expected(directory)?;
    // The answer is that a job was queued.
    let polls = MOVE_TIME.as_millis() / MOVE_POLL.as_millis();
    for _ in 0..polls {
        if Path::new(&own()?).starts_with(&expected) {
            return Ok(());
        }
        std::thread::sleep(MOVE_POLL);
    }
    Err(LaunchError::WrongCgroup { expected: expected.display().to_string(), actual: own()? })
}

fn enter_directly(directory: &Path) -> Result<(), LaunchError> {
    let expected = expected(directory)?;
    let procs = directory.join("cgroup.procs");
    // "0" is the writer itself (cgroups(7)).
    fs::write(&procs, "0").map_err(|source| LaunchError::Cgroup { path: procs, source })?;

    let actual = own()?;
    if Path::new(&actual) == expected {
        Ok(())
    } else {
        Err(LaunchError::WrongCgroup { expected: expected.display().to_string(), actual })
    }
}

/// What the kernel calls the cgroup at `directory`.
fn expected(directory: &Path) -> Result<PathBuf, LaunchError> {
    let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
    path_in_hierarchy(&mountinfo, directory).ok_or_else(|| LaunchError::NotCgroup(directory.to_owned()))
}

/// Where this process is.
fn own() -> Result<String, LaunchError> {
    let memberships = read(Path::new("/proc/self/cgroup"))?;
    Ok(unified_path(&memberships).unwrap_or_default().to_owned())
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
