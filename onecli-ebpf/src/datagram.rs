//! Hooks for datagrams: DNS goes to the agent's resolver, and answers appear to come from the requested server. Other
//! UDP is refused, above all QUIC, which the daemon cannot inspect.

use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock_addr, programs::SockAddrContext};
use onecli_common::{DNS_PORT, Hook, Ident, IdentFlags, Reason, Stat};

use crate::{
    ALLOW,
    connect::managed,
    context::{Address as _, Endpoint, complete, port_be, read},
    deny::refuse_address,
    maps::{AGENTS, Absent, RESOLVER_PORT, SOCKETS, count, record},
};

/// Unconnected send to an IPv4 address, through an IPv6 socket too. Kernel 5.7 (the hook itself is 4.18).
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let asked = ctx.endpoint4();
    match send(&ctx, &asked) {
        Ok(Endpoint { addr: [.., v4], port }) => {
            ctx.set_endpoint4(v4, port);
            ALLOW
        }
        Err(reason) => refuse_address(&ctx, asked, reason, Hook::Sendmsg4),
    }
}

/// Unconnected send to an IPv6 address: always refused, because resolvers have IPv4 addresses. Kernel 4.18.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let asked = ctx.endpoint6();
    let reason = match managed(&ctx) {
        Ok(_) if asked.port == DNS_PORT.to_be() => Reason::NoResolver,
        Ok(_) => Reason::Udp,
        Err(reason) => reason,
    };
    refuse_address(&ctx, asked, reason, Hook::Sendmsg6)
}

/// Receive on an IPv4 socket: an answer of the resolver appears to come from the requested server. Kernel 5.2.
#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn recvmsg4(ctx: SockAddrContext) -> i32 {
    if let Some(Endpoint { addr: [.., v4], port }) = asked_server(&ctx, &ctx.endpoint4()) {
        ctx.set_endpoint4(v4, port);
    }
    ALLOW
}

/// Receive on an IPv6 socket, where IPv4 senders appear mapped. Kernel 5.2.
#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn recvmsg6(ctx: SockAddrContext) -> i32 {
    if let Some(server) = asked_server(&ctx, &ctx.endpoint6()) {
        ctx.set_endpoint6(server);
    }
    ALLOW
}

/// The destination that replaces the requested one. It is recorded in the socket.
#[inline(always)]
fn send(ctx: &SockAddrContext, asked: &Endpoint) -> Result<Endpoint, Reason> {
    let ident = managed(ctx)?;
    let connected = connected(ctx);
    // An IPv6 socket that is connected to a mapped address passes here with every plain send(). Its peer is then
    // already the one that connect6 set.
    if connected && own_resolver(ident.agent_cgid).is_some_and(|resolver| resolver == *asked) {
        return Ok(*asked);
    }
    let resolver = resolver(asked, ident.agent_cgid)?;
    // A connected socket still shows the peer of its connect, and receives from no other peer.
    if !connected {
        complete(ident, ctx, asked, IdentFlags::DNS);
    }
    count(Stat::DnsRewritten);
    Ok(resolver)
}

/// The resolver of agent `agent_cgid`, if the requested server has an IPv4 address and port 53.
#[inline(always)]
pub(crate) fn resolver(asked: &Endpoint, agent_cgid: u64) -> Result<Endpoint, Reason> {
    if asked.port != DNS_PORT.to_be() {
        return Err(Reason::Udp);
    }
    if asked.mapped_v4().is_none() {
        return Err(Reason::NoResolver);
    }
    own_resolver(agent_cgid).ok_or(Reason::NoResolver)
}

/// The address that the daemon assigned to agent `agent_cgid` for its DNS.
#[inline(always)]
pub(crate) fn own_resolver(agent_cgid: u64) -> Option<Endpoint> {
    // SAFETY: the entry is read at once; an update by the daemon replaces the whole value.
    let entry = unsafe { AGENTS.get(&agent_cgid) }?;
    match u32::from_ne_bytes(entry.dns_addr) {
        0 => None,
        addr => Some(Endpoint::v4(addr, port_be(RESOLVER_PORT.load()))),
    }
}

/// The server that a DNS answer must appear to come from; `None` if `sender` is not the agent's resolver.
#[inline(always)]
fn asked_server(ctx: &SockAddrContext, sender: &Endpoint) -> Option<Endpoint> {
    // SAFETY: `sk` of a sock_addr context is a socket, never null.
    let ident = unsafe { record(&SOCKETS, ctx.socket(), Absent::Leave) }?;
    if ident.flags & IdentFlags::DNS == 0 {
        return None;
    }
    let resolver = own_resolver(ident.agent_cgid)?;
    (*sender == resolver).then(|| asked(ident))
}

/// The requested endpoint according to the record.
#[inline(always)]
pub(crate) fn asked(ident: &Ident) -> Endpoint {
    Endpoint {
        // SAFETY: both are 16 bytes of plain data; the bytes are in network order.
        addr: unsafe { core::mem::transmute::<[u8; 16], [u32; 4]>(ident.orig_addr) },
        port: ident.orig_port,
    }
}

/// Whether the UDP socket is connected.
#[inline(always)]
fn connected(ctx: &SockAddrContext) -> bool {
    // `TCP_ESTABLISHED`, which UDP sockets use too.
    const ESTABLISHED: u32 = 1;
    let sk: *mut bpf_sock = ctx.socket().cast();
    read!(sk, state) == ESTABLISHED
}
