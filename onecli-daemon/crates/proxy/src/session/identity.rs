//! The identity of a connection's client: the evidence for it, from the kernel or from a token, and the agent that it
//! proves.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use onecli_audit::{ConnectionMode, Record, Text};
use onecli_model::{AgentId, Code, Refusal};
use onecli_net::ConnectionOrigin;
use onecli_policy::{CaptureMode, ClientEvidence, Identity, Snapshot};
use tokio_util::sync::CancellationToken;

use super::Session;
use crate::limits::connection_slot::ConnectionSlot;

/// The client of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) evidence: ClientEvidence,
    pub(crate) origin: Option<ConnectionOrigin>,
    pub(crate) peer: SocketAddr,
    /// The connection's slot, occupied while the connection is open. Requests on it share the slot.
    pub(crate) slot: Option<Arc<ConnectionSlot>>,
}

impl Client {
    /// A client of which only the sender is known.
    pub(crate) fn new(mode: CaptureMode, origin: Option<ConnectionOrigin>, peer: SocketAddr) -> Client {
        let cgroup = origin.as_ref().and_then(|origin| origin.cgroup.clone());
        Client { evidence: ClientEvidence { mode, cgroup, token: None }, origin, peer, slot: None }
    }

    /// Returns a token that is cancelled when the connection must make room.
    pub(crate) fn displaced(&self) -> CancellationToken {
        self.slot.as_ref().map(|slot| slot.displaced()).unwrap_or_default()
    }

    /// The sender's address, for limits. Redirected connections all come from loopback.
    pub(crate) fn source(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// Writes what the kernel and the connection report into an audit record. The record names the agent that they
    /// indicate, even if it is refused.
    pub(super) fn describe(&self, snapshot: &Snapshot, record: &mut Record) {
        record.agent = snapshot.likely_agent(&self.evidence).map(|agent| agent.name.clone());
        record.mode = Some(match self.evidence.mode {
            CaptureMode::Transparent => ConnectionMode::Transparent,
            CaptureMode::Explicit => ConnectionMode::Explicit,
        });
        let Some(origin) = &self.origin else {
            record.launched_by = snapshot.launched_by(&self.evidence);
            return;
        };
        let flow = &origin.flow;
        record.cgroup = origin.cgroup.as_ref().map(|name| Text::new(name.as_str()));
        record.cgroup_id = Some(flow.agent_cgroup_id);
        record.netns = Some(flow.netns_cookie);
        record.uid = Some(flow.uid);
        record.pid = Some(flow.pid);
        record.comm = Some(Text::new(&flow.comm));
        record.launched_by = origin.launched_by;
        record.address = Some(Text::new(&flow.original_destination.to_string()));
    }
}

impl Session {
    /// Identifies the client by the current policy.
    ///
    /// # Errors
    /// As [`Snapshot::identify`].
    pub(crate) fn identify(&self) -> Result<Identity, Refusal> {
        self.policy.identify(&self.client.evidence)
    }

    /// Counts the connection as the agent's from now on, and no longer as one of an unidentified client.
    ///
    /// # Errors
    /// [`Code::LimitReached`].
    pub(crate) fn belongs_to(&self, agent: AgentId) -> Result<(), Refusal> {
        let Some(slot) = &self.client.slot else { return Ok(()) };
        if slot.give_to(agent, &self.limits.connections) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::LimitReached,
            "the agent has reached its limit on open connections",
            "close some connections, or reuse them",
        ))
    }
}
