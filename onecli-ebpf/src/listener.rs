//! Lookup of the listener at an address, in the network namespace of the context. Kernel 5.0 (4.20 for packets).

use core::mem;

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_tuple},
    cty::c_void,
    helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};

use crate::{
    context::Endpoint,
    maps::{Absent, SOCKETS, record, stamped},
};

/// The socket that would receive a TCP segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// No socket: a closed port.
    Nobody,
    /// A listener that the daemon stamped.
    Daemon,
    /// A socket that was created in this agent's cgroup; 0 for one created elsewhere.
    BornIn(u64),
}

/// The listener at `address`, for a client whose own address is not known yet.
///
/// Among listeners that share a port by `SO_REUSEPORT` the kernel may choose another one for the connection. They all
/// belong to one uid, and the daemon's listeners share no port.
#[inline(always)]
pub(crate) fn listener(ctx: *mut c_void, address: &Endpoint) -> Receiver {
    lookup(ctx, &Endpoint::NONE, address, |sk| {
        // SAFETY: `lookup` passes a socket the verifier knows.
        if unsafe { stamped(sk) } {
            return Receiver::Daemon;
        }
        // SAFETY: as above.
        Receiver::BornIn(unsafe { record(&SOCKETS, sk, Absent::Leave) }.map_or(0, |birth| birth.agent_cgid))
    })
    .unwrap_or(Receiver::Nobody)
}

/// Examines the socket that would receive a segment from `from` to `to`. Returns `None` if there is none.
#[inline(always)]
pub(crate) fn lookup<T>(
    ctx: *mut c_void,
    from: &Endpoint,
    to: &Endpoint,
    examine: impl FnOnce(*mut c_void) -> T,
) -> Option<T> {
    lookup_with(bpf_sk_lookup_tcp, ctx, from, to, examine)
}

/// Examines the socket that would receive a datagram from `from` to `to`. Returns `None` if there is none.
#[inline(always)]
pub(crate) fn lookup_udp<T>(
    ctx: *mut c_void,
    from: &Endpoint,
    to: &Endpoint,
    examine: impl FnOnce(*mut c_void) -> T,
) -> Option<T> {
    lookup_with(bpf_sk_lookup_udp, ctx, from, to, examine)
}

/// The signature of `bpf_sk_lookup_tcp` and `bpf_sk_lookup_udp`.
type Lookup = unsafe fn(*mut c_void, *mut bpf_sock_tuple, u32, u64, u64) -> *mut bpf_sock;

/// Releases the reference on the only path. Otherwise the verifier reports "Unreleased reference id=2".
#[inline(always)]
fn lookup_with<T>(
    find: Lookup,
    ctx: *mut c_void,
    from: &Endpoint,
    to: &Endpoint,
    examine: impl FnOnce(*mut c_void) -> T,
) -> Option<T> {
    /// `BPF_F_CURRENT_NETNS`.
    const CURRENT_NETNS: u64 = u64::MAX;
    /// The kernel takes the family from the size.
    const SIZE_V4: u32 = 12;
    const SIZE_V6: u32 = 36;
    // SAFETY: integers, for which zero is a value. The whole tuple is written for both families, because the verifier
    // requires every stack byte that a helper reads to be initialised.
    let mut tuple: bpf_sock_tuple = unsafe { mem::zeroed() };
    let size = if let Some(v4) = to.mapped_v4() {
        let [.., from_v4] = from.addr;
        // SAFETY: fields of a union of integers.
        let v4_tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        v4_tuple.saddr = from_v4;
        v4_tuple.daddr = v4;
        v4_tuple.sport = from.port;
        v4_tuple.dport = to.port;
        SIZE_V4
    } else {
        // SAFETY: as above.
        let v6_tuple = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        v6_tuple.saddr = from.addr;
        v6_tuple.daddr = to.addr;
        v6_tuple.sport = from.port;
        v6_tuple.dport = to.port;
        SIZE_V6
    };
    // SAFETY: a valid context and a tuple of `size` bytes.
    let sk = unsafe { find(ctx, &raw mut tuple, size, CURRENT_NETNS, 0) };
    if sk.is_null() {
        return None;
    }
    let result = examine(sk.cast());
    // SAFETY: the reference taken above, released once.
    unsafe { bpf_sk_release(sk.cast()) };
    Some(result)
}
