//! Stops the processes that could move files while the launcher searches a directory.
//!
//! The search for privileged files and git directories follows names. A process of the agent that renames a directory
//! at the same time can hide it from the search. Then the mounts that protect it are missing in the new command's view.
//! No number of searches is enough, because inotify(7) shows the process where the search is. So these processes are
//! frozen meanwhile (`cgroup.freeze`, cgroups(7)): those of the agent, and of other agents that may change the same
//! directory.
#![allow(unsafe_code, reason = "fork(2)")]

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{ForkResult, fork, pipe, read};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::records::Record;
use crate::process::cgroup;
use crate::process::child::leave;
use crate::process::deadline::Deadline;

/// Time for processes to stop. A process in the kernel stops when it leaves the kernel.
const FREEZE_TIME: Duration = Duration::from_secs(5);
/// Time for other commands to end their search.
const LOCK_TIME: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(5);

/// Frozen processes of agents. They stay frozen until every copy of this value is dropped. A separate process then
/// thaws them, so they continue even if the launcher's process is killed.
#[derive(Debug)]
pub(crate) struct FrozenProcesses {
    _guard: Option<OwnedFd>,
    /// Locked until the last process closes them.
    _locks: Vec<File>,
}

impl FrozenProcesses {
    /// Freezes the processes of `own`'s agent, and of those agents of `others` that may change the same files.
    ///
    /// # Errors
    /// The reason why they cannot be stopped, with the next step.
    pub(crate) fn of(own: &Record, others: &[Record]) -> Result<FrozenProcesses, String> {
        if own.changes_nothing() {
            return Ok(FrozenProcesses { _guard: None, _locks: Vec::new() });
        }
        let mut agents: Vec<(&Path, &Path)> = std::iter::once(own)
            .chain(others.iter().filter(|other| other.shares_places(own)))
            .filter_map(|record| Some((record.lock.as_path(), record.agent_cgroup.as_deref()?)))
            .collect();
        // In one order for all, so that no two wait for each other.
        agents.sort_unstable();
        agents.dedup();
        let failed = |error: io::Error| {
            format!(
                "cannot freeze the agent's other processes while the launcher searches its directories \
                 ({error}): end them and try again"
            )
        };
        let locks =
            agents.iter().map(|(path, _)| lock(path)).collect::<io::Result<Vec<File>>>().map_err(failed)?;
        let is_used = |cgroup: &Path| {
            // A command that is not yet in its cgroup enters a frozen one.
            cgroup::is_populated(cgroup)
                || others.iter().any(|other| other.agent_cgroup.as_deref() == Some(cgroup))
        };
        // A cgroup that an administrator froze stays frozen.
        let cgroups: Vec<PathBuf> = agents
            .iter()
            .map(|(_, cgroup)| (*cgroup).to_owned())
            .filter(|cgroup| is_used(cgroup) && !cgroup::is_frozen(cgroup))
            .collect();
        let guard = if cgroups.is_empty() { None } else { Some(guard(&cgroups).map_err(failed)?) };
        let frozen = FrozenProcesses { _guard: guard, _locks: locks };
        cgroups.iter().try_for_each(|cgroup| cgroup::freeze(cgroup, FREEZE_TIME)).map_err(failed)?;
        Ok(frozen)
    }
}

/// Locks the file at `path`, in a directory of root.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let deadline = Deadline::after(LOCK_TIME)?;
    while !deadline.has_passed() {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(POLL),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another command of the agent is being started"))
}

