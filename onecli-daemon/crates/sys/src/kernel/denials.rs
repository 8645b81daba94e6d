//! The refusals of the kernel programs.
#![allow(
    unsafe_code,
    reason = "events are read from the ring buffer's memory, and its descriptor is registered"
)]

use std::{net::SocketAddr, time::Duration};

use aya::maps::{Map, MapData, RingBuf};
use onecli_common::{Deny, Hook, Reason, names};
use tokio::io::unix::AsyncFd;

use super::{
    decode::{address, comm, halves},
    error::KernelError,
};

/// One operation of a managed process that the kernel programs refused with `EPERM`, or a packet that they dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The time, of `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// The reason.
    pub reason: Reason,
    /// The operation.
    pub hook: Hook,
    /// The requested address, or the peer's; `None` if a socket was refused, or has no IPv4 peer.
    pub destination: Option<SocketAddr>,
    /// Protocol of the socket (`IPPROTO_*`).
    pub protocol: u16,
    /// Type of the socket (`SOCK_*`).
    pub socket_type: u8,
    /// Cgroup id of the agent that the process runs in; 0 if it is in none.
    pub agent_cgroup_id: u64,
    /// Cgroup id of the process.
    pub current_cgroup_id: u64,
    /// The process; `None` for a packet, which may leave in the context of any process.
    pub process: Option<DeniedProcess>,
}

/// The process whose operation was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedProcess {
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// Name of the thread, escaped as in [`Flow::comm`](onecli_model::flow::Flow::comm).
    pub comm: String,
}

/// Reader of the refusals. There is one buffer, and so one reader. Events that do not fit are counted as
/// `deny_events_lost`.
pub struct Denials {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Denials {
    pub(super) fn new(map: MapData) -> Result<Self, KernelError> {
        let ring = Map::RingBuf(map).try_into().map_err(KernelError::map("use", names::DENY))?;
        // SAFETY: the ring owns its map's descriptor, always returns the same one, and closes it when it is dropped,
        // which `AsyncFd` does after deregistering.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|error| KernelError::Events(error.into()))?;
        Ok(Self { ring })
    }

    /// Waits for the next refusal. Safe to cancel: an event leaves the buffer only when it is returned.
    pub async fn next(&mut self) -> Result<Denial, KernelError> {
        loop {
            let mut ready = self.ring.readable_mut().await.map_err(KernelError::Events)?;
            // The socket stays ready while there are events: the next call finds them without waiting.
            if let Some(event) = ready.get_inner_mut().next() {
                return denial(&event);
            }
            ready.clear_ready();
        }
    }
}

/// Decodes an event.
fn denial(event: &[u8]) -> Result<Denial, KernelError> {
    let corrupt = |what| KernelError::Corrupt { map: names::DENY, what };
    if event.len() != size_of::<Deny>() {
        return Err(corrupt("an event of another size"));
    }
    // SAFETY: the length is that of `Deny`, which is plain integers: any bytes are a valid value. The read is unaligned
    // because a byte slice guarantees no alignment.
    let deny: Deny = unsafe { event.as_ptr().cast::<Deny>().read_unaligned() };
    let reason = Reason::ALL.into_iter().find(|&reason| reason as u8 == deny.reason);
    let hook = Hook::ALL.into_iter().find(|&hook| hook as u8 == deny.hook);
    let hook = hook.ok_or_else(|| corrupt("an unknown hook"))?;
    let (pid, _thread) = halves(deny.pid_tgid);
    let (_gid, uid) = halves(deny.uid_gid);
    Ok(Denial {
        at: Duration::from_nanos(deny.ktime),
        reason: reason.ok_or_else(|| corrupt("an unknown reason"))?,
        hook,
        // All zeroes mean no destination. A requested unspecified address differs: IPv4 is in mapped form, IPv6 has a
        // port.
        destination: (deny.addr != [0; 16] || deny.port != 0).then(|| address(deny.addr, deny.port)),
        protocol: deny.protocol,
        socket_type: deny.sock_type,
        agent_cgroup_id: deny.agent_cgid,
        current_cgroup_id: deny.current_cgid,
        process: (hook != Hook::Egress).then(|| DeniedProcess { uid, pid, comm: comm(&deny.comm) }),
    })
}
