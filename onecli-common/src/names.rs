//! Names of maps and globals: as the object has them, and (maps) as they are pinned.

/// `SK_STORAGE` of [`Ident`](crate::Ident): sockets of managed processes, written at birth and at connect.
pub const SOCKETS: &str = "SOCKETS";
/// `SK_STORAGE` of `u64`, which accepted sockets take over from their listener: cgroup id of the agent in which a socket was
/// born.
pub const BORN: &str = "BORN";
/// LRU hash [`TupleKey`](crate::TupleKey) to [`Ident`](crate::Ident): connections being made; taken by the daemon when it
/// accepts them.
pub const TUP: &str = "TUP";
/// Hash of cgroup id (`u64`) to [`AgentEntry`](crate::AgentEntry), written by the daemon.
pub const AGENTS: &str = "AGENTS";
/// LRU hash of cgroup id (`u64`) to [`Waiting`](crate::Waiting), written by the programs.
pub const WAITING: &str = "WAITING";
/// Hash of cgroup id (`u64`) to the number of the agent's connections that the daemon has accepted (`u64`), written by the
/// daemon.
pub const TAKEN: &str = "TAKEN";
/// Per-CPU array of `u64`, indexed by [`Stat`](crate::Stat). Its length is in its name: one more counter is another map, and the
/// others stay.
pub const STATS: &str = "STATS13";
/// Ring buffer of [`Deny`](crate::Deny).
pub const DENY: &str = "DENY";

/// `SK_STORAGE` of `u32`: the daemon's transparent listeners, which bear [`STAMP`]; written by the daemon.
pub const LISTENERS: &str = "LISTENERS";
/// What a listener of the daemon bears in [`LISTENERS`].
pub const STAMP: u32 = 1;

const _: () = assert!(crate::Stat::COUNT == 13, "the counters' map has another length: name it so");

/// Every map that is pinned: they outlive the daemon, so that enforcement and identities do.
pub const PINNED_MAPS: [&str; 9] = [SOCKETS, BORN, TUP, AGENTS, WAITING, TAKEN, STATS, DENY, LISTENERS];

/// Nanoseconds after which an entry of [`TUP`] counts for nothing: longer than a handshake takes with every retransmission of
/// its SYN-ACK (63 s) and a wait for the daemon, shorter than initial sequence numbers take to come round (274 s, RFC 6528 in Linux).
pub const TUP_LIFE: u64 = 120_000_000_000;
/// Entries of [`TUP`]: connections between SYN and accept, of all agents together, and those that never came to be.
pub const TUP_ENTRIES: usize = 32_768;
/// Connections of one agent between SYN and accept: further SYNs are held back, and sent again a second later. A quarter of the
/// listener's queue (`somaxconn`, 4,096), whose end would be everybody's: without room for a connection or, for clients
/// that leave the daemon's answer unread, with SYN cookies, which keep no SYN to find the record by.
pub const WAITING_MAX: u64 = 1_024;
/// Nanoseconds after which one announced connection is forgiven that nobody accepted: as many in 64 s, the life of a half-open
/// connection with five retransmissions of the SYN-ACK, as may wait.
pub const WAITING_FORGIVEN: u64 = 64_000_000_000 / WAITING_MAX;
/// Refusals of one agent in one second that the daemon is told of: what is beyond is counted alone. A thirtieth of the ring
/// buffer.
pub const TOLD_MAX: u64 = 96;
/// Entries of [`AGENTS`].
pub const AGENTS_ENTRIES: usize = 4_096;
/// Bytes of [`DENY`]; a power of two and a multiple of the page size.
pub const DENY_BYTES: usize = 256 * 1024;

/// Global `u32`: level of the agents' cgroups in the hierarchy; the root of cgroup2 is 0.
pub const AGENT_LEVEL: &str = "AGENT_LEVEL";
/// Global `u64`: cgroup id of the agents root.
pub const AGENTS_ROOT: &str = "AGENTS_ROOT";
/// Global `u64`: cookie of the daemon's own network namespace, where it listens from its start on. In others its helper opens
/// listeners, as agents come there.
pub const HOME_NETNS: &str = "HOME_NETNS";
/// Global `u32`: bits from the beginning of the kernel's `struct sock` to its member `sk_kern_sock`.
pub const KERN_SOCK: &str = "KERN_SOCK";
/// Global `u32`: the same of `sk_allocation`.
pub const ALLOCATION: &str = "ALLOCATION";
/// Global `u32`: port of the transparent listener, host byte order.
pub const TRANSPARENT_PORT: &str = "TRANSPARENT_PORT";
/// Global `u32`: port of the agents' resolver, host byte order.
pub const RESOLVER_PORT: &str = "RESOLVER_PORT";
/// Global array of `u16`, host byte order, 0 where unused: ports that no managed process may bind.
pub const RESERVED_PORTS: &str = "RESERVED_PORTS";
/// Length of [`RESERVED_PORTS`].
pub const RESERVED_PORTS_COUNT: usize = 16;
