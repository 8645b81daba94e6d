//! Access to the address fields of a context, and the identity of the calling task.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm,
        bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_get_netns_cookie, bpf_get_socket_cookie,
        bpf_ktime_get_ns,
    },
    programs::SockAddrContext,
};
use onecli_common::{COMM_LEN, Ident};

use crate::maps::AGENT_LEVEL;

/// The upper 96 bits of a mapped IPv4 address, as network-order words.
const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];
/// `LOOPBACK_IFINDEX` of the kernel: index of the loopback device in every network namespace.
pub(crate) const LOOPBACK_IFINDEX: u32 = 1;
/// `127.0.0.1`, network byte order.
pub(crate) const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();

/// An address and port, both in network byte order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// IPv4 in mapped form.
    pub(crate) addr: [u32; 4],
    pub(crate) port: u16,
}

impl Endpoint {
    pub(crate) const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

    /// The value for "no address".
    pub(crate) const NONE: Self = Self { addr: [0; 4], port: 0 };

    #[inline(always)]
    pub(crate) const fn v4(addr: u32, port: u16) -> Self {
        let [a, b, c] = MAPPED;
        Self { addr: [a, b, c, addr], port }
    }

    /// The IPv4 address if this is a mapped one.
    #[inline(always)]
    pub(crate) const fn mapped_v4(&self) -> Option<u32> {
        let [a, b, c, v4] = self.addr;
        if a == MAPPED[0] && b == MAPPED[1] && c == MAPPED[2] { Some(v4) } else { None }
    }

    /// The loopback address that connecting to this endpoint reaches: also that of the unspecified address.
    #[inline(always)]
    pub(crate) const fn loopback(&self) -> Option<Self> {
        const NET: u32 = 0xff00_0000_u32.to_be();
        const UNSPECIFIED: [u32; 4] = [0; 4];
        let port = self.port;
        match (self.mapped_v4(), self.addr) {
            (Some(0), _) => Some(Self::v4(LOOPBACK4, port)),
            (Some(v4), _) if v4 & NET == LOOPBACK4 & NET => Some(*self),
            (None, Self::LOOPBACK6 | UNSPECIFIED) => Some(Self { addr: Self::LOOPBACK6, port }),
            _ => None,
        }
    }

    /// The same port at the other address of `localhost`.
    #[inline(always)]
    pub(crate) const fn twin(&self) -> Option<Self> {
        let port = self.port;
        match (self.mapped_v4(), self.addr) {
            (Some(LOOPBACK4), _) => Some(Self { addr: Self::LOOPBACK6, port }),
            (None, Self::LOOPBACK6) => Some(Self::v4(LOOPBACK4, port)),
            _ => None,
        }
    }

    /// Port 0 of this address, on which no process can listen.
    #[inline(always)]
    pub(crate) const fn closed(&self) -> Self {
        Self { addr: self.addr, port: 0 }
    }

    /// The address's bytes in network order.
    #[inline(always)]
    pub(crate) const fn bytes(&self) -> [u8; 16] {
        // SAFETY: both are 16 bytes of plain data; the words are in network order already.
        unsafe { core::mem::transmute(self.addr) }
    }
}

/// Address fields of a `bpf_sock_addr` context.
///
/// Each field is read and written by itself and volatile. LLVM merges neighbouring accesses into wider ones, and the
/// verifier rejects them with `invalid bpf_context access off=8 size=8`.
pub(crate) trait Address {
    fn endpoint4(&self) -> Endpoint;
    fn endpoint6(&self) -> Endpoint;
    fn set_endpoint4(&self, addr: u32, port: u16);
    fn set_endpoint6(&self, endpoint: Endpoint);
    fn protocol(&self) -> u32;
    fn sock_type(&self) -> u32;
    fn family(&self) -> u32;
    fn socket(&self) -> *mut c_void;
}

macro_rules! read {
    ($context:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs, and the field is one the verifier lets it read.
        unsafe { (&raw const (*$context).$($field)+).read_volatile() }
    };
}
macro_rules! write {
    ($context:expr, $value:expr, $($field:tt)+) => {
        // SAFETY: the context is valid while the program runs, and the field is one the verifier lets it write.
        unsafe { (&raw mut (*$context).$($field)+).write_volatile($value) }
    };
}
pub(crate) use read;

impl Address for SockAddrContext {
    #[inline(always)]
    fn endpoint4(&self) -> Endpoint {
        let addr = read!(self.sock_addr, user_ip4);
        Endpoint::v4(addr, port(read!(self.sock_addr, user_port)))
    }

