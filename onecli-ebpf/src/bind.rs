//! Hooks for `bind()`: a managed process may bind any port that does not belong to the daemon.
//!
//! Ports that the kernel chooses itself (`bind` to port 0, `listen` without `bind`) do not pass here with their number.
//! A listener on the transparent port without the daemon's stamp is detected when a process connects to it.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use onecli_common::{Hook, Reason};

use crate::{
    ALLOW,
    context::{Address as _, Endpoint},
    deny::refuse_address,
    maps::RESERVED_PORTS,
};

/// `bind()` of an IPv4 socket, TCP or UDP. Kernel 4.17.
#[cgroup_sock_addr(bind4)]
pub(crate) fn bind4(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, ctx.endpoint4(), Hook::Bind4)
}

/// `bind()` of an IPv6 socket, TCP or UDP. Kernel 4.17.
#[cgroup_sock_addr(bind6)]
pub(crate) fn bind6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, ctx.endpoint6(), Hook::Bind6)
}

#[inline(always)]
fn verdict(ctx: &SockAddrContext, asked: Endpoint, hook: Hook) -> i32 {
    if is_reserved(u16::from_be(asked.port)) {
        return refuse_address(ctx, asked, Reason::ReservedPort, hook);
    }
    ALLOW
}

/// Whether a port (host byte order) is in the list. 0 is not a port and marks unused entries.
#[inline(always)]
fn is_reserved(port: u16) -> bool {
    let reserved = RESERVED_PORTS.load();
    port != 0 && reserved.contains(&port)
}
