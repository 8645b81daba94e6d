//! Checks command lines for secret values: every user of a host can read them (`/proc/PID/cmdline`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::canary;

/// The interval between two scans. A process that runs for less may be missed, but each command runs in many tests. A
/// shorter interval would distort benchmarks.
const PAUSE: Duration = Duration::from_millis(50);
/// Depth of the process tree that is scanned: the daemon, its helper and executor, a shell that runs a command, the
/// command. Children of the command are out of scope.
const DEPTH: usize = 3;

/// Scans a daemon and its child processes until it is dropped.
pub struct Watcher {
    roots: Arc<Mutex<Vec<u32>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watcher {
    /// A watcher of these processes and their children.
    #[must_use]
    pub fn new(roots: Vec<u32>) -> Self {
        let (roots, ended) = (Arc::new(Mutex::new(roots)), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (Arc::clone(&roots), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let roots = seen.lock().clone();
                for root in roots {
                    look(root, DEPTH, &mut found);
                }
                std::thread::sleep(PAUSE);
            }
            found
        });
        Self { roots, ended, thread: Some(thread) }
    }

    /// Adds a process to the scan.
    pub fn add(&self, root: u32) {
        self.roots.lock().push(root);
    }

    /// Fails the test if a command line contained a value.
    ///
    /// # Panics
    /// A command line contained a value.
    pub fn assert_clean(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let found = self.thread.take().map(|thread| thread.join().expect("the watcher")).unwrap_or_default();
        assert!(found.is_empty(), "a value was on a command line: {found:?}");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Records the processes whose command lines contain a watched value. Processes may start and end during the scan.
fn look(pid: u32, depth: usize, found: &mut Vec<String>) {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if canary::is_in(&line) && found.len() < 16 {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        found.push(format!("{} ({pid})", name.trim()));
    }
    let Some(deeper) = depth.checked_sub(1) else { return };
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            look(child, deeper, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_a_daemon_starts_is_looked_at() {
        let value = "argv-canary-5d20";
        canary::watch(value);
        let check = |script: &str, clean: bool| {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let mut watcher = Watcher::new(vec![child.id()]);
            std::thread::sleep(Duration::from_millis(300));
            child.kill().unwrap();
            child.wait().unwrap();
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watcher.assert_clean()));
            assert_eq!(caught.is_ok(), clean, "{script}");
        };
        check("sleep 0.5; true", true);
        // The shell assembles the value, so the shell's own command line does not contain it.
        check("a=argv; sh -c 'sleep 0.5; true' $a-canary-5d20; true", false);
    }
}
