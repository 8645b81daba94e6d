//! Connections that eBPF redirected here. The client knows nothing of a proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onecli_model::{Authority, Code, Refusal};
use onecli_net::{ConnectionOrigin, client_speaks_first, tune};
use onecli_policy::{CaptureMode, Route};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::Acceptor;
use super::listener_scheme::ListenerScheme;
use crate::limits::connection_slot::{ConnectionSlot, Source};
use crate::session::Session;
use crate::session::counters::Counters;
use crate::session::destination::Destination;
use crate::session::identity::Client;

impl Acceptor {
    /// Serves one connection that the transparent listener accepted, with the kernel's record of it.
    pub(crate) async fn serve_transparent(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        origin: Option<ConnectionOrigin>,
    ) {
        let named = origin.as_ref().map(|origin| origin.flow.original_destination);
        let mut client = Client::new(CaptureMode::Transparent, origin, peer);
        // Without a record there is no identity. The connection is then read only to refuse it in its own protocol.
        let Some(destination) = named.or_else(|| stream.local_addr().ok()) else { return };
        // The kernel identifies the agent. Before a byte is read, the connection occupies a slot of its agent, and of
        // no other client.
        let slot = self.slot(&client).map(Arc::new);
        let cut_off = Session::new(&self.services, client.clone(), Destination::Address(destination));
        let Some(slot) = slot else {
            cut_off.refuse(Code::LimitReached, |_| {}).await;
            return;
        };
        client.slot = Some(Arc::clone(&slot));
        let served = self.serve_redirected(stream, client, destination, named);
        if !slot.run_until_displaced(served).await {
            cut_off.refuse(Code::TooManyConnections, |_| {}).await;
        }
    }

    async fn serve_redirected(
        &self,
        stream: TcpStream,
        mut client: Client,
        destination: SocketAddr,
        named: Option<SocketAddr>,
    ) {
        // A redirected connection to the proxy's own address uses proxy HTTP.
        if let Some(scheme) = named.and_then(|destination| self.explicit_scheme(destination)) {
            client.evidence.mode = CaptureMode::Explicit;
            let session = Session::new(&self.services, client, Destination::Proxy);
            return self.serve_proxy(session, stream, scheme).await;
        }
        Counters::add(&self.services.recorder.counters.connections, 1);
        tune(&stream);
        let destination = self.named_by(&client, destination);
        let mut session = Session::new(&self.services, client, destination);
        if let Some(refusal) = self.refused_at_connect(&mut session) {
            // Sends a reset, because a client may interpret a regular end as a response.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            drop(stream);
            session.refuse(&refusal, |_| {}).await;
            return;
        }
        self.router.serve(session, Box::new(stream)).await;
    }

    /// The protocol at `address`, if it is one of the explicit proxy's addresses.
    fn explicit_scheme(&self, address: SocketAddr) -> Option<ListenerScheme> {
        let named = self.explicit_addresses.iter().find(|(own, _)| {
            own.port() == address.port() && (own.ip() == address.ip() || own.ip().is_unspecified())
        });
        named.map(|(_, scheme)| *scheme)
    }

    /// The destination of a redirected connection. For a synthetic address, this is the name behind it.
    fn named_by(&self, client: &Client, address: SocketAddr) -> Destination {
        if !self.synthetic.contains(address.ip()) {
            return Destination::Address(address);
        }
        let agent = self.services.policy.agent_in(client.evidence.cgroup.as_ref());
        let name =
            agent.and_then(|agent| self.synthetic.connected(agent, address.ip(), self.clock.instant()));
        name.map_or(Destination::Address(address), |name| {
            Destination::Name(Authority::new(name, address.port()))
        })
    }

    /// The reason for refusing a connection to a synthetic address before anything is read. The daemon can report the
    /// reason only at ports where the client speaks first.
    fn refused_at_connect(&self, session: &mut Session) -> Option<Refusal> {
        let authority = match &session.destination {
            Destination::Name(authority) => authority.clone(),
            // The synthetic address has expired.
            Destination::Address(address) if self.synthetic.contains(address.ip()) => {
                Authority::new(address.ip().into(), address.port())
            }
            Destination::Address(_) | Destination::Authority(_) | Destination::Proxy => return None,
        };
        if client_speaks_first(authority.port()) {
            return None;
        }
        let refusal = match session.identify() {
            Err(refusal) => refusal,
            Ok(identity) => match session.policy.snapshot().route(&identity, &authority) {
                Route::Deny(refusal) => refusal,
                Route::Inspect | Route::Tunnel { .. } => return None,
            },
        };
        session.authority = Some(authority);
        Some(refusal)
    }

    /// The connection's slot, by its cgroup; `None` if the agent has no free slot.
    fn slot(&self, client: &Client) -> Option<ConnectionSlot> {
        let limits = &self.services.limits;
        if let Some(agent) = self.services.policy.agent_in(client.evidence.cgroup.as_ref()) {
            return limits.connections.take(agent).map(ConnectionSlot::of_agent);
        }
        let source = client.origin.as_ref().map_or_else(
            || Source::of_address(client.peer.ip()),
            |origin| Source::Cgroup(origin.flow.agent_cgroup_id),
        );
        Some(ConnectionSlot::of_unidentified(limits.unidentified.admit(source)))
    }
}
