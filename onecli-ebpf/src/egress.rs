//! Filter for packets that leave managed sockets: they may go to the daemon, to the agent's resolver, or to another
//! socket of the same agent. All others are dropped, whichever way they were sent.
//!
//! The backstop of the other hooks, which judge system calls. It also sees connections from before the programs were
//! attached, answers to inbound connections, MPTCP subflows and packets rewritten by NAT. It runs by the socket's
//! cgroup. ACKs of `TIME_WAIT` and resets of closed ports come from sockets of the kernel and do not pass here.

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

/// Judges a packet that leaves a managed socket. Kernel 5.8 (ancestor of a found socket; the hook itself is 4.10).
///
/// One run may cover a segment of 64 KiB, which the kernel splits later.
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

/// Reports a dropped packet to the daemon.
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

/// The decision about a packet.
enum Verdict {
    Leaves,
    Dropped,
    /// Dropped like `Dropped`, but TCP will retransmit it.
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
    // Every allowed packet stays on this machine. `ifindex` is the device after routing and NAT.
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

/// Whether a datagram goes to the agent's own resolver and the daemon listens there. While the daemon is down, another
/// agent may have obtained the port by an automatic bind, which `bind4` and `bind6` do not see.
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
            // Retransmitted SYNs too: the daemon may have stopped since, and another process may listen there.
            SYN_SENT => return judge_syn(ctx, packet, sk.cast()),
            // The receiver is a client whose own port is the daemon's port.
            SYN_RECV | LISTEN => {}
            _ => return Verdict::Leaves,
        }
    }
    // The destination that connect uses if there is no listener.
    if packet.to.is_closed() {
        return Verdict::Leaves;
    }
    own_segment_may_leave(ctx, packet, sk.cast(), state).into()
}

/// Judges a SYN to the daemon's listener: it leaves only if it was announced.
///
/// Connect has looked for the listener. After a pause of the process, or in a retransmission, the daemon may have
/// stopped and another process may listen. A SYN that cannot be announced could match the stale record of another
/// connection. It passed no connect hook, but for example NAT rules in a network namespace of the agent.
#[inline(always)]
fn judge_syn(ctx: &SkBuffContext, packet: &Packet, sk: *mut c_void) -> Verdict {
    /// Nanoseconds: less than the time to close one listener and open another.
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

/// Whether one more connection of the agent may wait for the daemon. If so, it is counted.
///
/// Several CPUs change the numbers without a lock. Lost updates are corrected when the daemon has caught up. An agent
/// that the daemon has not registered has no bound, and the daemon refuses its connections.
#[inline(always)]
fn may_wait(agent_cgid: u64, now: u64) -> bool {
    // SAFETY: read at once; an update by the daemon replaces the whole value.
    let Some(&taken) = (unsafe { TAKEN.get(&agent_cgid) }) else { return true };
    let Some(waiting) = WAITING.get_ptr_mut(&agent_cgid) else {
        let first = Waiting { announced: taken.wrapping_add(1), ktime: now };
        // If the map is full of agents, the oldest entry is evicted. If that fails, there is no bound.
        let _inserted = WAITING.insert(&agent_cgid, &first, 0);
        return true;
    };
    // SAFETY: an entry of the map, valid while the program runs.
    let waiting = unsafe { &mut *waiting };
    let mut number = waiting.announced.wrapping_sub(taken);
    // Negative: some connections were forgiven and accepted later.
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
/// The 4-tuple is that of the packet, after routing and NAT, as the daemon sees it. It is done here and not in
/// `sock_ops`, whose callbacks at each step of each connection cost more than everything else.
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

/// Judges a segment within one agent. The receiver is looked up for the handshake; later it may be closed.
#[inline(always)]
fn own_segment_may_leave(ctx: &SkBuffContext, packet: &Packet, sk: *mut c_void, state: u32) -> bool {
    // A listener's record describes earlier use. Resets may be sent by one socket for a whole namespace.
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
    // A listener without such a record: the connections that it accepts next inherit
    // it.
    if state == LISTEN && unsafe { born_in(sk) }.is_none() {
        // SAFETY: as above. Without memory, an accepted socket is remembered at its first packet.
        let _born = unsafe { bear(sk, agent) };
    }
    true
}

/// Records at an accepted socket that its peer belongs to the same agent.
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

/// Examines the socket that will receive a segment. Returns the default value if there is none.
#[inline(always)]
fn lookup_receiver<T: Default>(
    ctx: &SkBuffContext,
    packet: &Packet,
    examine: impl FnOnce(*mut c_void) -> T,
) -> T {
    lookup(ctx.skb.skb.cast(), &packet.from, &packet.to, examine).unwrap_or_default()
}

/// Cgroup id of the agent in which the sending socket was created; 0 if it was created in none.
#[inline(always)]
fn sender(ctx: &SkBuffContext) -> u64 {
    // SAFETY: a valid context.
    unsafe { bpf_skb_ancestor_cgroup_id(ctx.skb.skb, agent_level()) }
}

impl Endpoint {
    /// Whether this is the destination of redirected TCP connections.
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
    /// Random number that separates the packet from similar ones, host byte order: see [`TupleKey::drawn`].
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

/// An IPv6 header, and the first 8 bytes behind it.
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
    /// Returns `None` for packets without ports at the usual offset: fragments, IP options and extension headers, which
    /// include source routes.
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

/// The first bytes of a packet. `None` if it is shorter or not contiguous; TCP and UDP packets are contiguous.
#[inline(always)]
fn head<T>(ctx: &SkBuffContext) -> Option<&T> {
    let start = read!(ctx.skb.skb, data) as usize;
    let end = read!(ctx.skb.skb, data_end) as usize;
    if start + size_of::<T>() > end {
        return None;
    }
    // SAFETY: that many bytes are present, as the verifier sees too, and stay while the program runs. `T` is one of the
    // headers above: plain integers. The kernel aligns the IP header to 4 bytes.
    Some(unsafe { &*(start as *const T) })
}
