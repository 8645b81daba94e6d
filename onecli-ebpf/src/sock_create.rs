//! Hook for the creation of a socket: only TCP and UDP are allowed, and the agent is recorded.

use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use onecli_common::{AF_INET, AF_INET6, Hook, IPPROTO_TCP, IPPROTO_UDP, Reason, Stat};

use crate::{
    ALLOW,
    context::{Endpoint, current_agent, current_cgroup, current_ids, now, read},
    deny::{Kind, refuse},
    maps::{Absent, SOCKETS, bear, count, record},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// `socket()` over IPv4 or IPv6, in the agents root. Kernel 5.12 (socket storage in this hook; the hook is 4.10).
///
/// Other families (`AF_UNIX`, `AF_PACKET`, `AF_VSOCK`, ...) do not pass here: the seccomp filter restricts them.
#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(ctx: SockContext) -> i32 {
    let sock: *mut bpf_sock = ctx.sock;
    let created =
        Kind { family: read!(sock, family), sock_type: read!(sock, type_), protocol: read!(sock, protocol) };
    let Some((family, proto)) = admissible(created) else {
        return refuse(created, Endpoint::NONE, Reason::SocketKind, Hook::SockCreate);
    };
    let agent_cgid = current_agent();
    if agent_cgid == 0 {
        return refuse(created, Endpoint::NONE, Reason::NoAgent, Hook::SockCreate);
    }
    // SAFETY: the context is the socket being created.
    let Some(birth) = (unsafe { record(&SOCKETS, sock.cast(), Absent::Zero) }) else {
        return refuse(created, Endpoint::NONE, Reason::NoBirthRecord, Hook::SockCreate);
    };
    // SAFETY: as above.
    if !unsafe { bear(sock.cast(), agent_cgid) } {
        return refuse(created, Endpoint::NONE, Reason::NoBirthRecord, Hook::SockCreate);
    }
    let (pid_tgid, uid_gid) = current_ids();
    birth.family = family;
    birth.proto = proto;
    birth.agent_cgid = agent_cgid;
    birth.birth_cgid = current_cgroup();
    birth.pid_tgid = pid_tgid;
    birth.uid_gid = uid_gid;
    birth.ktime = now();
    count(Stat::Born);
    ALLOW
}

/// Family and protocol of a socket that a managed process may create. MPTCP (262), UDP-Lite, raw, ping and SCTP sockets
/// are excluded: these programs have no hook for their traffic. Programs fall back from MPTCP to TCP.
#[inline(always)]
fn admissible(created: Kind) -> Option<(u8, u8)> {
    const V4: u32 = AF_INET as u32;
    const V6: u32 = AF_INET6 as u32;
    const TCP: u32 = IPPROTO_TCP as u32;
    const UDP: u32 = IPPROTO_UDP as u32;
    let family = match created.family {
        V4 => AF_INET,
        V6 => AF_INET6,
        _ => return None,
    };
    match (created.sock_type, created.protocol) {
        (SOCK_STREAM, TCP) => Some((family, IPPROTO_TCP)),
        (SOCK_DGRAM, UDP) => Some((family, IPPROTO_UDP)),
        _ => None,
    }
}
