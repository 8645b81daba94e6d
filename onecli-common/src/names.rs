//! Names of maps and globals, as they appear in the object. Maps are pinned under the same names.

/// `SK_STORAGE` of [`Ident`](crate::Ident): sockets of managed processes, written when a socket is created and when it
/// connects.
pub const SOCKETS: &str = "SOCKETS";
/// `SK_STORAGE` of `u64`: cgroup id of the agent in which a socket was created. Accepted sockets inherit it from their
/// listener.
pub const BORN: &str = "BORN";
/// LRU hash [`TupleKey`](crate::TupleKey) to [`Ident`](crate::Ident): connections that are being established. The
/// daemon removes an entry when it accepts the connection.
pub const TUP: &str = "TUP";
/// Hash of cgroup id (`u64`) to [`AgentEntry`](crate::AgentEntry), written by the daemon.
pub const AGENTS: &str = "AGENTS";
/// LRU hash of cgroup id (`u64`) to [`Waiting`](crate::Waiting), written by the programs.
pub const WAITING: &str = "WAITING";
/// Hash of cgroup id (`u64`) to the number of the agent's connections that the daemon has accepted (`u64`), written by
/// the daemon.
pub const TAKEN: &str = "TAKEN";
/// Per-CPU array of `u64`, indexed by [`Stat`](crate::Stat). Its name contains its length, so adding a counter creates
/// a new map and leaves the others as they are.
pub const STATS: &str = "STATS13";
/// Ring buffer of [`Deny`](crate::Deny).
pub const DENY: &str = "DENY";

/// `SK_STORAGE` of `u32`: the daemon's transparent listeners, marked with [`STAMP`]; written by the daemon.
pub const LISTENERS: &str = "LISTENERS";
/// The value in [`LISTENERS`] that marks a listener of the daemon.
pub const STAMP: u32 = 1;

const _: () = assert!(crate::Stat::COUNT == 13, "rename the map: its length changed");

/// Every pinned map. Pinned maps outlive the daemon, so enforcement and identities do too.
pub const PINNED_MAPS: [&str; 9] = [SOCKETS, BORN, TUP, AGENTS, WAITING, TAKEN, STATS, DENY, LISTENERS];

/// Lifetime of an entry of [`TUP`], nanoseconds. It is longer than a handshake with every retransmission of its SYN-ACK
/// (63 s) and a wait for the daemon. It is shorter than the period of initial sequence numbers (274 s, RFC 6528 in
/// Linux).
pub const TUP_LIFE: u64 = 120_000_000_000;
/// Entries of [`TUP`]: connections of all agents between SYN and accept, and connections that were never established.
pub const TUP_ENTRIES: usize = 32_768;
/// Connections of one agent between SYN and accept. Further SYNs are held back and retransmitted a second later. The
/// limit is a quarter of the listener's queue (`somaxconn`, 4,096). A full queue would affect every agent: it has no
/// room for new connections or, for clients that do not read the daemon's answer, uses SYN cookies, which save no SYN
/// to find the record by.
pub const WAITING_MAX: u64 = 1_024;
/// Nanoseconds after which one announced connection that the daemon did not accept is forgiven. [`WAITING_MAX`]
/// connections are forgiven in 64 s, the lifetime of a half-open connection with five retransmissions of the SYN-ACK.
pub const WAITING_FORGIVEN: u64 = 64_000_000_000 / WAITING_MAX;
/// Refusals of one agent in one second that are reported to the daemon. Further ones are only counted. The limit is a
/// thirtieth of the ring buffer.
pub const TOLD_MAX: u64 = 96;
/// Entries of [`AGENTS`].
pub const AGENTS_ENTRIES: usize = 4_096;
/// Bytes of [`DENY`]; a power of two and a multiple of the page size.
pub const DENY_BYTES: usize = 256 * 1024;

/// Global `u32`: level of the agents' cgroups in the hierarchy; the root of cgroup2 is 0.
pub const AGENT_LEVEL: &str = "AGENT_LEVEL";
/// Global `u64`: cgroup id of the agents root.
pub const AGENTS_ROOT: &str = "AGENTS_ROOT";
/// Global `u64`: cookie of the daemon's own network namespace, in which it listens from its start. In other namespaces
/// its helper opens listeners when agents appear there.
pub const HOME_NETNS: &str = "HOME_NETNS";
/// Global `u32`: offset in bits of the member `sk_kern_sock` in the kernel's `struct sock`.
pub const KERN_SOCK: &str = "KERN_SOCK";
/// Global `u32`: offset in bits of the member `sk_allocation` in the kernel's `struct sock`.
pub const ALLOCATION: &str = "ALLOCATION";
/// Global `u32`: port of the transparent listener, host byte order.
pub const TRANSPARENT_PORT: &str = "TRANSPARENT_PORT";
/// Global `u32`: port of the agents' resolver, host byte order.
pub const RESOLVER_PORT: &str = "RESOLVER_PORT";
/// Global array of `u16`, host byte order, 0 for unused entries: ports that no managed process may bind.
pub const RESERVED_PORTS: &str = "RESERVED_PORTS";
/// Length of [`RESERVED_PORTS`].
pub const RESERVED_PORTS_COUNT: usize = 16;
