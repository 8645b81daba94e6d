//! Temporary cgroups of the unified hierarchy.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{unique, wait_for};

/// The mount point of cgroup2: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
#[must_use]
pub fn mount() -> Option<PathBuf> {
    find_mount(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// `proc_pid_mountinfo(5)`: `id parent major:minor root MOUNTPOINT options [optional...] - TYPE source superoptions`.
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// A cgroup for one test. Drop kills its processes and removes it with all cgroups below.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates `onecli-test-PID-N.slice` at the root of the hierarchy.
    #[must_use]
    pub fn new() -> Self {
        let mount = mount().expect("cgroup2 is mounted");
        let path = mount.join(format!("onecli-test-{}-{}.slice", std::process::id(), unique()));
        std::fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { path }
    }

    /// The path of its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that joins the cgroup and then executes `program`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$1" && shift && exec "$@""#, "sh"]);
        command.arg(self.path.join("cgroup.procs")).arg(program);
        command
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(e) = remove_tree(&self.path) {
            eprintln!("cgroup {} was not removed: {e}", self.path.display());
        }
    }
}

/// Kills every process in `path` and below, and removes the cgroups, deepest first. A missing cgroup is no error.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    // cgroup.kill (Linux 5.14) kills the whole subtree, including forks in progress.
    std::fs::write(path.join("cgroup.kill"), "1")?;
    let mut last = Ok(());
    // A killed process leaves its cgroup only after it is reaped or becomes a zombie. rmdir(2) fails with EBUSY until
    // then.
    let removed = wait_for(Duration::from_secs(5), || {
        last = remove_dirs(path);
        last.is_ok().then_some(())
    });
    removed.map_or(last, Ok)
}

/// The processes in `path` and in the cgroups below.
#[must_use]
pub fn processes(path: &Path) -> Vec<u32> {
    let own = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}

/// The directories named `name` at the root of every hierarchy. If a host has cgroup v1 hierarchies beside cgroup2, a
/// container engine creates its cgroups in each.
#[must_use]
pub fn everywhere(name: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let cgroups = mounts
        .lines()
        .filter(|line| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup")));
    let paths = cgroups.filter_map(|line| Some(Path::new(line.split(' ').nth(4)?).join(name)));
    paths.filter(|path| path.is_dir()).collect()
}

/// Removes a cgroup of any hierarchy and the cgroups below it. No process may be left in them.
pub fn remove_empty(path: &Path) -> std::io::Result<()> {
    let mut last = Ok(());
    let removed = wait_for(Duration::from_secs(5), || {
        last = remove_dirs(path);
        last.is_ok().then_some(())
    });
    removed.map_or(last, Ok)
}

fn remove_dirs(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_dirs(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need;

    #[test]
    fn mountinfo_of_unified_and_hybrid_hosts() {
        let unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let hybrid = "30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cases = [
            (unified, Some("/sys/fs/cgroup")),
            (hybrid, Some("/sys/fs/cgroup/unified")),
            ("30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", None),
            ("", None),
        ];
        for (mountinfo, expected) in cases {
            assert_eq!(find_mount(mountinfo), expected.map(PathBuf::from), "{mountinfo}");
        }
    }

    #[test]
    fn ends_what_runs_in_it_and_removes_nested_cgroups() {
        if !need::root("everything") {
            return;
        }
        let cgroup = Cgroup::new();
        let path = cgroup.path().to_owned();
        let mut child = cgroup.command("sleep").arg("60").spawn().unwrap();
        let pid = child.id().to_string();
        let entered = wait_for(Duration::from_secs(5), || {
            let procs = std::fs::read_to_string(path.join("cgroup.procs")).unwrap();
            procs.lines().any(|p| p == pid).then_some(())
        });
        assert!(entered.is_some(), "the command joins the cgroup");
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        drop(cgroup);
        assert!(!path.exists(), "nested cgroups are removed");
        assert!(!child.wait().unwrap().success(), "the process was ended");
    }
}
