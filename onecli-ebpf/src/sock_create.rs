//! A socket is born: only TCP and UDP, and remembered where.

use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use onecli_common::{AF_INET, AF_INET6, Hook, IPPROTO_TCP, IPPROTO_UDP, Ident, Reason, Stat};

use crate::{
    ALLOW,
    context::{Endpoint, current_agent, current_cgroup, current_ids, now, read},
    deny::{Refused, refuse},
    maps::{SOCKETS, count, record},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// `socket()` over IPv4 or IPv6, in the agents root. Kernel 5.12 (socket storage in this hook; the hook itself is 4.10).
///
/// Other families (`AF_UNIX`, `AF_PACKET`, `AF_VSOCK`, ...) do not come here: the launcher's seccomp filter bounds them.
#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(ctx: SockContext) -> i32 {
    let sock: *mut bpf_sock = ctx.sock;
    let refused = Refused {
        family: read!(sock, family),
        sock_type: read!(sock, type_),
        protocol: read!(sock, protocol),
        asked: Endpoint {
            addr: [0; 4],
            port: 0,
        },
    };
    let Some((family, proto)) = kind(&refused) else {
        return refuse(&refused, Reason::SocketKind, Hook::SockCreate);
    };
    let agent_cgid = current_agent();
    if agent_cgid == 0 {
        return refuse(&refused, Reason::NoAgent, Hook::SockCreate);
    }
    let (pid_tgid, uid_gid) = current_ids();
    let mut birth = Ident {
        orig_addr: [0; 16],
        orig_port: 0,
        family,
        proto,
        flags: 0,
        agent_cgid,
        birth_cgid: current_cgroup(),
        current_cgid: 0,
        netns: 0,
        sock_cookie: 0,
        pid_tgid,
        uid_gid,
        ktime: now(),
        comm: [0; 16],
    };
    // SAFETY: the context is the socket being created.
    let stored = unsafe { record(&SOCKETS, sock.cast(), Some(&raw mut birth)) };
    if stored.is_none() {
        return refuse(&refused, Reason::NoBirthRecord, Hook::SockCreate);
    }
    count(Stat::Born);
    ALLOW
}

/// Family and protocol of a socket that a managed process may have. MPTCP (262), UDP-Lite, raw, ping and SCTP sockets
/// are not among them: their traffic passes hooks that these programs do not hold. Programs fall back from MPTCP.
#[inline(always)]
fn kind(asked: &Refused) -> Option<(u8, u8)> {
    const TCP: u32 = IPPROTO_TCP as u32;
    const UDP: u32 = IPPROTO_UDP as u32;
    let family = match asked.family {
        2 => AF_INET,
        10 => AF_INET6,
        _ => return None,
    };
    match (asked.sock_type, asked.protocol) {
        (SOCK_STREAM, TCP) => Some((family, IPPROTO_TCP)),
        (SOCK_DGRAM, UDP) => Some((family, IPPROTO_UDP)),
        _ => None,
    }
}
