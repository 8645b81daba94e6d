//! What is known of a connection before its first request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request};
use onecli_audit::{Record, Text};
use onecli_model::{AgentId, Authority, Code, Refusal};
use onecli_net::Origin;
use onecli_policy::{Evidence, Identity, Mode, Snapshot};
use tokio_util::sync::CancellationToken;

use super::body_memory::ConnectionMemory;
use super::gateway::Gateway;
use super::place::Place;

/// Plain or over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The port that goes without saying (RFC 9110 section 4.2).
    pub(super) fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Where the client says, or the kernel knows, that the connection goes.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// The kernel's record: an address, for which a server name or `Host` must still be found.
    Address(SocketAddr),
    /// The kernel's record is a synthetic address: the name that it stands for. Server name and `Host` need not agree with it,
    /// because a program may have asked for another name, with a search domain behind it.
    Name(Authority),
    /// A CONNECT target: SNI and `Host` must agree with it.
    Authority(Authority),
}

/// A client's connection, with what it proves.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) evidence: Evidence,
    pub(super) origin: Option<Origin>,
    pub(super) peer: SocketAddr,
    pub(super) scheme: Scheme,
    /// What every request on it must name as its host; `None` for a proxy's absolute-form requests.
    pub(super) authority: Option<Authority>,
    /// What it takes up, for as long as it is open; requests on it share it.
    pub(super) place: Option<Arc<Place>>,
    /// Body bytes that wait on it.
    pub(super) memory: Arc<ConnectionMemory>,
    /// The port a plain-HTTP request must name where only an address is known.
    pub(super) port: Option<u16>,
    /// The host of a request that names none (HTTP/1.0).
    pub(super) implied: Option<Authority>,
}

impl Connection {
    /// A connection of which only its sender is known.
    pub(super) fn new(mode: Mode, origin: Option<Origin>, peer: SocketAddr) -> Connection {
        let cgroup = origin.as_ref().and_then(|origin| origin.cgroup.clone());
        Connection {
            evidence: Evidence { mode, cgroup, token: None },
            origin,
            peer,
            scheme: Scheme::Http,
            authority: None,
            place: None,
            memory: ConnectionMemory::new(1),
            port: None,
            implied: None,
        }
    }

    /// Notes what a request asks for, before any of it is checked: the record of a refusal must tell. Where several hosts
    /// are named, it is the one that does not belong here.
    pub(super) fn note<B>(&self, request: &Request<B>, record: &mut Record) {
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
            // User information may be a password.
            Some((Err(_), text)) => {
                record.host = Some(Text::new(text.rsplit('@').next().unwrap_or_default()));
                record.port = None;
            }
            None => {}
        }
    }

    /// Who it is, by the policy of this moment.
    ///
    /// # Errors
    /// As [`onecli_policy::Snapshot::identify`].
    pub(super) fn identify(&self, gateway: &Gateway) -> Result<Identity, Refusal> {
        gateway.snapshot().identify(&self.evidence, gateway.clock.now())
    }

    /// Counts it among the agent's connections from now on, and no longer among those of nobody known.
    ///
    /// # Errors
    /// [`Code::LimitReached`].
    pub(super) fn belongs_to(&self, gateway: &Gateway, agent: AgentId) -> Result<(), Refusal> {
        let Some(place) = &self.place else { return Ok(()) };
        if place.give_to(agent, &gateway.connections) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::LimitReached,
            "the agent has as many connections open as it may",
            "close some, or reuse them",
        ))
    }

    /// Cancelled when the connection has to make room.
    pub(super) fn displaced(&self) -> CancellationToken {
        self.place.as_ref().map(|place| place.displaced()).unwrap_or_default()
    }

    /// The sender's address, for limits: redirected connections all come from loopback.
    pub(super) fn source(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// Writes what the kernel and the connection tell into an audit record. The agent is the one they point to, also
    /// where it is refused.
    pub(super) fn describe(&self, snapshot: &Snapshot, record: &mut Record) {
        record.agent = snapshot.suspect(&self.evidence).map(|agent| agent.name.clone());
        record.mode = Some(match self.evidence.mode {
            Mode::Transparent => onecli_audit::Mode::Transparent,
            Mode::Explicit => onecli_audit::Mode::Explicit,
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
