//! Isolation of processes of one user from each other, and their common end.

use std::io;
use std::time::Duration;

use landlock::{
    AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// How far processes are isolated from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// They can neither inspect each other nor send each other signals (Landlock 6, Linux 6.12).
    Wholly,
    /// They cannot inspect each other (Landlock 2, Linux 5.19).
    Unseen,
    /// The kernel does not support this use of Landlock.
    Not,
}

/// Stops this process and its children from inspecting other processes of its user: ptrace(2), and `mem`, `environ` and
/// `fd` of proc(5), which need the same permission. Landlock refuses it across its domains, whatever they restrict
/// (landlock(7)). Access to files does not change.
///
/// # Errors
/// Those of the kernel.
pub fn keep_apart() -> io::Result<Apart> {
    let failed = |error: RulesetError| io::Error::other(error.to_string());
    let scoped = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let scoped = scoped.scope(Scope::Signal).and_then(Ruleset::create);
    let scoped = scoped.and_then(landlock::RulesetCreated::restrict_self).map_err(failed)?;
    if scoped.ruleset == RulesetStatus::FullyEnforced {
        return Ok(Apart::Wholly);
    }
    // A domain that forbids only operations that need CAP_MKNOD. Moving files between directories must be allowed
    // explicitly.
    let Ok(ruleset) = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::MakeChar | AccessFs::Refer)
    else {
        return Ok(Apart::Not);
    };
    let root = PathFd::new("/").map_err(io::Error::other)?;
    let ruleset = ruleset.create().map_err(failed)?;
    let ruleset = ruleset.add_rule(PathBeneath::new(root, AccessFs::Refer)).map_err(failed)?;
    ruleset.restrict_self().map_err(failed)?;
    Ok(Apart::Unseen)
}

/// Makes this process the parent of all orphans of its children (`PR_SET_CHILD_SUBREAPER`), including those with a
/// session of their own; see [`end_children`].
///
/// # Errors
/// Those of the kernel.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Kills all children of this process, and the orphans that they leave, until there are none. This process has one
/// thread.
///
/// # Errors
/// Some still run after `patience`: they start others faster than these can be killed.
pub fn end_children(patience: Duration) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(1);
    let list = format!("/proc/self/task/{0}/children", nix::unistd::getpid());
    let mut waited = Duration::ZERO;
    loop {
        for pid in std::fs::read_to_string(&list)?.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // The child is not reaped yet, so its number is still its own.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return Ok(()),
                Ok(status) if status.pid().is_some() => {}
                Ok(_) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        if waited >= patience {
            return Err(io::Error::other(format!("some processes still run after {patience:?}")));
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}
