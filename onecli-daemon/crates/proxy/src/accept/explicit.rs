//! Connections of clients that use the daemon as their proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onecli_model::Code;
use onecli_net::tune;
use onecli_policy::CaptureMode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Acceptor;
use super::listener_scheme::ListenerScheme;
use crate::limits::connection_slot::{ConnectionSlot, Source};
use crate::session::Session;
use crate::session::counters::Counters;
use crate::session::destination::Destination;
use crate::session::identity::Client;

/// Time limit for a client's handshake with the proxy.
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Acceptor {
    /// Serves one connection to the explicit proxy from outside all managed cgroups. Until the client presents a
    /// token, newer connections from the same address may displace this one.
    pub(crate) async fn serve_explicit(&self, stream: TcpStream, peer: SocketAddr, scheme: ListenerScheme) {
        let source = Source::of_address(peer.ip());
        let slot = Arc::new(ConnectionSlot::of_unidentified(self.services.limits.unidentified.admit(source)));
        let mut client = Client::new(CaptureMode::Explicit, None, peer);
        client.slot = Some(Arc::clone(&slot));
        let session = Session::new(&self.services, client, Destination::Proxy);
        let served = self.serve_proxy(session.clone(), stream, scheme);
        if !slot.run_until_displaced(served).await {
            session.refuse(Code::TooManyConnections, |_| {}).await;
        }
    }

    /// Serves a proxy client on a connection that has its slot.
    pub(super) async fn serve_proxy(&self, session: Session, stream: TcpStream, scheme: ListenerScheme) {
        Counters::add(&session.recorder.counters.connections, 1);
        tune(&stream);
        if scheme == ListenerScheme::Plain {
            return self.router.serve(session, Box::new(stream)).await;
        }
        match timeout(HANDSHAKE, self.router.agent_tls.accept_for_proxy(stream)).await {
            Ok(Ok(tls)) => self.router.serve(session, Box::new(tls)).await,
            Ok(Err(error)) => {
                let peer = session.client.peer;
                tracing::info!(%error, %peer, "a TLS handshake with the proxy failed: check that the client \
                                               trusts the CA");
                session.refuse(Code::ClientTls, |_| {}).await;
            }
            Err(_) => _ = session.refuse(Code::ClientTls, |_| {}).await,
        }
    }
}
