//! The identity of a socket, and the keys under which it is found.

use crate::COMM_LEN;

/// One socket of a managed process. The record is created with the socket, completed when the socket connects, and
/// handed to the daemon with the accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ident {
    /// The address that the process requested; network byte order, IPv4 mapped.
    pub orig_addr: [u8; 16],
    /// The port that the process requested; network byte order.
    pub orig_port: u16,
    /// Family of the socket: `AF_INET` or `AF_INET6`. It is `AF_INET6` for a mapped IPv4 destination on an IPv6 socket.
    pub family: u8,
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub proto: u8,
    /// Bits of [`IdentFlags`].
    pub flags: u32,
    /// Cgroup id of the agent: the direct child of the agents root in which the socket was created. Never 0.
    pub agent_cgid: u64,
    /// Cgroup id of the process that created the socket, at that moment: the agent's or one nested in it.
    pub birth_cgid: u64,
    /// Cgroup id of the process that connected or sent, at that moment; 0 before.
    pub current_cgid: u64,
    /// Cookie of the socket's network namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// Cookie of the managed process's socket (`SO_COOKIE`), unique since boot.
    pub sock_cookie: u64,
    /// Process id (`tgid`) in the upper, thread id in the lower 32 bits; in the initial pid namespace.
    pub pid_tgid: u64,
    /// Group id in the upper, user id in the lower 32 bits; in the initial user namespace.
    pub uid_gid: u64,
    /// Time at which the connection was announced, or the socket connected or sent; before that, time at which the
    /// socket was created. Nanoseconds of `CLOCK_MONOTONIC`.
    pub ktime: u64,
    /// Name of the task that connected or sent, NUL-terminated. The process chooses it, so it proves nothing.
    pub comm: [u8; COMM_LEN],
}

/// Bits of [`Ident::flags`].
pub struct IdentFlags;

impl IdentFlags {
    /// A TCP connection that was redirected to the transparent listener.
    pub const REDIRECTED: u32 = 1 << 0;
    /// A UDP socket whose DNS queries go to the agent's resolver address.
    pub const DNS: u32 = 1 << 1;
    /// A TCP connection between two sockets of the same agent over the loopback, which is not redirected.
    pub const OWN: u32 = 1 << 2;
    /// A redirected connection whose SYN has left.
    pub const ANNOUNCED: u32 = 1 << 3;
    /// A redirected connection whose listener does not exist yet. Its SYN is held back until the listener exists.
    pub const AWAITS: u32 = 1 << 4;
}

/// Key of one connection between a managed process and the transparent listener. Both ends compute the same key.
///
/// A port is reused as soon as its connection is reset, perhaps before the daemon has accepted that connection. The new
/// user may be an unmanaged process. The initial sequence number separates the two connections, because the kernel
/// derives it from a clock. A process can choose that number (a disconnected socket continues from its last one), so
/// the number that the kernel drew at random for the packet is in the key too. The namespace cookie separates two
/// namespaces that use the same 4-tuple. Without it a process of the host could inherit the identity of an agent
/// elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TupleKey {
    /// Cookie of the network namespace of both ends.
    pub netns: u64,
    /// The managed process's address; network byte order, IPv4 mapped.
    pub client_addr: [u8; 16],
    /// The listener's address; network byte order, IPv4 mapped.
    pub server_addr: [u8; 16],
    /// The managed process's port, host byte order, at most 65535.
    pub client_port: u32,
    /// The listener's port, host byte order, at most 65535.
    pub server_port: u32,
    /// Initial sequence number of the SYN (RFC 9293), host byte order.
    pub isn: u32,
    /// The random number that the kernel drew for the packet, host byte order: IPv4's identification (16 bits, RFC
    /// 6864), or IPv6's flow label (20 bits, RFC 6437).
    pub drawn: u32,
}

/// The number of connections of an agent that wait to be accepted; the key is the agent's cgroup id. See
/// [`WAITING_MAX`](crate::names::WAITING_MAX).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiting {
    /// Number of announced connections, less those forgiven since.
    pub announced: u64,
    /// Time at which a connection was last forgiven, nanoseconds of `CLOCK_MONOTONIC`.
    pub ktime: u64,
}

/// The data about one agent that the daemon passes to the kernel; the key is the agent's cgroup id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AgentEntry {
    /// The daemon's number for the agent, repeated in [`Deny`](crate::Deny) events.
    pub index: u32,
    /// Reserved. No bit is defined in this version, so it is 0.
    pub flags: u32,
    /// Loopback address of the agent's resolver, network byte order. `0.0.0.0` refuses the agent's DNS.
    pub dns_addr: [u8; 4],
}

const _: () = {
    assert!(size_of::<Ident>() == 104);
    assert!(align_of::<Ident>() == 8);
    assert!(size_of::<TupleKey>() == 56);
    assert!(size_of::<Waiting>() == 16);
    assert!(size_of::<AgentEntry>() == 12);
};

#[cfg(feature = "user")]
#[allow(unsafe_code, reason = "aya::Pod is an unsafe trait")]
mod pod {
    use super::{AgentEntry, Ident, TupleKey};

    // SAFETY: `repr(C)`, integers and byte arrays only, no padding (the sizes above are the sums of the fields),
    // and every bit pattern is a valid value.
    unsafe impl aya::Pod for Ident {}
    // SAFETY: as for `Ident`.
    unsafe impl aya::Pod for TupleKey {}
    // SAFETY: as for `Ident`.
    unsafe impl aya::Pod for AgentEntry {}
}
