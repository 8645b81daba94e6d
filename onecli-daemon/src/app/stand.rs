//! The daemon's listeners, from binding to draining.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use onecli_admin::Handles;
use onecli_config::Config;
use onecli_net::{Bound, Origins};
use onecli_proxy::{Capacity, Gateway, Wire, serve_explicit, serve_transparent};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::error::AppError;
use super::managed::Managed;
use super::service::{self, Handed};

/// The pause after accept(2) failed, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The time that open requests may take after a stop signal.
const DRAIN: Duration = Duration::from_secs(10);
/// The interval at which idle upstream connections are checked.
const TIDY: Duration = Duration::from_secs(5);

/// The port of DNS over TCP.
const DNS_PORT: u16 = 53;

/// The shared parts that serve connections.
#[derive(Debug, Clone)]
pub(super) struct Front {
    /// Serves HTTP and tunnels.
    pub(super) gateway: Arc<Gateway>,
    /// The kernel's records of connections.
    pub(super) origins: Arc<dyn Origins>,
    /// The limits on open connections.
    pub(super) capacity: Capacity,
    /// The DNS server, present if connections are redirected.
    pub(super) dns: Option<Arc<onecli_dns::Server>>,
}

/// Bound listeners: no client can connect yet.
pub(super) struct Stand {
    explicit: Vec<(Bound, Wire)>,
    transparent: Vec<Bound>,
    /// Addresses of the listeners that this process opened itself.
    own: Vec<SocketAddr>,
    sources: Arc<Sources>,
}

/// The networks from which the explicit proxy accepts connections.
#[derive(Debug)]
struct Sources(Vec<IpNet>);

impl Sources {
    /// Allows loopback always. Allows other addresses if their network is listed, or if none is.
    fn allow(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.is_empty() || peer.is_loopback() || self.0.iter().any(|network| network.contains(&peer))
    }
}

impl Stand {
    /// Binds every listener of the daemon's own network namespace. Binds and stamps the transparent ones only if
    /// connections are redirected. The agents' DNS sockets are created and removed with each agent.
    ///
    /// Listeners that the service manager already holds are taken from `handed`. The service manager is asked to hold
    /// the others.
    pub(super) fn bind(config: &Config, managed: &Managed, handed: &mut Handed) -> Result<Stand, AppError> {
        let mut own = Vec::new();
        let mut open = |handed: &mut Handed, address| {
            if let Some(bound) = handed.tcp(address) {
                return Ok(bound);
            }
            own.push(address);
            onecli_net::bind(address)
        };
        let plain = config.listen.explicit.iter().map(|&address| (address, Wire::Plain));
        let tls = config.listen.explicit_tls.iter().map(|&address| (address, Wire::Tls));
        let explicit = plain
            .chain(tls)
            .map(|(address, wire)| Ok::<_, AppError>((open(handed, address)?, wire)))
            .collect::<Result<_, _>>()?;
        let port = config.listen.transparent_port;
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        let transparent: Vec<Bound> = if managed.is_attached() {
            loopback.into_iter().map(|address| open(handed, address)).collect::<Result<_, _>>()?
        } else {
            // No connection is redirected to them.
            for address in loopback {
                drop(handed.tcp(address));
            }
            Vec::new()
        };
        for listener in &transparent {
            managed.stamp(listener)?;
        }
        let sources = Arc::new(Sources(config.listen.allow_sources.clone()));
        Ok(Stand { explicit, transparent, own, sources })
    }

    /// Returns every address of the daemon. The proxy refuses agents' connections to them.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.explicit.iter().map(|(bound, _)| bound).chain(&self.transparent).map(Bound::address).collect()
    }

    /// Returns the explicit proxy's addresses, each with its protocol.
    pub(super) fn explicit(&self) -> Vec<(SocketAddr, Wire)> {
        self.explicit.iter().map(|(bound, wire)| (bound.address(), *wire)).collect()
    }

    /// Starts to listen on all sockets before the first client is served.
    pub(super) fn listen(self, front: Front) -> Result<OpenStand, AppError> {
        let explicit = self
            .explicit
            .into_iter()
            .map(|(bound, wire)| Ok::<_, AppError>((bound.listen()?, wire)))
            .collect::<Result<Vec<_>, _>>()?;
        let transparent = self.transparent.into_iter().map(Bound::listen).collect::<Result<Vec<_>, _>>()?;
        for listener in explicit.iter().map(|(listener, _)| listener).chain(&transparent) {
            // Not earlier: the service manager takes a socket that does not listen for hung up, and drops it.
            if listener.local_addr().is_ok_and(|address| self.own.contains(&address)) {
                service::keep(listener);
            }
        }
        let (stop, stopped) = watch::channel(());
        let places = Arc::new(Semaphore::new(front.capacity.accepted()));
        let reception = Reception { front, places, stopped, sources: self.sources };
        Ok(OpenStand { explicit, transparent, reception, stop })
    }
}

