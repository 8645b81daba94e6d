//! Refusals: counted, and told to the daemon.

use aya_ebpf::programs::SockAddrContext;
use onecli_common::{Hook, Reason, Stat};

use crate::{
    REFUSE,
    context::{Address as _, Endpoint, current_agent, current_cgroup, current_ids, now, write_comm},
    maps::{DENY, count},
};

/// What was refused.
pub(crate) struct Refused {
    pub(crate) family: u32,
    pub(crate) sock_type: u32,
    pub(crate) protocol: u32,
    pub(crate) asked: Endpoint,
}

/// Refuses an operation on an address: the verdict to return.
#[inline(always)]
pub(crate) fn refuse_address(
    ctx: &SockAddrContext,
    asked: &Endpoint,
    reason: Reason,
    hook: Hook,
) -> i32 {
    refuse(
        &Refused {
            family: ctx.family(),
            sock_type: ctx.sock_type(),
            protocol: ctx.protocol(),
            asked: *asked,
        },
        reason,
        hook,
    )
}

/// Refuses an operation: the verdict to return. The event is lost, and counted as lost, when the buffer is full.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "families, types and protocols are small numbers")]
pub(crate) fn refuse(refused: &Refused, reason: Reason, hook: Hook) -> i32 {
    count(Stat::Denied);
    let Some(mut event) = DENY.reserve(0) else {
        count(Stat::DenyLost);
        return REFUSE;
    };
    let (pid_tgid, uid_gid) = current_ids();
    let event_ptr = event.as_mut_ptr();
    // SAFETY: a reserved record of this type; every field is written before it is submitted.
    unsafe {
        (*event_ptr).ktime = now();
        (*event_ptr).agent_cgid = current_agent();
        (*event_ptr).current_cgid = current_cgroup();
        (*event_ptr).pid_tgid = pid_tgid;
        (*event_ptr).uid_gid = uid_gid;
        (*event_ptr).addr = refused.asked.bytes();
        (*event_ptr).port = refused.asked.port;
        (*event_ptr).protocol = refused.protocol as u16;
        (*event_ptr).family = refused.family as u8;
        (*event_ptr).sock_type = refused.sock_type as u8;
        (*event_ptr).reason = reason as u8;
        (*event_ptr).hook = hook as u8;
        write_comm(&raw mut (*event_ptr).comm);
    }
    event.submit(0);
    REFUSE
}
