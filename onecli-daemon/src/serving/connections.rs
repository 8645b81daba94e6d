//! Accepts connections and serves each with the proxy or with the DNS server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use onecli_net::OriginLookup;
use onecli_proxy::{Capacity, DataPlane, ListenerScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// The pause after accept(2) failed, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The port of DNS over TCP.
const DNS_PORT: u16 = 53;

/// The shared parts that serve connections.
#[derive(Debug, Clone)]
pub(crate) struct ServerContext {
    /// Serves HTTP and tunnels.
    pub(crate) data_plane: Arc<DataPlane>,
    /// The kernel's records of connections.
    pub(crate) origins: Arc<dyn OriginLookup>,
    /// The limits on open connections.
    pub(crate) capacity: Capacity,
    /// The DNS server, present if connections are redirected.
    pub(crate) dns: Option<Arc<onecli_dns::Server>>,
}

/// The networks from which the explicit proxy accepts connections.
#[derive(Debug)]
pub(super) struct Sources(pub(super) Vec<IpNet>);

impl Sources {
    /// Allows loopback always. Allows other addresses if their network is listed, or if none is.
    fn allow(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.is_empty() || peer.is_loopback() || self.0.iter().any(|network| network.contains(&peer))
    }
}

/// The handler of accepted connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionHandler {
    pub(super) context: ServerContext,
    /// Permits for connections of all listeners together.
    pub(super) slots: Arc<Semaphore>,
    pub(super) stopped: watch::Receiver<()>,
    pub(super) sources: Arc<Sources>,
}

impl ConnectionHandler {
    /// Serves the clients of the explicit proxy that connect to `listener`.
    pub(super) async fn explicit(self, listener: TcpListener, scheme: ListenerScheme) {
        let (data_plane, sources) = (self.context.data_plane, self.sources);
        let serve = move |stream, peer: SocketAddr| {
            let (data_plane, sources) = (Arc::clone(&data_plane), Arc::clone(&sources));
            async move {
                if !sources.allow(peer.ip()) {
                    tracing::debug!(%peer, "closed a connection: its source is not in listen.allow_sources");
                    return;
                }
                data_plane.serve_explicit(stream, peer, scheme).await;
            }
        };
        accept(listener, self.slots, self.stopped, serve).await;
    }

    /// Serves the connections that the kernel redirects to `listener`.
    pub(super) async fn transparent(self, listener: TcpListener) {
        let context = self.context;
        let serve = move |stream, peer| {
            let context = context.clone();
            async move { serve_redirected(context, stream, peer).await }
        };
        accept(listener, self.slots, self.stopped, serve).await;
    }
}

/// Serves a redirected connection: DNS or the data plane, by its original destination port.
async fn serve_redirected(context: ServerContext, stream: TcpStream, peer: SocketAddr) {
    let origin = context.origins.origin(&stream);
    let client = origin
        .as_ref()
        .filter(|origin| origin.flow.original_destination.port() == DNS_PORT)
        .and_then(|origin| context.dns.as_ref()?.client(origin.cgroup.as_ref()?));
    match (client, &context.dns) {
        (Some(client), Some(dns)) => context.data_plane.until_end(dns.serve_stream(client, stream)).await,
        // Includes connections of unknown or disabled agents. The data plane refuses and records them.
        _ => context.data_plane.serve_transparent(stream, peer, origin).await,
    }
}

async fn accept<F, S>(
    listener: TcpListener,
    slots: Arc<Semaphore>,
    mut stopped: watch::Receiver<()>,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let served = serve(stream, peer);
                tokio::spawn(async move {
                    served.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections on a listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_loopback_and_listed_networks() {
        let none = Sources(Vec::new());
        let some = Sources(vec!["172.17.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (peer, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("172.17.0.2", true),
            ("::ffff:172.17.0.2", true),
            ("fd00::2", true),
            ("172.18.0.2", false),
            ("2001:db8::1", false),
            ("::ffff:192.0.2.1", false),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(some.allow(peer), expected, "{peer}");
            assert!(none.allow(peer));
        }
    }
}
