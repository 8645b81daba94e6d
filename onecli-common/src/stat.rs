//! Counters that the kernel programs maintain.

/// Index of a counter in the per-CPU [`STATS`](crate::names::STATS) array. Each counter counts events since the map was
/// made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stat {
    /// Sockets created by managed processes.
    Born = 0,
    /// TCP connects redirected to the transparent listener.
    Redirected = 1,
    /// SYNs announced under their 4-tuple, including retransmissions.
    Announced = 2,
    /// Announcements that could not be written.
    AnnounceFailed = 3,
    /// DNS sends and connects rewritten to the agent's resolver.
    DnsRewritten = 4,
    /// Operations refused.
    Denied = 5,
    /// Refusals that were not reported: the ring buffer was full, or the agent had too many in one second.
    DenyLost = 6,
    /// TCP connects of an agent to one of its own listeners, not redirected.
    Own = 7,
    /// TCP connects answered like a closed port: no daemon listens, or `localhost` has its listener at the other
    /// loopback address.
    Unserved = 8,
    /// TCP connects refused because the transparent port does not belong to the daemon.
    ForeignListener = 9,
    /// Packets of managed sockets that were dropped on their way out.
    PacketsDropped = 10,
    /// SYNs held back: too many connections of the agent wait, or the listener does not exist yet.
    Held = 11,
    /// Packets from other machines that were dropped before they reached managed sockets.
    KeptOut = 12,
}

impl Stat {
    /// Every counter, in index order.
    pub const ALL: [Self; 13] = [
        Self::Born,
        Self::Redirected,
        Self::Announced,
        Self::AnnounceFailed,
        Self::DnsRewritten,
        Self::Denied,
        Self::DenyLost,
        Self::Own,
        Self::Unserved,
        Self::ForeignListener,
        Self::PacketsDropped,
        Self::Held,
        Self::KeptOut,
    ];

    /// Number of counters: the length of the array.
    pub const COUNT: usize = Self::ALL.len();

    /// The counter's name in metrics and in the output of `onecli doctor`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Born => "sockets_created",
            Self::Redirected => "connections_redirected",
            Self::Announced => "connections_announced",
            Self::AnnounceFailed => "announcements_failed",
            Self::DnsRewritten => "dns_rewritten",
            Self::Denied => "operations_denied",
            Self::DenyLost => "deny_events_lost",
            Self::Own => "connections_to_own_listeners",
            Self::Unserved => "connections_unserved",
            Self::ForeignListener => "connections_to_foreign_listener",
            Self::PacketsDropped => "packets_dropped",
            Self::Held => "connections_held",
            Self::KeptOut => "packets_kept_out",
        }
    }
}

const _: () = {
    let mut index = 0;
    while index < Stat::COUNT {
        assert!(Stat::ALL[index] as usize == index);
        index += 1;
    }
};
