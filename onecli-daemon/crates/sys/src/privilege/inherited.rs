//! Sockets that the service manager opened for us.
#![allow(unsafe_code, reason = "descriptors that were there at the start become owned")]

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The descriptors that the service manager passed to this process, each with its name (`sd_listen_fds_with_names(3)`);
/// from now on they are closed on exec. The second call finds none.
pub fn inherited_sockets() -> Vec<(String, OwnedFd)> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let passed: Vec<_> = match sd_notify::listen_fds_with_names() {
        Ok(passed) => passed.collect(),
        Err(error) => {
            tracing::warn!(%error, "what the service manager says of its sockets cannot be understood");
            Vec::new()
        }
    };
    // SAFETY: they are ours by the service manager's word (LISTEN_PID is this process), were just seen to be open (their
    // flags could be set), and nobody else owns them: this runs once.
    passed.into_iter().map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect()
}