/// Listeners that accept connections.
pub(super) struct OpenStand {
    explicit: Vec<(TcpListener, Wire)>,
    transparent: Vec<TcpListener>,
    reception: Reception,
    stop: watch::Sender<()>,
}

impl OpenStand {
    /// Returns a handle that serves redirected connections of further listeners, until these listeners stop.
    pub(super) fn reception(&self) -> Reception {
        self.reception.clone()
    }

    /// Serves until `stop` completes, then lets open requests finish.
    pub(super) async fn serve(
        self,
        admin_socket: UnixListener,
        handles: Handles,
        status: &str,
        stop: impl Future<Output = Result<(), AppError>>,
    ) -> Result<(), AppError> {
        let mut tasks = tokio::task::JoinSet::new();
        let gateway = Arc::clone(&self.reception.front.gateway);
        for (listener, wire) in self.explicit {
            tasks.spawn(self.reception.clone().explicit(listener, wire));
        }
        for listener in self.transparent {
            tasks.spawn(self.reception.clone().transparent(listener));
        }
        let mut admin_stopped = self.reception.stopped.clone();
        let admin = tokio::spawn(onecli_admin::serve(admin_socket, handles, async move {
            let _ = admin_stopped.changed().await;
        }));
        let tidy = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            async move {
                loop {
                    tokio::time::sleep(TIDY).await;
                    gateway.tidy();
                }
            }
        });

        let follow = tokio::spawn({
            let gateway = Arc::clone(&gateway);
            async move { gateway.follow_policy().await }
        });
        let watchdog = tokio::spawn(service::watchdog());
        service::ready(status);

        let why = stop.await;
        service::stopping();
        drop(self.stop);
        while tasks.join_next().await.is_some() {}
        let _ = admin.await;
        tidy.abort();
        follow.abort();
        // No new connection is accepted. Requests in progress finish.
        gateway.end(DRAIN).await;
        watchdog.abort();
        why
    }
}

/// The handler of accepted connections.
#[derive(Debug, Clone)]
pub(super) struct Reception {
    front: Front,
    /// Permits for connections of all listeners together.
    places: Arc<Semaphore>,
    stopped: watch::Receiver<()>,
    sources: Arc<Sources>,
}

impl Reception {
    async fn explicit(self, listener: TcpListener, wire: Wire) {
        let (gateway, sources) = (self.front.gateway, self.sources);
        let serve = move |stream, peer: SocketAddr| {
            let (gateway, sources) = (Arc::clone(&gateway), Arc::clone(&sources));
            async move {
                if !sources.allow(peer.ip()) {
                    tracing::debug!(%peer, "closed a connection: its source is not in listen.allow_sources");
                    return;
                }
                let served = serve_explicit(Arc::clone(&gateway), stream, peer, wire);
                gateway.until_end(served).await;
            }
        };
        accept(listener, self.places, self.stopped, serve).await;
    }

    /// Serves the connections that the kernel redirects to `listener`.
    pub(super) async fn transparent(self, listener: TcpListener) {
        let front = self.front;
        let serve = move |stream, peer| {
            let front = front.clone();
            async move {
                let gateway = Arc::clone(&front.gateway);
                gateway.until_end(serve_redirected(front, stream, peer)).await;
            }
        };
        accept(listener, self.places, self.stopped, serve).await;
    }
}

/// Serves a redirected connection: DNS or the gateway, by its original destination port.
async fn serve_redirected(front: Front, stream: TcpStream, peer: SocketAddr) {
    let origin = front.origins.origin(&stream);
    let asker = origin
        .as_ref()
        .filter(|origin| origin.flow.original_destination.port() == DNS_PORT)
        .and_then(|origin| front.dns.as_ref()?.asker(origin.cgroup.as_ref()?));
    match (asker, &front.dns) {
        (Some(asker), Some(dns)) => dns.serve_stream(asker, stream).await,
        // Includes connections of unknown or disabled agents. The gateway refuses and records them.
        _ => serve_transparent(front.gateway, stream, peer, origin).await,
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn told_to_stop() -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Socket)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Socket)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn accept<F, S>(
    listener: TcpListener,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<()>,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let served = serve(stream, peer);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
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
