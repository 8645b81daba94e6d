//! Refusals: counted, and told to the daemon.

use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use onecli_common::{Hook, Reason, Stat};

use crate::{
    REFUSE,
    context::{Address as _, Endpoint, current_agent, current_cgroup, current_ids, now, write_comm},
    maps::{DENY, count},
};

/// The socket that was refused something.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) family: u32,
    pub(crate) sock_type: u32,
    pub(crate) protocol: u32,
}

/// Refuses an operation on an address: the verdict to return.
#[inline(always)]
pub(crate) fn refuse_address(ctx: &SockAddrContext, asked: Endpoint, reason: Reason, hook: Hook) -> i32 {
    let kind = Kind { family: ctx.family(), sock_type: ctx.sock_type(), protocol: ctx.protocol() };
    refuse(kind, asked, reason, hook)
}

/// Refuses an operation: the verdict to return. The event is lost, and counted as lost, when the buffer is full.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "families, types and protocols are small numbers")]
pub(crate) fn refuse(kind: Kind, asked: Endpoint, reason: Reason, hook: Hook) -> i32 {
    count(Stat::Denied);
    // The only log statement: a call costs 1 µs without a reader and 11-14 µs with one, too much for any path that goes
    // on. The loader sets its level to 0 unless debugging, and the verifier then drops the code.
    debug!(
        (),
        "refused: hook {} reason {} family {} type {} protocol {} agent {}",
        hook as u8,
        reason as u8,
        kind.family,
        kind.sock_type,
        kind.protocol,
        current_agent()
    );
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
        (*event_ptr).addr = asked.bytes();
        (*event_ptr).port = asked.port;
        (*event_ptr).protocol = kind.protocol as u16;
        (*event_ptr).family = kind.family as u8;
        (*event_ptr).sock_type = kind.sock_type as u8;
        (*event_ptr).reason = reason as u8;
        (*event_ptr).hook = hook as u8;
        write_comm(&raw mut (*event_ptr).comm);
    }
    event.submit(0);
    REFUSE
}
