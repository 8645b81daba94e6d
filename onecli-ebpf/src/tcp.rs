//! The handover of an identity from the process's socket to the accepted one.
//!
//! Both ends of a connection live in this machine, but nothing in the kernel joins them except the 4-tuple: the client
//! side announces the identity under it before the SYN leaves, the server side takes it when the handshake ends.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
    },
    cty::c_void,
    helpers::generated::bpf_get_netns_cookie,
    macros::sock_ops,
    programs::SockOpsContext,
};
use onecli_common::{AF_INET, AF_INET6, IdentFlags, Stat, TupleKey};

use crate::{
    context::{Endpoint, read},
    maps::{Absent, FLOWS, SOCKETS, TUP, count, record},
};

/// What `sock_ops` programs return; with 0 the kernel would ignore the reply field and report an error of its own.
const DONE: u32 = 1;

/// Connections of managed processes; attached to the agents root. Kernel 5.15 (netns cookie in this context).
///
/// At `TCP_CONNECT_CB` the 4-tuple is complete and the SYN has not been sent. `ACTIVE_ESTABLISHED_CB` would be too late
/// for every TCP Fast Open connection, which the server establishes on the SYN.
#[sock_ops]
pub(crate) fn tcp_client(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => announce(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => forget(&ctx),
        _ => {}
    }
    DONE
}

/// Connections the daemon accepts; attached to the cgroup in which its listeners are created, because an accepted socket
/// belongs to the cgroup of its listener. Kernel 5.15.
#[sock_ops]
pub(crate) fn tcp_server(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        identify(&ctx);
    }
    DONE
}

/// Publishes the socket's identity under its 4-tuple.
#[inline(always)]
fn announce(ctx: &SockOpsContext) {
    let Some(sk) = socket(ctx) else { return };
    // SAFETY: checked non-null above.
    let Some(ident) = (unsafe { record(&SOCKETS, sk, Absent::Leave) }) else {
        return;
    };
    if ident.flags & IdentFlags::REDIRECTED == 0 {
        return;
    }
    let Some(key) = client_key(ctx) else { return };
    // The state callback, once asked for, reports the end of the connection however it comes.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    let watched = ctx.set_cb_flags(flags.cast_signed()).is_ok();
    if watched && TUP.insert(&key, &*ident, 0).is_ok() {
        count(Stat::Announced);
    } else {
        count(Stat::AnnounceFailed);
    }
}

/// Withdraws what [`announce`] published.
#[inline(always)]
fn forget(ctx: &SockOpsContext) {
    let Some(key) = client_key(ctx) else { return };
    if TUP.remove(&key).is_ok() {
        count(Stat::Forgotten);
    }
}

/// Copies the announced identity into the accepted socket.
#[inline(always)]
fn identify(ctx: &SockOpsContext) {
    let Some(key) = server_key(ctx) else { return };
    // SAFETY: the entry is only copied; the kernel frees it no earlier than this program ends.
    let announced = unsafe { TUP.get(&key) };
    let stored = match (announced, socket(ctx)) {
        // SAFETY: `sk` was checked non-null.
        (Some(ident), Some(sk)) => unsafe { record(&FLOWS, sk, Absent::Copy(ident)).is_some() },
        _ => false,
    };
    count(if stored { Stat::Identified } else { Stat::Unidentified });
}

/// The full socket of a callback.
#[inline(always)]
fn socket(ctx: &SockOpsContext) -> Option<*mut c_void> {
    let sk = read!(ctx.ops, __bindgen_anon_2.sk);
    if sk.is_null() {
        return None;
    }
    Some(sk.cast())
}

/// The key of a connection, at its client end.
#[inline(always)]
fn client_key(ctx: &SockOpsContext) -> Option<TupleKey> {
    let (local, remote) = addresses(ctx)?;
    Some(TupleKey {
        netns: netns(ctx),
        client_addr: local,
        server_addr: remote,
        client_port: read!(ctx.ops, local_port),
        server_port: u32::from_be(read!(ctx.ops, remote_port)),
    })
}

/// The key of a connection, at its server end.
#[inline(always)]
fn server_key(ctx: &SockOpsContext) -> Option<TupleKey> {
    let (local, remote) = addresses(ctx)?;
    Some(TupleKey {
        netns: netns(ctx),
        client_addr: remote,
        server_addr: local,
        client_port: u32::from_be(read!(ctx.ops, remote_port)),
        server_port: read!(ctx.ops, local_port),
    })
}

/// Local and remote address. A mapped IPv4 connection has the same spelling at its IPv6 client and its IPv4 server.
///
/// Every field is read, whatever the family: with the reads in the arms of a branch LLVM joins their ends into one load
/// from a computed offset, and the verifier says "dereference of modified ctx ptr R2 off=24 disallowed".
#[inline(always)]
fn addresses(ctx: &SockOpsContext) -> Option<([u8; 16], [u8; 16])> {
    const V4: u32 = AF_INET as u32;
    const V6: u32 = AF_INET6 as u32;
    let local4 = Endpoint::v4(read!(ctx.ops, local_ip4), 0);
    let remote4 = Endpoint::v4(read!(ctx.ops, remote_ip4), 0);
    let local6 = Endpoint {
        addr: [
            read!(ctx.ops, local_ip6[0]),
            read!(ctx.ops, local_ip6[1]),
            read!(ctx.ops, local_ip6[2]),
            read!(ctx.ops, local_ip6[3]),
        ],
        port: 0,
    };
    let remote6 = Endpoint {
        addr: [
            read!(ctx.ops, remote_ip6[0]),
            read!(ctx.ops, remote_ip6[1]),
            read!(ctx.ops, remote_ip6[2]),
            read!(ctx.ops, remote_ip6[3]),
        ],
        port: 0,
    };
    match read!(ctx.ops, family) {
        V4 => Some((local4.bytes(), remote4.bytes())),
        V6 => Some((local6.bytes(), remote6.bytes())),
        _ => None,
    }
}

/// Cookie of the network namespace of the callback's socket.
#[inline(always)]
fn netns(ctx: &SockOpsContext) -> u64 {
    // SAFETY: a valid context.
    unsafe { bpf_get_netns_cookie(ctx.ops.cast()) }
}
