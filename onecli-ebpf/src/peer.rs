//! Hooks for `getpeername()`: a managed process sees the peer that it requested. Kernel 5.8.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use onecli_common::IdentFlags;

use crate::{
    ALLOW,
    context::{Address as _, Endpoint},
    datagram::asked,
    maps::{Absent, SOCKETS, record},
};

/// `getpeername()` on an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    if let Some(Endpoint { addr: [.., v4], port }) = asked_peer(&ctx) {
        ctx.set_endpoint4(v4, port);
    }
    ALLOW
}

/// `getpeername()` on an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some(peer) = asked_peer(&ctx) {
        ctx.set_endpoint6(peer);
    }
    ALLOW
}

/// The peer that a rewritten socket requested. Accepted sockets have no record and show the real peer.
#[inline(always)]
fn asked_peer(ctx: &SockAddrContext) -> Option<Endpoint> {
    const REWRITTEN: u32 = IdentFlags::REDIRECTED | IdentFlags::DNS;
    // SAFETY: `sk` of a sock_addr context is a socket, never null.
    let ident = unsafe { record(&SOCKETS, ctx.socket(), Absent::Leave) }?;
    (ident.flags & REWRITTEN != 0).then(|| asked(ident))
}
