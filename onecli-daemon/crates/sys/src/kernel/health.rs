//! The state of the attached programs.

/// State of the links of all programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// One entry per program, in the order of attachment.
    pub links: Vec<LinkHealth>,
}

impl Health {
    /// Whether every program is attached where it belongs. If not, no command may be started in a managed cgroup.
    pub fn is_enforcing(&self) -> bool {
        self.links.iter().all(|link| link.state == LinkState::Attached)
    }
}

/// State of one program's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkHealth {
    /// Name of the program.
    pub program: &'static str,
    /// Id of the attached program; 0 if there is none.
    pub id: u32,
    /// Its state.
    pub state: LinkState,
}

/// Whether a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Attached to the right cgroup.
    Attached,
    /// There is no pinned link: the daemon was never started, or was detached.
    NotPinned,
    /// The cgroup that it was attached to has been removed. A re-created one is not enforced until the next attach.
    Defunct,
    /// Attached to another cgroup than the configured one, or to a removed one that sockets still hold.
    OtherCgroup {
        /// Id of that cgroup.
        id: u64,
    },
}
