//! What leaves a managed socket: packets to the daemon, to the agent's resolver, or to another socket of the same agent.
//! Nothing else, whichever way it came to be sent.
//!
//! The backstop of the other hooks, which judge system calls: connections made before the programs were attached,
//! answers to inbound connections, MPTCP subflows and what NAT rules rewrite come here all the same. It runs by the
//! socket's cgroup. ACKs of `TIME_WAIT` and resets of closed ports are sent by sockets of the kernel and pass elsewhere.

use aya_ebpf::{
    cty::c_void,
    helpers::generated::{bpf_sk_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use onecli_common::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, Ident, IdentFlags, Stat, TupleKey, Waiting,
    names::{WAITING_FORGIVEN, WAITING_MAX},
};

use crate::{
    ALLOW, REFUSE,
    context::{Endpoint, LOOPBACK_IFINDEX, LOOPBACK4, agent_level, now, port_be, read},
    datagram::{asked, own_resolver},
    deny::{Kind, dropped},
    listener::{lookup, lookup_udp},
    maps::{Absent, SOCKETS, TAKEN, TRANSPARENT_PORT, TUP, WAITING, bear, born_in, count, record, stamped},
};

// States of a TCP socket, `net/tcp_states.h`.
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const CLOSE: u32 = 7;
const LISTEN: u32 = 10;

/// A packet of a managed socket leaves. Kernel 5.8 (ancestor of a found socket; the hook itself is 4.10).
///
/// One run may be a segment of 64 KiB, which is cut later.
#[cgroup_skb(egress)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    match judge(&ctx) {
        Verdict::Leaves => return ALLOW,
        Verdict::Dropped => {
            count(Stat::PacketsDropped);
            tell(&ctx);
        }
        Verdict::Held => count(Stat::Held),
    }
    REFUSE
}

/// Tells the daemon of a packet that was dropped.
#[inline(always)]
fn tell(ctx: &SkBuffContext) {
    let (to, protocol) = match Packet::parse(ctx) {
        Some(packet) => (packet.to, packet.protocol),
        None => (Endpoint::NONE, 0),
    };
    let family = if to.mapped_v4().is_some() { AF_INET } else { AF_INET6 };
    let kind = Kind { family: u32::from(family), sock_type: 0, protocol: u32::from(protocol) };
    dropped(kind, to, sender(ctx));
}

/// What becomes of a packet.
enum Verdict {
    Leaves,
    Dropped,
    /// Dropped as well, until TCP sends it again.
    Held,
}

impl From<bool> for Verdict {
    #[inline(always)]
    fn from(leaves: bool) -> Self {
        if leaves { Self::Leaves } else { Self::Dropped }
    }
}

#[inline(always)]
fn judge(ctx: &SkBuffContext) -> Verdict {
    // All that is allowed stays in the machine. This is the device after routing and NAT.
    if read!(ctx.skb.skb, ifindex) != LOOPBACK_IFINDEX {
        return Verdict::Dropped;
    }
    let Some(packet) = Packet::parse(ctx) else { return Verdict::Dropped };
    match packet.protocol {
        IPPROTO_TCP => judge_segment(ctx, &packet),
        IPPROTO_UDP => datagram_may_leave(ctx, &packet).into(),
        _ => Verdict::Dropped,
    }
}

/// To the agent's own resolver, if the daemon answers there: while it is down, another agent may have got the port by an
/// automatic bind, which `bind4` and `bind6` do not see.
#[inline(always)]
fn datagram_may_leave(ctx: &SkBuffContext, packet: &Packet) -> bool {
    if own_resolver(sender(ctx)).is_none_or(|resolver| resolver != packet.to) {
        return false;
    }
    lookup_udp(ctx.skb.skb.cast(), &packet.from, &packet.to, |sk| {
        // SAFETY: `lookup_udp` passes a socket the verifier knows.
        unsafe { stamped(sk) }
    })
    .unwrap_or_default()
}

