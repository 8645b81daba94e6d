//! Refusals: counted, and reported to the daemon.

use aya_ebpf::programs::SockAddrContext;
use aya_log_ebpf::debug;
use onecli_common::{COMM_LEN, Hook, Reason, Stat, names::TOLD_MAX};

use crate::{
    REFUSE,
    context::{Address as _, Endpoint, current_agent, current_cgroup, current_ids, now, write_comm},
    maps::{DENY, TOLD, Told, count},
};

/// The socket whose operation was refused.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) family: u32,
    pub(crate) sock_type: u32,
    pub(crate) protocol: u32,
}

/// Refuses an operation on an address, and returns the verdict.
#[inline(always)]
pub(crate) fn refuse_address(ctx: &SockAddrContext, asked: Endpoint, reason: Reason, hook: Hook) -> i32 {
    let kind = Kind { family: ctx.family(), sock_type: ctx.sock_type(), protocol: ctx.protocol() };
    refuse(kind, asked, reason, hook)
}

/// Refuses an operation, and returns the verdict.
#[inline(always)]
pub(crate) fn refuse(kind: Kind, asked: Endpoint, reason: Reason, hook: Hook) -> i32 {
    count(Stat::Denied);
    // The only log statement: a call costs 1 µs without a reader and 11-14 µs with one, too much for a path that is
    // allowed. The loader sets its level to 0 unless debugging, and the verifier then drops the code.
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
    let (pid_tgid, uid_gid) = current_ids();
    let task = Task { agent_cgid: current_agent(), cgid: current_cgroup(), pid_tgid, uid_gid };
    tell(kind, asked, reason, hook, &task, |comm| write_comm(comm));
    REFUSE
}

/// Reports a dropped packet of an agent's socket. The current task is unrelated to the packet, so it is left out.
#[inline(always)]
pub(crate) fn dropped(kind: Kind, to: Endpoint, agent_cgid: u64) {
    let nobody = Task { agent_cgid, cgid: 0, pid_tgid: 0, uid_gid: 0 };
    // SAFETY: `tell` passes a place of this type.
    tell(kind, to, Reason::Packet, Hook::Egress, &nobody, |comm| unsafe { comm.write([0; COMM_LEN]) });
}

/// The task whose operation was refused.
struct Task {
    agent_cgid: u64,
    cgid: u64,
    pid_tgid: u64,
    uid_gid: u64,
}

/// Writes an event. It is dropped, and counted as lost, if the buffer is full or the agent has used its share of it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "families, types and protocols are small numbers")]
fn tell(
    kind: Kind,
    asked: Endpoint,
    reason: Reason,
    hook: Hook,
    task: &Task,
    name: impl FnOnce(*mut [u8; COMM_LEN]),
) {
    let now = now();
    if !may_be_told(task.agent_cgid, now) {
        return count(Stat::DenyLost);
    }
    let Some(mut event) = DENY.reserve(0) else {
        return count(Stat::DenyLost);
    };
    let event_ptr = event.as_mut_ptr();
    // SAFETY: a reserved record of this type; every field is written before it is submitted.
    unsafe {
        (*event_ptr).ktime = now;
        (*event_ptr).agent_cgid = task.agent_cgid;
        (*event_ptr).current_cgid = task.cgid;
        (*event_ptr).pid_tgid = task.pid_tgid;
        (*event_ptr).uid_gid = task.uid_gid;
        (*event_ptr).addr = asked.bytes();
        (*event_ptr).port = asked.port;
        (*event_ptr).protocol = kind.protocol as u16;
        (*event_ptr).family = kind.family as u8;
        (*event_ptr).sock_type = kind.sock_type as u8;
        (*event_ptr).reason = reason as u8;
        (*event_ptr).hook = hook as u8;
        name(&raw mut (*event_ptr).comm);
    }
    event.submit(0);
}

/// Whether one more refusal of the agent may be reported. The limit stops one agent from hiding refusals of others.
#[inline(always)]
fn may_be_told(agent_cgid: u64, now: u64) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let Some(told) = TOLD.get_ptr_mut(&agent_cgid) else {
        // If the map is full of agents, the oldest entry is evicted.
        let _inserted = TOLD.insert(&agent_cgid, &Told { ktime: now, number: 1 }, 0);
        return true;
    };
    // SAFETY: an entry of the map, valid while the program runs. Of several CPUs' counts some may be lost.
    let told = unsafe { &mut *told };
    if now.wrapping_sub(told.ktime) >= SECOND {
        *told = Told { ktime: now, number: 1 };
        return true;
    }
    if told.number >= TOLD_MAX {
        return false;
    }
    told.number += 1;
    true
}
