//! Events that the kernel programs send to the daemon when they refuse an operation.

use crate::COMM_LEN;

/// One refused operation of a managed process, as sent through the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Deny {
    /// Time of the refusal, nanoseconds of `CLOCK_MONOTONIC`.
    pub ktime: u64,
    /// Cgroup id of the agent: the one that the task runs in now, or for a packet the one in which its socket was
    /// created. 0 if there is none.
    pub agent_cgid: u64,
    /// Cgroup id of the task now. This field and the other fields of the task are zero for packets, because a packet
    /// may leave in the context of any task.
    pub current_cgid: u64,
    /// Process id (`tgid`) in the upper, thread id in the lower 32 bits; in the initial pid namespace.
    pub pid_tgid: u64,
    /// Group id in the upper, user id in the lower 32 bits; in the initial user namespace.
    pub uid_gid: u64,
    /// The requested address; network byte order, IPv4 mapped; zero for `sock_create`.
    pub addr: [u8; 16],
    /// The requested port, network byte order; zero for `sock_create`.
    pub port: u16,
    /// Protocol of the socket (`IPPROTO_*`; `IPPROTO_MPTCP` needs 16 bits).
    pub protocol: u16,
    /// Address family of the socket.
    pub family: u8,
    /// Type of the socket (`SOCK_*`).
    pub sock_type: u8,
    /// A [`Reason`].
    pub reason: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// Name of the task, NUL-terminated; chosen by the process.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Deny>() == 80);

/// Reasons for which an operation was refused with `EPERM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The task is in the agents root but in no agent's cgroup below it.
    NoAgent = 1,
    /// Neither TCP nor UDP over IPv4 or IPv6.
    SocketKind = 2,
    /// The socket has no birth record: it was created outside, accepted, or made by another path of the kernel.
    NoBirthRecord = 3,
    /// The socket was created in one agent's cgroup and used from elsewhere.
    OtherAgent = 4,
    /// UDP other than DNS.
    Udp = 5,
    /// DNS, but over IPv6 or for an agent without a resolver address.
    NoResolver = 6,
    /// The process that listens on the transparent port is not the daemon.
    ForeignListener = 7,
    /// The port belongs to the daemon.
    ReservedPort = 8,
    /// A packet that leaves this machine, or goes to a socket that does not belong to the agent.
    Packet = 9,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::NoAgent,
        Self::SocketKind,
        Self::NoBirthRecord,
        Self::OtherAgent,
        Self::Udp,
        Self::NoResolver,
        Self::ForeignListener,
        Self::ReservedPort,
        Self::Packet,
    ];
}

/// The hook that refused the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// `socket()`.
    SockCreate = 1,
    /// `connect()` on an IPv4 socket.
    Connect4 = 2,
    /// `connect()` on an IPv6 socket.
    Connect6 = 3,
    /// An unconnected send to an IPv4 address.
    Sendmsg4 = 4,
    /// An unconnected send to an IPv6 address.
    Sendmsg6 = 5,
    /// `bind()` of an IPv4 socket.
    Bind4 = 6,
    /// `bind()` of an IPv6 socket.
    Bind6 = 7,
    /// Data sent over any socket.
    Send = 8,
    /// A socket received from another process.
    Receive = 9,
    /// A packet on its way out, whichever process sent it.
    Egress = 10,
}

impl Hook {
    /// Every hook that can refuse.
    pub const ALL: [Self; 10] = [
        Self::SockCreate,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Bind4,
        Self::Bind6,
        Self::Send,
        Self::Receive,
        Self::Egress,
    ];
}
