//! The group `onecli` of this machine, for tests of administrators.

use std::fs::File;

use crate::client::Run;

/// Its name.
pub const NAME: &str = "onecli";
/// The lock that a process must hold to create and remove the group.
const LOCK: &str = "/run/lock/onecli-test-group";

/// The group, created for the test if the host has none, and removed afterwards. Tests that need it run one at a time.
pub struct AdminGroup {
    gid: u32,
    is_ours: bool,
    _turn: File,
}

impl AdminGroup {
    /// Waits for its turn, as root.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it changes the machine")]
    pub fn new() -> Self {
        let turn = File::create(LOCK).expect("the lock of the group");
        turn.lock().expect("the lock on the group");
        let found = || nix::unistd::Group::from_name(NAME).unwrap().map(|group| group.gid.as_raw());
        let is_ours = found().is_none();
        if is_ours {
            Run::new("groupadd").args(["--system", NAME]).outcome().ok("groupadd");
        }
        Self { gid: found().expect("the group exists"), is_ours, _turn: turn }
    }

    /// Its id.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }
}

impl Drop for AdminGroup {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = Run::new("groupdel").arg(NAME).outcome();
        }
    }
}