#[inline(always)]
fn judge_segment(ctx: &SkBuffContext, packet: &Packet) -> Verdict {
    let sk = read!(ctx.skb.skb, __bindgen_anon_2.sk);
    if sk.is_null() {
        return Verdict::Dropped;
    }
    let state = read!(sk, state);
    if packet.to.is_daemon() {
        match state {
            // Retransmitted SYNs too: the daemon may have gone since, and somebody else have come.
            SYN_SENT => return judge_syn(ctx, packet, sk.cast()),
            // The receiver is a client that has our port as its own.
            SYN_RECV | LISTEN => {}
            _ => return Verdict::Leaves,
        }
    }
    // Where connect sends who has nobody to serve it.
    if packet.to.is_closed() {
        return Verdict::Leaves;
    }
    own_segment_may_leave(ctx, packet, sk.cast(), state).into()
}

/// A SYN leaves to the daemon's listener, announced, or not at all.
///
/// Connect has looked for the listener, but after a pause of the process or in a retransmission the daemon may have gone
/// and somebody else have come. One that cannot be announced could be found by what another left: it came here by other
/// ways than connect, by NAT rules of a network namespace of the agent's own, say.
#[inline(always)]
fn judge_syn(ctx: &SkBuffContext, packet: &Packet, sk: *mut c_void) -> Verdict {
    /// Nanoseconds: less than closing one listener and opening another takes.
    const MOMENT: u64 = 10_000;
    // SAFETY: checked non-null by the caller.
    let Some(ident) = (unsafe { record(&SOCKETS, sk, Absent::Leave) }) else { return Verdict::Dropped };
    if ident.flags & IdentFlags::REDIRECTED == 0 {
        return Verdict::Dropped;
    }
    let now = now();
    let awaits = ident.flags & IdentFlags::AWAITS != 0;
    if (awaits || now - ident.ktime >= MOMENT) && !leads_to_daemon(ctx, packet) {
        return if awaits { Verdict::Held } else { Verdict::Dropped };
    }
    if ident.flags & IdentFlags::ANNOUNCED == 0 {
        if !may_wait(ident.agent_cgid, now) {
            return Verdict::Held;
        }
        ident.flags |= IdentFlags::ANNOUNCED;
    }
    announce(ident, packet, now);
    Verdict::Leaves
}

/// Whether one more connection of the agent may wait for the daemon, which is counted then.
///
/// The numbers are of several CPUs and nobody's lock: what is lost between them is made up for when the daemon has caught
/// up. An agent the daemon has not told of has no bound, and is refused by it anyway.
#[inline(always)]
fn may_wait(agent_cgid: u64, now: u64) -> bool {
    // SAFETY: read at once; an update by the daemon replaces the whole value.
    let Some(&taken) = (unsafe { TAKEN.get(&agent_cgid) }) else { return true };
    let Some(waiting) = WAITING.get_ptr_mut(&agent_cgid) else {
        let first = Waiting { announced: taken.wrapping_add(1), ktime: now };
        // Full of agents: the oldest goes, and failing that there is no bound.
        let _inserted = WAITING.insert(&agent_cgid, &first, 0);
        return true;
    };
    // SAFETY: an entry of the map, valid while the program runs.
    let waiting = unsafe { &mut *waiting };
    let mut number = waiting.announced.wrapping_sub(taken);
    // Fewer than none: some were forgiven, and accepted after all.
    if number == 0 || number > u64::MAX / 2 {
        *waiting = Waiting { announced: taken.wrapping_add(1), ktime: now };
        return true;
    }
    let forgiven = now.saturating_sub(waiting.ktime) / WAITING_FORGIVEN;
    if forgiven > 0 {
        let forgiven = if forgiven < number { forgiven } else { number };
        number -= forgiven;
        waiting.announced = waiting.announced.wrapping_sub(forgiven);
        waiting.ktime = now;
    }
    if number >= WAITING_MAX {
        return false;
    }
    waiting.announced = waiting.announced.wrapping_add(1);
    true
}

