//! The daemon's listeners, from bound to drained.

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

/// After accept(2) failed (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long open requests may take when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How often idle upstream connections are looked through.
const TIDY: Duration = Duration::from_secs(5);

/// Port of DNS over TCP.
const DNS_PORT: u16 = 53;

/// What connections are served with.
#[derive(Debug, Clone)]
pub(super) struct Front {
    /// HTTP, and whatever is tunnelled.
    pub(super) gateway: Arc<Gateway>,
    /// The kernel's records of connections.
    pub(super) origins: Arc<dyn Origins>,
    /// How much may be open at a time.
    pub(super) capacity: Capacity,
    /// DNS, where connections are redirected.
    pub(super) dns: Option<Arc<onecli_dns::Server>>,
}

/// Bound: nobody can connect yet.
pub(super) struct Stand {
    explicit: Vec<(Bound, Wire)>,
    transparent: Vec<Bound>,
    /// Addresses of those that this process opened itself.
    own: Vec<SocketAddr>,
    sources: Arc<Sources>,
}

/// Whose connections the explicit proxy takes.
#[derive(Debug)]
struct Sources(Vec<IpNet>);

impl Sources {
    /// Loopback always; others where their network is named, or none is.
    fn allow(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.is_empty() || peer.is_loopback() || self.0.iter().any(|network| network.contains(&peer))
    }
}

impl Stand {
    /// Binds every listener of the daemon's own network namespace; the transparent ones where connections are redirected,
    /// and marked as ours. The agents' DNS comes and goes with each agent.
    ///
    /// Those that the service manager holds already are taken from `handed`; the others it is asked to keep.
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
            // Nobody is redirected to them.
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

    /// Every address that is ours, which no agent may reach through us.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.explicit.iter().map(|(bound, _)| bound).chain(&self.transparent).map(Bound::address).collect()
    }

    /// The explicit proxy's addresses, and what is spoken there.
    pub(super) fn explicit(&self) -> Vec<(SocketAddr, Wire)> {
        self.explicit.iter().map(|(bound, wire)| (bound.address(), *wire)).collect()
    }

    /// Lets clients connect, all of them before the first is served.
    pub(super) fn listen(self, front: Front) -> Result<OpenStand, AppError> {
        let explicit = self
            .explicit
            .into_iter()
            .map(|(bound, wire)| Ok::<_, AppError>((bound.listen()?, wire)))
            .collect::<Result<Vec<_>, _>>()?;
        let transparent = self.transparent.into_iter().map(Bound::listen).collect::<Result<Vec<_>, _>>()?;
        for listener in explicit.iter().map(|(listener, _)| listener).chain(&transparent) {
            // Not earlier: one that does not listen looks hung up, and is dropped.
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

/// Listening.
pub(super) struct OpenStand {
    explicit: Vec<(TcpListener, Wire)>,
    transparent: Vec<TcpListener>,
    reception: Reception,
    stop: watch::Sender<()>,
}

impl OpenStand {
    /// Serves redirected connections of further listeners, until this stand is told to stop.
    pub(super) fn reception(&self) -> Reception {
        self.reception.clone()
    }

    /// Serves until `stop` says so, then lets open requests finish.
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
        // No new connection is taken; a request that is under way ends by itself.
        gateway.end(DRAIN).await;
        watchdog.abort();
        why
    }
}

/// Where accepted connections go.
#[derive(Debug, Clone)]
pub(super) struct Reception {
    front: Front,
    /// Of all listeners together.
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
                    tracing::debug!(%peer, "closed: not of listen.allow_sources");
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

/// A connection that the kernel redirected to us: by the port it was made to, DNS or the gateway's.
async fn serve_redirected(front: Front, stream: TcpStream, peer: SocketAddr) {
    let origin = front.origins.origin(&stream);
    let asker = origin
        .as_ref()
        .filter(|origin| origin.flow.original_destination.port() == DNS_PORT)
        .and_then(|origin| front.dns.as_ref()?.asker(origin.cgroup.as_ref()?));
    match (asker, &front.dns) {
        (Some(asker), Some(dns)) => dns.serve_stream(asker, stream).await,
        // Those of an agent that is unknown or disabled too: refused there, and recorded.
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
                tracing::warn!(%error, "a listener cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_loopback_and_what_is_named() {
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
