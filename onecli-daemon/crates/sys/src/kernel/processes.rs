//! Processes of a cgroup and of those nested in it, for `onecli ps`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

/// Cgroups that are examined. An agent may nest any number.
const MAX_CGROUPS: usize = 1024;
/// Processes that are examined. Further ones are only counted.
const MAX_LOOKED_AT: usize = 1024;

/// The field of `/proc/PID/stat` with the start time, counted from the state behind the name (`proc_pid_stat(5)`: field
/// 22).
const START_FIELD: usize = 22 - 3;

/// The processes of a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// Number of processes.
    pub count: usize,
    /// Their users.
    pub uids: BTreeSet<u32>,
    /// Start time of the oldest one.
    pub since: Option<Timestamp>,
}

/// Examines the processes in the cgroup's `directory` and below. A process that ends meanwhile is left out; a removed
/// cgroup has none.
pub fn processes(directory: &Path, now: Timestamp) -> Processes {
    let mut found = Processes::default();
    let mut oldest = None;
    for pid in pids(directory) {
        found.count += 1;
        if found.count > MAX_LOOKED_AT {
            continue;
        }
        let process = PathBuf::from(format!("/proc/{pid}"));
        let Ok(owner) = fs::metadata(&process) else { continue };
        found.uids.insert(owner.uid());
        let start = fs::read_to_string(process.join("stat")).ok().and_then(|stat| start_ticks(&stat));
        oldest = oldest.into_iter().chain(start).min();
    }
    found.since = oldest.and_then(|ticks| time_of(ticks, now));
    found
}

/// Returns the processes that `cgroup.procs` lists (cgroups(7)), by number.
fn pids(directory: &Path) -> Vec<u32> {
    let mut pending = vec![directory.to_owned()];
    let mut all = Vec::new();
    for _ in 0..MAX_CGROUPS {
        let Some(directory) = pending.pop() else { break };
        let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        all.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
        let nested = fs::read_dir(&directory).into_iter().flatten().flatten();
        pending.extend(nested.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    all
}

/// Returns the clock ticks from the host's start to the process's. The name before the field may contain any character,
/// also `)`.
fn start_ticks(stat: &str) -> Option<u64> {
    let behind_name = &stat[stat.rfind(')')? + 1..];
    behind_name.split_ascii_whitespace().nth(START_FIELD)?.parse().ok()
}

fn time_of(ticks: u64, now: Timestamp) -> Option<Timestamp> {
    let rate = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok().filter(|rate| *rate > 0)?;
    let up: Duration = clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?.into();
    let start = Duration::from_millis(ticks.checked_mul(1000)? / rate);
    now.checked_sub(SignedDuration::try_from(up.saturating_sub(start)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use onecli_model::Clock;

    use super::*;
    use crate::SystemClock;

    #[test]
    fn start_is_found_behind_a_hostile_name() {
        let stat = |name: &str| {
            format!(
                "7 ({name}) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 8192 256 18446744073709551615"
            )
        };
        for name in ["sh", "a) R 9 (b", "\n)", ""] {
            assert_eq!(start_ticks(&stat(name)), Some(4711), "{name:?}");
        }
        assert_eq!(start_ticks("7 (sh"), None);
        assert_eq!(start_ticks("7 (sh) S 1"), None);
    }

    #[test]
    fn ticks_are_counted_from_the_start_of_the_host() {
        let now = SystemClock.now();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let started = time_of(start_ticks(&stat).unwrap(), now).unwrap();
        let age = now.duration_since(started);
        assert!(!age.is_negative() && age < SignedDuration::from_mins(30), "{age:?}");
    }

    #[test]
    fn cgroup_that_is_gone_has_no_processes() {
        assert_eq!(processes(Path::new("/nonexistent/cgroup"), SystemClock.now()), Processes::default());
    }
}
