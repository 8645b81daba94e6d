//! Entry into a cgroup, and its verification.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use onecli_model::{command_cgroup, command_cgroup::PREFIX};

use super::deadline::Deadline;
use crate::error::LaunchError;

/// Exists if systemd is the service manager (`sd_booted(3)`), which then owns the cgroups.
const SYSTEMD: &str = "/run/systemd/system";
/// Time for systemd to move a process.
const MOVE_TIME: Duration = Duration::from_secs(10);
const MOVE_POLL: Duration = Duration::from_millis(2);
/// Entries of an agent's cgroup that are checked for ended commands.
const MAX_COMMANDS: usize = 4096;

/// Moves this process into the cgroup at `directory`, or below it. Sockets that are opened later are created there, so
/// this comes before any program of the agent runs.
pub(crate) fn enter(directory: &Path, caller: u32) -> Result<(), LaunchError> {
    match directory.file_name().and_then(|name| name.to_str()) {
        Some(slice) if is_slice(directory) && Path::new(SYSTEMD).exists() => {
            enter_scope(directory, slice, caller)
        }
        _ => enter_directly(&of_this_command(directory, caller)),
    }
}

/// Makes a cgroup below the agent's for this command alone, as a scope of systemd is. The launcher can then wait for
/// its processes and not for those of the agent's other commands. The name contains the caller's uid, by which the
/// daemon knows whose command it is, and this process's id. Returns the agent's cgroup if none can be made.
fn of_this_command(agent: &Path, caller: u32) -> PathBuf {
    remove_empty(agent);
    let directory = agent.join(command_cgroup::directory(caller, std::process::id()));
    match fs::create_dir(&directory) {
        Ok(()) => directory,
        // From an ended command with the same process id that left processes.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => directory,
        Err(_) => agent.to_owned(),
    }
}

/// Removes the cgroups of ended commands. The kernel removes no cgroup with a process in it (`EBUSY`). An empty one
/// whose process exists belongs to a command that starts.
fn remove_empty(agent: &Path) {
    let entries = fs::read_dir(agent).into_iter().flatten().flatten();
    for entry in entries.take(MAX_COMMANDS) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.rsplit('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Removes the cgroup of a command that has ended, unless it belongs to systemd or is the agent's.
pub(crate) fn remove(directory: &Path) {
    let name = directory.file_name().and_then(|name| name.to_str());
    if name.is_some_and(|name| name.starts_with(PREFIX) && !name.contains('.')) {
        let _ = fs::remove_dir(directory);
    }
}

/// Whether its name is that of a systemd slice.
fn is_slice(directory: &Path) -> bool {
    directory.extension().is_some_and(|extension| extension == "slice")
}

/// Asks systemd to make a scope of this process in the agent's slice. A process in a slice itself would conflict with
/// systemd, and the kernel refuses it if the slice has controllers enabled (cgroups(7), "no internal processes").
fn enter_scope(directory: &Path, slice: &str, caller: u32) -> Result<(), LaunchError> {
    let failed = |message: String| LaunchError::Scope { slice: slice.to_owned(), message };
    let pid = std::process::id();
    let unit = command_cgroup::scope(slice, caller, pid);
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
    // The reply only means that a job was queued.
    if poll_until(MOVE_TIME, || own().is_ok_and(|own| Path::new(&own).starts_with(&expected))) {
        return Ok(());
    }
    Err(LaunchError::WrongCgroup { expected: expected.display().to_string(), actual: own()? })
}

/// Kills the processes of a cgroup, and waits up to `time` until they have left.
pub(crate) fn kill(directory: &Path, time: Duration) {
    if fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        is_empty_within(directory, time);
    }
}

/// Waits up to `time` until a cgroup has no process. Returns whether it has none.
pub(crate) fn is_empty_within(directory: &Path, time: Duration) -> bool {
    poll_until(time, || !is_populated(directory))
}

/// Stops the processes of a cgroup until `0` is written to its `cgroup.freeze`.
///
/// # Errors
/// The file cannot be written, or a process does not stop in `time`.
pub(crate) fn freeze(directory: &Path, time: Duration) -> io::Result<()> {
    fs::write(directory.join("cgroup.freeze"), "1")?;
    if poll_until(time, || has_event(directory, "frozen 1")) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "a process is blocked in the kernel"))
}

/// Whether a freeze was requested.
pub(crate) fn is_frozen(directory: &Path) -> bool {
    fs::read_to_string(directory.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

/// Whether a process is in it, or in a cgroup below.
pub(crate) fn is_populated(directory: &Path) -> bool {
    has_event(directory, "populated 1")
}

fn has_event(directory: &Path, event: &str) -> bool {
    let events = fs::read_to_string(directory.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == event)
}

fn poll_until(time: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Deadline::after(time);
    loop {
        if done() {
            return true;
        }
        if deadline.as_ref().map_or(true, Deadline::has_passed) {
            return false;
        }
        std::thread::sleep(MOVE_POLL);
    }
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

/// The kernel's name for the cgroup at `directory`.
fn expected(directory: &Path) -> Result<PathBuf, LaunchError> {
    let mountinfo = read(Path::new("/proc/self/mountinfo"))?;
    path_in_hierarchy(&mountinfo, directory).ok_or_else(|| LaunchError::NotCgroup(directory.to_owned()))
}

/// The cgroup of this process.
fn own() -> Result<String, LaunchError> {
    let memberships = read(Path::new("/proc/self/cgroup"))?;
    Ok(unified_path(&memberships).unwrap_or_default().to_owned())
}

fn read(path: &Path) -> Result<String, LaunchError> {
    let failed = |source: io::Error| LaunchError::Cgroup { path: path.to_owned(), source };
    fs::read_to_string(path).map_err(failed)
}

/// Returns the path that `/proc/PID/cgroup` shows for `directory`, by the mount table (`proc_pid_mountinfo(5)`).
pub(crate) fn path_in_hierarchy(mountinfo: &str, directory: &Path) -> Option<PathBuf> {
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

/// Returns the cgroup2 line of `/proc/PID/cgroup`.
pub(crate) fn unified_path(memberships: &str) -> Option<&str> {
    memberships.lines().find_map(|line| line.strip_prefix("0::"))
}
