//! Facts about a connection that are known before its first request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request};
use onecli_audit::{Record, Text};
use onecli_model::{AgentId, Authority, Code, Refusal};
use onecli_net::ConnectionOrigin;
use onecli_policy::{CaptureMode, ClientEvidence, Identity, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::context::gateway::Gateway;
use crate::http::body::body_memory::ConnectionMemory;
use crate::http::scheme::Scheme;
use crate::limits::connection_slot::ConnectionSlot;

/// The destination of a connection, from the client or from the kernel.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// The kernel's record: an address. Its server name or `Host` must still be found.
    Address(SocketAddr),
    /// The kernel recorded a synthetic address; this is the name behind it. The server name and `Host` may differ
    /// from it, because a program may have resolved another name with a search domain appended.
    Name(Authority),
    /// A CONNECT target: SNI and `Host` must agree with it.
    Authority(Authority),
}

/// A client's connection, with the evidence of its identity.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) evidence: ClientEvidence,
    pub(crate) origin: Option<ConnectionOrigin>,
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
    /// The host that every request on it must name; `None` for a proxy's absolute-form requests.
    pub(crate) authority: Option<Authority>,
    /// The connection's slot, occupied while the connection is open. Requests on it share the slot.
    pub(crate) slot: Option<Arc<ConnectionSlot>>,
    /// Body bytes that wait on the connection.
    pub(crate) memory: Arc<ConnectionMemory>,
    /// The port that a plain-HTTP request must name if only an address is known.
    pub(crate) port: Option<u16>,
    /// The host of a request that names none (HTTP/1.0).
    pub(crate) implied: Option<Authority>,
}

impl Connection {
    /// A connection of which only the sender is known.
    pub(crate) fn new(mode: CaptureMode, origin: Option<ConnectionOrigin>, peer: SocketAddr) -> Connection {
        let cgroup = origin.as_ref().and_then(|origin| origin.cgroup.clone());
        Connection {
            evidence: ClientEvidence { mode, cgroup, token: None },
            origin,
            peer,
            scheme: Scheme::Http,
            authority: None,
            slot: None,
            memory: ConnectionMemory::new(1),
            port: None,
            implied: None,
        }
    }

    /// Records what a request asks for before any of it is checked, so that the record of a refusal shows it. If the
    /// request names several hosts, the record gets the one that does not belong here.
    pub(crate) fn note<B>(&self, request: &Request<B>, record: &mut Record) {
        record.method = Some(Text::new(request.method().as_str()));
        if *request.method() != Method::CONNECT {
            record.path = Some(Text::new(request.uri().path()));
        }
        let port = self.port.unwrap_or(self.scheme.default_port());
        let target = request.uri().authority().map(|target| target.as_str().as_bytes());
        let hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
        let named: Vec<_> = target
            .into_iter()
            .chain(hosts)
            .map(|raw| {
                let text = String::from_utf8_lossy(raw);
                (Authority::parse(&text, Some(port)), text)
            })
            .collect();
        let strange = named.iter().find(|(named, _)| named.as_ref().ok() != self.authority.as_ref());
        match strange.or(named.first()) {
            Some((Ok(authority), _)) => _ = record.target(authority.host(), authority.port()),
            // User information may contain a password.
            Some((Err(_), text)) => {
                record.host = Some(Text::new(text.rsplit('@').next().unwrap_or_default()));
                record.port = None;
            }
            None => {}
        }
    }

    /// Identifies the client by the current policy.
    ///
    /// # Errors
    /// As [`onecli_policy::Snapshot::identify`].
    pub(crate) fn identify(&self, gateway: &Gateway) -> Result<Identity, Refusal> {
        gateway.snapshot().identify(&self.evidence, gateway.clock.now())
    }

    /// Counts the connection as the agent's from now on, and no longer as one of an unidentified client.
    ///
    /// # Errors
    /// [`Code::LimitReached`].
    pub(crate) fn belongs_to(&self, gateway: &Gateway, agent: AgentId) -> Result<(), Refusal> {
        let Some(slot) = &self.slot else { return Ok(()) };
        if slot.give_to(agent, &gateway.connections) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::LimitReached,
            "the agent has reached its limit on open connections",
            "close some connections, or reuse them",
        ))
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
    pub(crate) fn describe(&self, snapshot: &Snapshot, record: &mut Record) {
        record.agent = snapshot.likely_agent(&self.evidence).map(|agent| agent.name.clone());
        record.mode = Some(match self.evidence.mode {
            CaptureMode::Transparent => onecli_audit::ConnectionMode::Transparent,
            CaptureMode::Explicit => onecli_audit::ConnectionMode::Explicit,
        });
        if let Some(authority) = &self.authority {
            record.target(authority.host(), authority.port());
        }
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
