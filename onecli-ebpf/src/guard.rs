//! The guard on the root of cgroup2: a managed process cannot use a socket that was created outside its agent.
//!
//! The kernel runs hooks by the cgroup of the socket. The hooks on the agents root therefore miss a socket that a
//! process brought along when it was moved in, or received over a Unix socket. The guards run for every socket of the
//! machine and check the task first. Data sent over a connection that was made outside passes no cgroup hook at all:
//! see [`security`](crate::security).

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use onecli_common::{Hook, Reason};

use crate::{
    ALLOW,
    context::{Address as _, Endpoint},
    deny::refuse_address,
    maps::{Absent, SOCKETS, record},
    security::is_managed,
};

/// `connect()` on any IPv4 socket of the machine. Kernel 5.7.
#[cgroup_sock_addr(connect4)]
pub(crate) fn guard_connect4(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, SockAddrContext::endpoint4, Hook::Connect4)
}

/// `connect()` on any IPv6 socket of the machine. Kernel 5.7.
#[cgroup_sock_addr(connect6)]
pub(crate) fn guard_connect6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, SockAddrContext::endpoint6, Hook::Connect6)
}

/// Any unconnected send to an IPv4 address. Kernel 5.7.
#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn guard_sendmsg4(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, SockAddrContext::endpoint4, Hook::Sendmsg4)
}

/// Any unconnected send to an IPv6 address. Kernel 5.7.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn guard_sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, SockAddrContext::endpoint6, Hook::Sendmsg6)
}

/// Refuses a managed task the use of a socket without a birth record. The hooks of the agents root judge sockets with a
/// record, because those were created there.
#[inline(always)]
fn verdict(ctx: &SockAddrContext, asked: impl FnOnce(&SockAddrContext) -> Endpoint, hook: Hook) -> i32 {
    if !is_managed() {
        return ALLOW;
    }
    // SAFETY: `sk` of a sock_addr context is a socket, never null.
    if unsafe { record(&SOCKETS, ctx.socket(), Absent::Leave) }.is_some() {
        return ALLOW;
    }
    refuse_address(ctx, asked(ctx), Reason::NoBirthRecord, hook)
}
