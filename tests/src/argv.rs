//! Command lines, which every user of a host can read (`/proc/PID/cmdline`): no value may stand there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::canary;

/// How often it is looked: what runs for less may go unseen, but each command runs in many tests. More often, it would be
/// seen in what benchmarks measure.
const PAUSE: Duration = Duration::from_millis(50);
/// The daemon, its helper and executor, what runs a command, the command. What that starts is its own affair.
const DEPTH: usize = 3;

/// Looks at a daemon and all that it starts, until dropped.
pub struct Watcher {
    roots: Arc<Mutex<Vec<u32>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Watcher {
    /// Looks at these processes and what they start.
    #[must_use]
    pub fn new(roots: Vec<u32>) -> Self {
        let (roots, ended) = (Arc::new(Mutex::new(roots)), Arc::new(AtomicBool::new(false)));
        let (seen, stop) = (Arc::clone(&roots), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut found = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let roots = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for root in roots {
                    look(root, DEPTH, &mut found);
                }
                std::thread::sleep(PAUSE);
            }
            found
        });
        Self { roots, ended, thread: Some(thread) }
    }

    /// Looks at this process too.
    pub fn add(&self, root: u32) {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).push(root);
    }

    /// Ends the test where a value was seen.
    ///
    /// # Panics
    /// One was.
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

/// Notes the processes whose command lines have a watched value in them. Processes come and go meanwhile.
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
        // Put together by the shell, so that its own line has none.
        check("a=argv; sh -c 'sleep 0.5; true' $a-canary-5d20; true", false);
    }
}