/// Publishes the socket's identity under its 4-tuple, before the daemon's side can see the SYN.
///
/// As the packet has it, after routing and NAT: so does the daemon's side. Here and not in `sock_ops`, whose callbacks at
/// each step of each connection cost more than all else.
#[inline(always)]
fn announce(ident: &mut Ident, packet: &Packet, now: u64) {
    let key = TupleKey {
        netns: ident.netns,
        client_addr: packet.from.bytes(),
        server_addr: packet.to.bytes(),
        client_port: u32::from(u16::from_be(packet.from.port)),
        server_port: u32::from(u16::from_be(packet.to.port)),
        isn: u32::from_be(packet.seq),
        drawn: packet.drawn,
    };
    ident.ktime = now;
    count(if TUP.insert(&key, &*ident, 0).is_ok() { Stat::Announced } else { Stat::AnnounceFailed });
}

/// Whether the daemon's listener will receive a SYN.
#[inline(always)]
fn leads_to_daemon(ctx: &SkBuffContext, packet: &Packet) -> bool {
    lookup_receiver(ctx, packet, |sk| {
        // SAFETY: `lookup` passes a socket the verifier knows.
        unsafe { stamped(sk) }
    })
}

/// Between two sockets of one agent: looked up for the handshake, remembered for the rest, when the other end may be gone.
#[inline(always)]
fn own_segment_may_leave(ctx: &SkBuffContext, packet: &Packet, sk: *mut c_void, state: u32) -> bool {
    // A listener's record is of what the socket did before, and resets may be sent by a socket for all of a namespace.
    let remembers = !matches!(state, SYN_SENT | LISTEN | CLOSE);
    // SAFETY: checked non-null.
    let known = unsafe { record(&SOCKETS, sk, Absent::Leave) };
    if let Some(ident) = known
        && ident.flags == IdentFlags::OWN
        && !matches!(state, SYN_SENT | LISTEN)
        && asked(ident) == packet.to
    {
        return true;
    }
    let agent = sender(ctx);
    // SAFETY: `lookup` passes a socket the verifier knows.
    let receiver = |sk| unsafe { bpf_sk_ancestor_cgroup_id(sk, agent_level()) };
    if agent == 0 || lookup_receiver(ctx, packet, receiver) != agent {
        return false;
    }
    if remembers {
        remember(sk, agent, packet);
    }
    // A listener from before there was such a record: what it accepts next inherits it.
    // SAFETY: checked non-null.
    if state == LISTEN && unsafe { born_in(sk) }.is_none() {
        // SAFETY: as above. Without memory what it accepts is remembered at its first packet.
        let _born = unsafe { bear(sk, agent) };
    }
    true
}

/// Notes at an accepted socket that its peer is the same agent's.
#[inline(always)]
fn remember(sk: *mut c_void, agent_cgid: u64, packet: &Packet) {
    // SAFETY: the caller's socket is not null.
    let Some(ident) = (unsafe { record(&SOCKETS, sk, Absent::Zero) }) else {
        return;
    };
    ident.orig_addr = packet.to.bytes();
    ident.orig_port = packet.to.port;
    ident.family = if packet.to.mapped_v4().is_some() { AF_INET } else { AF_INET6 };
    ident.proto = IPPROTO_TCP;
    ident.flags = IdentFlags::OWN;
    ident.agent_cgid = agent_cgid;
    ident.ktime = now();
}

/// Examines the socket that will receive a segment; the default when there is none.
#[inline(always)]
fn lookup_receiver<T: Default>(
    ctx: &SkBuffContext,
    packet: &Packet,
    examine: impl FnOnce(*mut c_void) -> T,
) -> T {
    lookup(ctx.skb.skb.cast(), &packet.from, &packet.to, examine).unwrap_or_default()
}

