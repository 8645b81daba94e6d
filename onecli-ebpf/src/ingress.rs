//! What reaches a managed socket: packets of this machine, and nothing else.
//!
//! Whoever listens in a cgroup of ours has nobody to serve outside of the machine: [`egress`](crate::egress) drops every answer.
//! But not each is the agent's: before Linux 6.6 the kernel answers an inbound SYN over IPv6 by a segment that passes no egress
//! program. What does not come in is not answered.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use onecli_common::Stat;

use crate::{
    ALLOW, REFUSE,
    context::{LOOPBACK_IFINDEX, read},
    maps::count,
};

/// A packet arrives at a managed socket, connected or listening. Kernel 4.10.
#[cgroup_skb(ingress)]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    if read!(ctx.skb.skb, ifindex) == LOOPBACK_IFINDEX {
        return ALLOW;
    }
    count(Stat::KeptOut);
    REFUSE
}
