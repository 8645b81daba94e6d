//! Hooks for `connect()`: TCP goes to the transparent listener, DNS to the agent's resolver, the rest is refused.
//!
//! Also runs for non-blocking and TCP Fast Open connects, `io_uring`, and a reconnect after `AF_UNSPEC`.

use aya_ebpf::{
    helpers::generated::{bpf_get_netns_cookie, bpf_setsockopt}, macros::cgroup_sock_addr, programs::SockAddrContext,
};
use onecli_common::{Hook, IPPROTO_TCP, Ident, IdentFlags, Reason, Stat};

use crate::{
    ALLOW,
    context::{Address as _, Endpoint, LOOPBACK4, complete, current_agent, port_be},
    datagram::resolver,
    deny::refuse_address,
    listener::{Receiver, listener},
    maps::{Absent, HOME_NETNS, SOCKETS, TRANSPARENT_PORT, count, record},
};

/// `connect()` on an IPv4 socket. Kernel 5.7 (cookies; the hook itself is 4.17).
#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    let asked = ctx.endpoint4();
    match destination(&ctx, &asked) {
        Ok(Endpoint { addr: [.., v4], port }) => {
            ctx.set_endpoint4(v4, port);
            ALLOW
        }
        Err(reason) => refuse_address(&ctx, asked, reason, Hook::Connect4),
    }
}

/// `connect()` on an IPv6 socket, mapped IPv4 destinations included. Kernel 5.7.
#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    let asked = ctx.endpoint6();
    match destination(&ctx, &asked) {
        Ok(endpoint) => {
            ctx.set_endpoint6(endpoint);
            ALLOW
        }
        Err(reason) => refuse_address(&ctx, asked, reason, Hook::Connect6),
    }
}

/// The destination that replaces the requested one. It is recorded in the socket.
#[inline(always)]
fn destination(ctx: &SockAddrContext, asked: &Endpoint) -> Result<Endpoint, Reason> {
    let ident = managed(ctx)?;
    if ctx.protocol() == u32::from(IPPROTO_TCP) {
        let route = route(ctx, asked, ident.agent_cgid)?;
        // `getpeername` of an own connection needs no rewriting: it shows the real destination.
        complete(ident, ctx, if route.flags == IdentFlags::OWN { &route.to } else { asked }, route.flags);
        count(route.stat);
        return Ok(route.to);
    }
    let resolver = resolver(asked, ident.agent_cgid)?;
    complete(ident, ctx, asked, IdentFlags::DNS);
    count(Stat::DnsRewritten);
    Ok(resolver)
}

/// The destination of a TCP connection.
struct Route {
    to: Endpoint,
    flags: u32,
    stat: Stat,
}

/// Chooses the agent's own listener if the agent asked for one, else the daemon's.
///
/// Without the daemon the destination becomes port 0 of the loopback. The client gets ECONNREFUSED, as from any stopped
/// service. No process can listen there, whatever takes the port between this program and the SYN. A listener that is
/// not the daemon's is refused; the packet filter checks again when the SYN leaves.
///
/// In a network namespace other than the daemon's the listener may be opened soon. The packet filter holds the SYN back
/// until it is there, and TCP retransmits it for seven seconds.
#[inline(always)]
fn route(ctx: &SockAddrContext, asked: &Endpoint, agent_cgid: u64) -> Result<Route, Reason> {
    let own = Receiver::BornIn(agent_cgid);
    let context = ctx.sock_addr.cast();
    // Only the loopback: a listener on the unspecified address would be found under every address.
    if let Some(local) = asked.loopback() {
        match listener(context, &local) {
            receiver if receiver == own => {
                return Ok(Route { to: local, flags: IdentFlags::OWN, stat: Stat::Own });
            }
            // `localhost` is two addresses. A client tries the second only when the first refuses, as without OneCLI.
            Receiver::Nobody if local.twin().is_some_and(|twin| listener(context, &twin) == own) => {
                return Ok(Route { to: local.closed(), flags: 0, stat: Stat::Unserved });
            }
            _ => {}
        }
    }
    let port = port_be(TRANSPARENT_PORT.load());
    // A mapped destination stays mapped: an IPv4 connect could not use an IPv6-only route.
    let to = match asked.mapped_v4() {
        Some(_) => Endpoint::v4(LOOPBACK4, port),
        None => Endpoint { addr: Endpoint::LOOPBACK6, port },
    };
    match listener(context, &to) {
        Receiver::Daemon => Ok(Route { to, flags: IdentFlags::REDIRECTED, stat: Stat::Redirected }),
        Receiver::Nobody if is_elsewhere(ctx) => {
            bound_patience(ctx);
            Ok(Route { to, flags: IdentFlags::REDIRECTED | IdentFlags::AWAITS, stat: Stat::Unserved })
        }
        Receiver::Nobody => Ok(Route { to: to.closed(), flags: 0, stat: Stat::Unserved }),
        Receiver::BornIn(_) => {
            count(Stat::ForeignListener);
            Err(Reason::ForeignListener)
        }
    }
}

/// Makes the kernel abandon a connection after SYNs at 0, 1 and 3 seconds instead of after two minutes. Kernel 5.9.
#[inline(always)]
fn bound_patience(ctx: &SockAddrContext) {
    const IPPROTO_TCP: i32 = 6;
    /// `TCP_SYNCNT` of linux/tcp.h.
    const TCP_SYNCNT: i32 = 7;
    let mut retransmissions = 2_i32;
    // SAFETY: a valid context, and a value of four bytes. If the call fails, the agent only waits longer.
    unsafe {
        bpf_setsockopt(ctx.sock_addr.cast(), IPPROTO_TCP, TCP_SYNCNT, (&raw mut retransmissions).cast(), 4);
    }
}

/// Whether the socket is in a network namespace other than the daemon's.
#[inline(always)]
fn is_elsewhere(ctx: &SockAddrContext) -> bool {
    let home = HOME_NETNS.load();
    // SAFETY: a valid context.
    home != 0 && home != unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) }
}

/// Returns the record of a socket that was created in the same agent that uses it now.
///
/// The kernel chooses hooks by the socket's cgroup, not the task's. A socket that was passed to another process, or
/// whose process moved to another cgroup, still comes here and is refused.
#[inline(always)]
pub(crate) fn managed<'a>(ctx: &SockAddrContext) -> Result<&'a mut Ident, Reason> {
    // SAFETY: `sk` of a sock_addr context is a socket, never null.
    let Some(ident) = (unsafe { record(&SOCKETS, ctx.socket(), Absent::Leave) }) else {
        return Err(Reason::NoBirthRecord);
    };
    match current_agent() {
        0 => Err(Reason::NoAgent),
        agent if agent == ident.agent_cgid => Ok(ident),
        _ => Err(Reason::OtherAgent),
    }
}