/// Cgroup id of the agent whose socket sends; 0 when it was created in none.
#[inline(always)]
fn sender(ctx: &SkBuffContext) -> u64 {
    // SAFETY: a valid context.
    unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, agent_level()) }
}

impl Endpoint {
    /// Whether this is where TCP is redirected to.
    #[inline(always)]
    fn is_daemon(&self) -> bool {
        self.port == port_be(TRANSPARENT_PORT.load()) && self.is_localhost()
    }

    /// Whether this is [`closed`](Self::closed).
    #[inline(always)]
    fn is_closed(&self) -> bool {
        self.port == 0 && self.is_localhost()
    }

    #[inline(always)]
    fn is_localhost(&self) -> bool {
        self.mapped_v4() == Some(LOOPBACK4) || self.addr == Self::LOOPBACK6
    }
}

/// Addresses and ports of a packet.
struct Packet {
    from: Endpoint,
    to: Endpoint,
    protocol: u8,
    /// TCP: the sequence number, network byte order. UDP: something else.
    seq: u32,
    /// What tells it from others alike, host byte order: see [`TupleKey::drawn`].
    drawn: u32,
}

/// An IPv4 header without options, and the first 8 bytes behind it, which are the whole header of UDP.
#[repr(C)]
struct V4 {
    version_and_length: u8,
    service: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    from: u32,
    to: u32,
    from_port: u16,
    to_port: u16,
    seq: u32,
}

/// An IPv6 header, and as much behind it.
#[repr(C)]
struct V6 {
    version: u32,
    length: u16,
    next_header: u8,
    hops: u8,
    from: [u32; 4],
    to: [u32; 4],
    from_port: u16,
    to_port: u16,
    seq: u32,
}

impl Packet {
    /// `None` for what has no ports where they usually are: fragments, IP options and extension headers, of which source
    /// routes are some.
    #[inline(always)]
    fn parse(ctx: &SkBuffContext) -> Option<Self> {
        const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
        const ETH_P_IPV6: u32 = 0x86dd_u16.to_be() as u32;
        match read!(ctx.skb.skb, protocol) {
            ETH_P_IP => {
                /// Version 4, five words.
                const PLAIN: u8 = 0x45;
                /// More fragments, and the offset; not "don't fragment".
                const IS_FRAGMENT: u16 = 0x3fff_u16.to_be();
                let header: &V4 = head(ctx)?;
                if header.version_and_length != PLAIN || header.fragment & IS_FRAGMENT != 0 {
                    return None;
                }
                Some(Self {
                    from: Endpoint::v4(header.from, header.from_port),
                    to: Endpoint::v4(header.to, header.to_port),
                    protocol: header.protocol,
                    seq: header.seq,
                    drawn: u32::from(u16::from_be(header.id)),
                })
            }
            ETH_P_IPV6 => {
                const FLOW_LABEL: u32 = 0xf_ffff;
                let header: &V6 = head(ctx)?;
                // Any other header in between is neither TCP nor UDP.
                Some(Self {
                    from: Endpoint { addr: header.from, port: header.from_port },
                    to: Endpoint { addr: header.to, port: header.to_port },
                    protocol: header.next_header,
                    seq: header.seq,
                    drawn: u32::from_be(header.version) & FLOW_LABEL,
                })
            }
            _ => None,
        }
    }
}

/// The first bytes of a packet; `None` if it has fewer, or not in one piece, which packets of TCP and UDP sockets have.
#[inline(always)]
fn head<T>(ctx: &SkBuffContext) -> Option<&T> {
    let start = read!(ctx.skb.skb, data) as usize;
    let end = read!(ctx.skb.skb, data_end) as usize;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: so many bytes are there, as the verifier sees too, and stay while the program runs. `T` is one of the headers
    // above: plain integers. The kernel aligns the IP header to 4 bytes.
    Some(unsafe { &*(start as *const T) })
}
