//! Sockets that the service manager opened for the daemon.
#![allow(unsafe_code, reason = "descriptors that exist at the start become owned")]

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Returns the descriptors that the service manager passed to this process, each with its name
/// (`sd_listen_fds_with_names(3)`), and marks them close-on-exec. A second call returns none.
pub fn inherited_sockets() -> Vec<(String, OwnedFd)> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let passed: Vec<_> = match sd_notify::listen_fds_with_names() {
        Ok(passed) => passed.collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot read which sockets the service manager passed");
            Vec::new()
        }
    };
    // SAFETY: the service manager passed them to this process (LISTEN_PID matches). They were just seen to be open,
    // because their flags could be set. Nothing else owns them, because this runs once.
    passed.into_iter().map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect()
}
