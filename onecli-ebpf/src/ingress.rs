//! Filter for packets that reach managed sockets: only packets of this machine pass.
//!
//! A listener in a managed cgroup serves no client outside this machine, because [`egress`](crate::egress) drops every
//! answer. Some answers do not pass egress: before Linux 6.6 the kernel answers an inbound SYN over IPv6 with a segment
//! that no egress program sees. A packet that is dropped on arrival is not answered.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use onecli_common::Stat;

use crate::{
    ALLOW, REFUSE,
    context::{LOOPBACK_IFINDEX, read},
    maps::count,
};

/// Judges a packet that arrives at a managed socket, connected or listening. Kernel 4.10.
#[cgroup_skb(ingress)]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    if read!(ctx.skb.skb, ifindex) == LOOPBACK_IFINDEX {
        return ALLOW;
    }
    count(Stat::KeptOut);
    REFUSE
}