/// Starts the process that thaws the cgroups once the returned descriptor is closed everywhere.
fn guard(cgroups: &[PathBuf]) -> io::Result<OwnedFd> {
    let (heard, line) = pipe()?;
    // SAFETY: this process has one thread, and the child ends without unwinding.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(line);
            leave(|| {
                while read(&heard, &mut [0]) == Err(nix::Error::EINTR) {}
                for cgroup in cgroups {
                    let _ = fs::write(cgroup.join("cgroup.freeze"), "0");
                }
            })
        }
        ForkResult::Parent { .. } => Ok(line),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::waitpid;

    use super::*;
    use crate::running::records::RecordedDirectory;

    /// A cgroup with a process in it.
    struct Agent {
        cgroup: PathBuf,
        process: Child,
        dir: tempfile::TempDir,
    }

    impl Agent {
        fn new(name: &str) -> Option<Agent> {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mount = mounts
                .lines()
                .find(|line| line.contains(" - cgroup2 "))
                .and_then(|line| line.split(' ').nth(4));
            if !nix::unistd::geteuid().is_root() || mount.is_none() {
                println!("not run: freezing a cgroup (needs root and cgroup2)");
                return None;
            }
            let cgroup = Path::new(mount.unwrap()).join(format!("onecli-{name}-{}", std::process::id()));
            fs::create_dir(&cgroup).unwrap();
            let process = Command::new("sleep").arg("60").spawn().unwrap();
            fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
            Some(Agent { cgroup, process, dir: tempfile::tempdir().unwrap() })
        }

        fn record(&self, path: &str) -> Record {
            let place = RecordedDirectory::new(Path::new(path), (1, 1), &[]);
            Record::new(("robot", 1), Some(self.cgroup.clone()), self.dir.path().join("start"), vec![place])
        }

        fn thaws(&self) -> bool {
            (0..1000).any(|_| {
                std::thread::sleep(POLL);
                !cgroup::is_frozen(&self.cgroup)
            })
        }
    }

    impl Drop for Agent {
        fn drop(&mut self) {
            let _ = fs::write(self.cgroup.join("cgroup.freeze"), "0");
            let _ = self.process.kill();
            let _ = self.process.wait();
            cgroup::is_empty_within(&self.cgroup, Duration::from_secs(5));
            let _ = fs::remove_dir(&self.cgroup);
        }
    }

    #[test]
    fn agents_that_may_change_the_same_files_are_frozen() {
        let (Some(own), Some(same), Some(other)) =
            (Agent::new("own"), Agent::new("same"), Agent::new("other"))
        else {
            return;
        };
        let others = [same.record("/p/inner"), other.record("/q")];
        let stopped = FrozenProcesses::of(&own.record("/p"), &others).unwrap();
        let frozen = [&own, &same, &other].map(|agent| cgroup::is_frozen(&agent.cgroup));
        assert_eq!(frozen, [true, true, false]);
        drop(stopped);
        assert!(own.thaws() && same.thaws());
        // A cgroup that an administrator froze.
        fs::write(own.cgroup.join("cgroup.freeze"), "1").unwrap();
        drop(FrozenProcesses::of(&own.record("/p"), &[]).unwrap());
        // The next hold has the lock once the first is released.
        drop(FrozenProcesses::of(&own.record("/p"), &[]).unwrap());
        assert!(cgroup::is_frozen(&own.cgroup));
    }

    #[test]
    fn processes_continue_after_the_launcher_is_killed() {
        let Some(own) = Agent::new("killed") else { return };
        let record = own.record("/p");
        let (ready, line) = pipe().unwrap();
        // SAFETY: the child takes no lock that another thread could hold, except the allocator's, which fork(2)
        // handles.
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Child => leave(|| {
                let _hold = FrozenProcesses::of(&record, &[]).unwrap();
                let _ = nix::unistd::write(&line, &[1]);
                std::thread::sleep(Duration::from_mins(1));
            }),
            ForkResult::Parent { child } => child,
        };
        drop(line);
        assert_eq!(read(&ready, &mut [0]), Ok(1));
        assert!(cgroup::is_frozen(&own.cgroup));
        kill(child, Signal::SIGKILL).unwrap();
        waitpid(child, None).unwrap();
        assert!(own.thaws());
    }
}
