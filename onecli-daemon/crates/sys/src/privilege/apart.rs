//! Processes of one user that are kept from each other, and end together.

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

/// How far processes are kept from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// They neither look into each other nor send each other signals (Landlock 6, Linux 6.12).
    Wholly,
    /// They do not look into each other (Landlock 2, Linux 5.19).
    Unseen,
    /// The kernel has no such Landlock.
    Not,
}

/// Keeps this process and what it starts from looking into other processes of its user: ptrace(2), and `mem`, `environ`
/// and `fd` of proc(5), which ask the same question. Landlock refuses it across its domains, whatever these are for
/// (landlock(7)); files stay as they are.
///
/// # Errors
/// What the kernel said.
pub fn keep_apart() -> io::Result<Apart> {
    let failed = |error: RulesetError| io::Error::other(error.to_string());
    let scoped = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let scoped = scoped.scope(Scope::Signal).and_then(Ruleset::create);
    let scoped = scoped.and_then(landlock::RulesetCreated::restrict_self).map_err(failed)?;
    if scoped.ruleset == RulesetStatus::FullyEnforced {
        return Ok(Apart::Wholly);
    }
    // A domain that forbids what takes CAP_MKNOD. Moving files between directories has to be allowed by name.
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

/// Has whatever the processes that this one starts leave behind become children of this one (`PR_SET_CHILD_SUBREAPER`), also
/// what has a session of its own; see [`end_children`].
///
/// # Errors
/// What the kernel said.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Kills all children of this process, and the children that these leave behind, until there are none. This process has
/// one thread.
///
/// # Errors
/// Some are still there after `patience`: they start others faster than these can be killed.
pub fn end_children(patience: Duration) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(1);
    let list = format!("/proc/self/task/{0}/children", nix::unistd::getpid());
    let mut waited = Duration::ZERO;
    loop {
        for pid in std::fs::read_to_string(&list)?.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // Not reaped yet, so the number is nobody else's.
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
            return Err(io::Error::other(format!("some are still there after {patience:?}")));
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}
