//! Hooks of the BPF LSM, for operations that no cgroup hook sees.
//!
//! The kernel runs cgroup hooks by the socket's cgroup and by family. They miss connections that were made outside, and
//! all families but IPv4 and IPv6. These hooks run for every task of the machine and check the task first. A managed
//! task may use networks only over sockets of its own agent.
//!
//! They add to the cgroup hooks and never replace them. A kernel whose list of security modules lacks `bpf`
//! (`CONFIG_BPF_LSM`, `lsm=`) runs none of them, and `onecli doctor` reports that.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_probe_read_kernel, bpf_sock_from_file},
    macros::lsm,
    programs::LsmContext,
};
use onecli_common::{AF_INET, AF_INET6, Hook, Reason};

use crate::{
    context::{Endpoint, agent_level, current_agent, read},
    deny::{Kind, refuse},
    maps::{AGENTS_ROOT, ALLOCATION, Absent, KERN_SOCK, SOCKETS, born_in, record},
};

/// A hook's verdict: no objection.
const PERMIT: i32 = 0;
/// `-EPERM`.
const DENIED: i32 = -1;

const AF_UNIX: u16 = 1;
const AF_NETLINK: u16 = 16;
const AF_ALG: u16 = 38;

/// The beginning of `struct socket`, the same since Linux 5.3. The verifier checks every access against the kernel's
/// own description of the type: if `sk` were elsewhere, the programs would not load.
#[repr(C)]
struct Socket {
    state: i32,
    sock_type: i16,
    flags: u64,
    file: *const c_void,
    sk: *mut Sock,
}

/// The beginning of `struct sock`.
#[repr(C)]
struct Sock {
    daddr: u32,
    rcv_saddr: u32,
    hash: u32,
    dport: u16,
    num: u16,
    family: u16,
}

/// `socket()` of any family: refused unless the other programs see the family, or it reaches no network. Kernel 5.14.
#[lsm(hook = "socket_create")]
pub(crate) fn refuse_family(ctx: LsmContext) -> i32 {
    let (family, sock_type, protocol, by_kernel): (i32, i32, i32, i32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    let former: i32 = ctx.arg(4);
    if former != PERMIT || by_kernel != 0 || !is_managed() {
        return former;
    }
    let family = family.cast_unsigned();
    if family == u32::from(AF_INET) || family == u32::from(AF_INET6) || is_local(family) {
        return PERMIT;
    }
    let kind = Kind { family, sock_type: sock_type.cast_unsigned(), protocol: protocol.cast_unsigned() };
    refuse(kind, Endpoint::NONE, Reason::SocketKind, Hook::SockCreate);
    DENIED
}

/// Data sent over any socket: by `write`, `sendmsg`, `sendfile`, `io_uring`. Kernel 5.14. Before 6.5, `sendfile` and
/// `splice` pass only [`refuse_write`].
#[lsm(hook = "socket_sendmsg")]
pub(crate) fn refuse_send(ctx: LsmContext) -> i32 {
    let former: i32 = ctx.arg(3);
    if former != PERMIT || !is_managed() {
        return former;
    }
    verdict(ctx.arg(0), Hook::Send)
}

/// Data written to any file, by any system call. Needed only before kernel 6.5. Kernel 5.14.
#[lsm(hook = "file_permission")]
pub(crate) fn refuse_write(ctx: LsmContext) -> i32 {
    /// `MAY_WRITE` of linux/fs.h.
    const WRITES: i32 = 2;
    let (mask, former): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    if former != PERMIT || mask & WRITES == 0 || !is_managed() {
        return former;
    }
    // SAFETY: the hook's own argument.
    let socket: *const Socket = unsafe { bpf_sock_from_file(ctx.arg(0)) }.cast();
    if socket.is_null() { PERMIT } else { verdict(socket, Hook::Send) }
}

/// A descriptor received from another process: `SCM_RIGHTS`, `pidfd_getfd`. Kernel 5.14.
#[lsm(hook = "file_receive")]
pub(crate) fn refuse_receipt(ctx: LsmContext) -> i32 {
    let former: i32 = ctx.arg(1);
    if former != PERMIT || !is_managed() {
        return former;
    }
    // SAFETY: the hook's own argument.
    let socket: *const Socket = unsafe { bpf_sock_from_file(ctx.arg(0)) }.cast();
    if socket.is_null() { PERMIT } else { verdict(socket, Hook::Receive) }
}

/// Permits a socket that belongs to the current task's agent, or that reaches no network.
#[inline(always)]
fn verdict(socket: *const Socket, hook: Hook) -> i32 {
    let sk = read!(socket, sk);
    if sk.is_null() || read!(socket, file).is_null() {
        return PERMIT;
    }
    let family = u32::from(read!(sk, family));
    if is_local(family) {
        return PERMIT;
    }
    // SAFETY: the verifier knows `sk` as a socket; it is not null.
    let birth = unsafe { born_in(sk.cast()).or_else(|| record(&SOCKETS, sk.cast(), Absent::Leave).map(|ident| ident.agent_cgid)) };
    let reason = match birth {
        Some(agent) if agent == current_agent() => return PERMIT,
        _ if is_the_kernels(sk) => return PERMIT,
        Some(_) => Reason::OtherAgent,
        None => Reason::NoBirthRecord,
    };
    let peer = match u8::try_from(family) {
        Ok(AF_INET) => Endpoint::v4(read!(sk, daddr), read!(sk, dport)),
        _ => Endpoint::NONE,
    };
    // No field with the protocol has the same offset in every kernel.
    let kind = Kind { family, sock_type: u32::from(read!(socket, sock_type).cast_unsigned()), protocol: 0 };
    refuse(kind, peer, reason, hook);
    DENIED
}

/// Whether the kernel uses the socket for itself: a network file system or block device that serves a process. It
/// created the socket, or received it and set its allocations to avoid disk writes; no system call does that.
#[inline(always)]
fn is_the_kernels(sk: *const Sock) -> bool {
    /// `__GFP_IO | __GFP_FS`: allocations of ordinary sockets may wait for disks.
    const ORDINARY: u32 = 0x40 | 0x80;
    const BITS: u32 = 8;
    let (flag, allocation) = (KERN_SOCK.load(), ALLOCATION.load());
    let (mut byte, mut gfp) = (0_u8, 0_u32);
    // SAFETY: the helper writes as many bytes as each variable has, or zeroes, and takes any source address.
    unsafe {
        let sk = sk.cast::<u8>();
        bpf_probe_read_kernel((&raw mut byte).cast(), 1, sk.wrapping_add((flag / BITS) as usize).cast());
        bpf_probe_read_kernel((&raw mut gfp).cast(), 4, sk.wrapping_add((allocation / BITS) as usize).cast());
    }
    u32::from(byte) >> (flag % BITS) & 1 == 1 || gfp & ORDINARY != ORDINARY
}

/// Families that reach no network.
#[inline(always)]
fn is_local(family: u32) -> bool {
    family == u32::from(AF_UNIX) || family == u32::from(AF_NETLINK) || family == u32::from(AF_ALG)
}

/// Whether the current task is in the agents root.
#[inline(always)]
pub(crate) fn is_managed() -> bool {
    // SAFETY: takes no pointer.
    let root = unsafe { bpf_get_current_ancestor_cgroup_id(agent_level() - 1) };
    root == AGENTS_ROOT.load()
}