    #[inline(always)]
    fn endpoint6(&self) -> Endpoint {
        Endpoint {
            addr: [
                read!(self.sock_addr, user_ip6[0]),
                read!(self.sock_addr, user_ip6[1]),
                read!(self.sock_addr, user_ip6[2]),
                read!(self.sock_addr, user_ip6[3]),
            ],
            port: port(read!(self.sock_addr, user_port)),
        }
    }

    #[inline(always)]
    fn set_endpoint4(&self, addr: u32, port: u16) {
        write!(self.sock_addr, addr, user_ip4);
        write!(self.sock_addr, u32::from(port), user_port);
    }

    #[inline(always)]
    fn set_endpoint6(&self, endpoint: Endpoint) {
        let [a, b, c, d] = endpoint.addr;
        write!(self.sock_addr, a, user_ip6[0]);
        write!(self.sock_addr, b, user_ip6[1]);
        write!(self.sock_addr, c, user_ip6[2]);
        write!(self.sock_addr, d, user_ip6[3]);
        write!(self.sock_addr, u32::from(endpoint.port), user_port);
    }

    #[inline(always)]
    fn protocol(&self) -> u32 {
        read!(self.sock_addr, protocol)
    }

    #[inline(always)]
    fn sock_type(&self) -> u32 {
        read!(self.sock_addr, type_)
    }

    #[inline(always)]
    fn family(&self) -> u32 {
        read!(self.sock_addr, family)
    }

    #[inline(always)]
    fn socket(&self) -> *mut c_void {
        // A pointer, so it is loaded whole: the verifier types the load as a socket.
        read!(self.sock_addr, __bindgen_anon_1.sk).cast()
    }
}

/// The 16 significant bits of a context's port field.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the field holds a 16-bit port")]
const fn port(field: u32) -> u16 {
    field as u16
}

/// `port` (host byte order, as in globals) in network byte order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the loader stores a u16")]
pub(crate) const fn port_be(port: u32) -> u16 {
    (port as u16).to_be()
}

/// Cgroup id of the agent that the current task runs in; 0 if it runs in none.
///
/// Kernel 5.7. Looked up by level, so that cgroups nested by an agent have its identity.
#[inline(always)]
pub(crate) fn current_agent() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_get_current_ancestor_cgroup_id(agent_level()) }
}

/// Level of the agents' cgroups in the hierarchy.
#[inline(always)]
pub(crate) fn agent_level() -> i32 {
    #[expect(clippy::cast_possible_wrap, reason = "a level is at most the depth limit of cgroup2")]
    const fn signed(level: u32) -> i32 {
        level as i32
    }
    signed(AGENT_LEVEL.load())
}

/// Cgroup id of the current task.
#[inline(always)]
pub(crate) fn current_cgroup() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { bpf_ktime_get_ns() }
}

/// Process and thread id, group and user id of the current task, as the helpers pack them.
#[inline(always)]
pub(crate) fn current_ids() -> (u64, u64) {
    // SAFETY: take no pointer.
    unsafe { (bpf_get_current_pid_tgid(), bpf_get_current_uid_gid()) }
}

/// Writes the name of the current task to `comm`.
///
/// This calls the raw helper with the final destination. The wrapper in `aya_ebpf::helpers` returns the array by value,
/// which needs a memset subprogram.
#[inline(always)]
pub(crate) fn write_comm(comm: *mut [u8; COMM_LEN]) {
    #[expect(clippy::cast_possible_truncation, reason = "16")]
    const LENGTH: u32 = COMM_LEN as u32;
    // SAFETY: `comm` is as many bytes of a map value or ring buffer record.
    unsafe { bpf_get_current_comm(comm.cast(), LENGTH) };
}

/// Completes a socket's record with the requested endpoint and the identity of the calling task.
#[inline(always)]
pub(crate) fn complete(ident: &mut Ident, ctx: &SockAddrContext, asked: &Endpoint, flags: u32) {
    let (pid_tgid, uid_gid) = current_ids();
    ident.orig_addr = asked.bytes();
    ident.orig_port = asked.port;
    ident.flags = flags;
    ident.current_cgid = current_cgroup();
    // SAFETY: a valid context; kernel 5.7 for the cookie of the namespace, 4.17 for that of the socket.
    unsafe {
        ident.netns = bpf_get_netns_cookie(ctx.sock_addr.cast());
        ident.sock_cookie = bpf_get_socket_cookie(ctx.sock_addr.cast());
    }
    ident.pid_tgid = pid_tgid;
    ident.uid_gid = uid_gid;
    ident.ktime = now();
    write_comm(&raw mut ident.comm);
}
