//! Connections that the kernel redirected to the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onecli_model::{Authority, Code, Refusal};
use onecli_net::{ConnectionOrigin, client_speaks_first, tune};
use onecli_policy::{CaptureMode, Route};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::explicit::serve_proxy;
use super::intercept::intercept;
use crate::context::gateway::Gateway;
use crate::limits::connection_slot::{ConnectionSlot, Source};
use crate::session::connection::{Connection, Destination};
use crate::session::counters::Counters;
use crate::session::refused::{refuse_quietly, refuse_unheard};

/// Serves one connection that the transparent listener accepted, with the kernel's record of it.
pub async fn serve_transparent(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    origin: Option<ConnectionOrigin>,
) {
    // The kernel identifies the agent. Before a byte is read, the connection occupies a slot of its agent, and of no
    // other client.
    let Some(slot) = slot(&gateway, origin.as_ref(), peer) else {
        let connection = Connection::new(CaptureMode::Transparent, origin, peer);
        return refuse_quietly(&gateway, &connection, Code::LimitReached).await;
    };
    let slot = Arc::new(slot);
    let cut_off = Connection::new(CaptureMode::Transparent, origin.clone(), peer);
    let recorder = Arc::clone(&gateway);
    let served = async {
        // A redirected connection to the proxy's own address uses proxy HTTP.
        let named = origin.as_ref().map(|origin| origin.flow.original_destination);
        let proxy = named.and_then(|destination| gateway.explicit_scheme(destination));
        let mode = if proxy.is_some() { CaptureMode::Explicit } else { CaptureMode::Transparent };
        let mut connection = Connection::new(mode, origin, peer);
        connection.slot = Some(Arc::clone(&slot));
        if let Some(scheme) = proxy {
            return serve_proxy(gateway, stream, connection, scheme).await;
        }
        Counters::add(&gateway.counters.connections, 1);
        // Without a record there is no identity. The connection is then read only to refuse it in its own protocol.
        let Some(destination) = named.or_else(|| stream.local_addr().ok()) else { return };
        tune(&stream);
        let destination = named_by(&gateway, &connection, destination);
        if let Some(refusal) = refused_at_connect(&gateway, &mut connection, &destination) {
            // Sends a reset, because a client may interpret a regular end as a response.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            drop(stream);
            return refuse_unheard(&gateway, &connection, &refusal).await;
        }
        intercept(&gateway, connection, destination, stream).await;
    };
    if !slot.run_until_displaced(served).await {
        refuse_quietly(&recorder, &cut_off, Code::TooManyConnections).await;
    }
}

/// The destination of a redirected connection. For a synthetic address, this is the name behind it.
fn named_by(gateway: &Gateway, connection: &Connection, address: SocketAddr) -> Destination {
    if !gateway.synthetic.contains(address.ip()) {
        return Destination::Address(address);
    }
    let agent = gateway.agent_in(connection.evidence.cgroup.as_ref());
    let name =
        agent.and_then(|agent| gateway.synthetic.connected(agent, address.ip(), gateway.clock.instant()));
    name.map_or(Destination::Address(address), |name| Destination::Name(Authority::new(name, address.port())))
}

/// The reason for refusing a connection to a synthetic address before anything is read. The daemon can report the
/// reason only at ports where the client speaks first.
fn refused_at_connect(
    gateway: &Gateway,
    connection: &mut Connection,
    destination: &Destination,
) -> Option<Refusal> {
    let authority = match destination {
        Destination::Name(authority) => authority.clone(),
        // The synthetic address has expired.
        Destination::Address(address) if gateway.synthetic.contains(address.ip()) => {
            Authority::new(address.ip().into(), address.port())
        }
        Destination::Address(_) | Destination::Authority(_) => return None,
    };
    if client_speaks_first(authority.port()) {
        return None;
    }
    let refusal = match connection.identify(gateway) {
        Err(refusal) => refusal,
        Ok(identity) => match gateway.snapshot().route(&identity, &authority) {
            Route::Deny(refusal) => refusal,
            Route::Inspect | Route::Tunnel { .. } => return None,
        },
    };
    connection.authority = Some(authority);
    Some(refusal)
}

/// The connection's slot, by its cgroup; `None` if the agent has no free slot.
fn slot(gateway: &Gateway, origin: Option<&ConnectionOrigin>, peer: SocketAddr) -> Option<ConnectionSlot> {
    if let Some(agent) = gateway.agent_in(origin.and_then(|origin| origin.cgroup.as_ref())) {
        return gateway.connections.take(agent).map(ConnectionSlot::of_agent);
    }
    let source = origin
        .map_or_else(|| Source::of_address(peer.ip()), |origin| Source::Cgroup(origin.flow.agent_cgroup_id));
    Some(ConnectionSlot::of_unidentified(gateway.unidentified.admit(source)))
}
