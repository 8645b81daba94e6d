//! The daemon's listeners, from bound to drained.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use super::error::AppError;
use super::managed::Managed;
use crate::admin::{self, Handles};
use crate::config::Config;
use crate::dns;
use crate::http::{Capacity, Gateway, serve_explicit, serve_transparent};
use crate::net::{self, Origins};

/// After accept(2) failed (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long open requests may take when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How often idle upstream connections are looked through.
const TIDY: Duration = Duration::from_secs(15);

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
    pub(super) dns: Option<Arc<dns::Server>>,
}

/// Bound, not yet served.
pub(super) struct Stand {
    explicit: Vec<TcpListener>,
    transparent: Vec<TcpListener>,
}

impl Stand {
    /// Binds every listener; the transparent ones where connections are redirected, and marked as ours.
    pub(super) fn bind(config: &Config, managed: &Managed) -> Result<Stand, AppError> {
        let explicit = config.listen.explicit.iter().copied().map(net::bind).collect::<Result<_, _>>()?;
        let port = config.listen.transparent_port;
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        let transparent: Vec<TcpListener> = if managed.is_attached() {
            loopback.into_iter().map(net::bind).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        for listener in &transparent {
            managed.stamp(listener)?;
        }
        Ok(Stand { explicit, transparent })
    }

    /// Every address that is ours, which no agent may reach through us.
    pub(super) fn addresses(&self) -> Result<Vec<SocketAddr>, AppError> {
        let all = self.explicit.iter().chain(&self.transparent);
        all.map(TcpListener::local_addr).collect::<Result<_, _>>().map_err(AppError::Socket)
    }

    /// Serves until SIGTERM or SIGINT, then lets open requests finish.
    pub(super) async fn serve(
        self,
        front: Front,
        admin_socket: UnixListener,
        handles: Handles,
    ) -> Result<(), AppError> {
        let (stop, stopped) = watch::channel(());
        let places = Arc::new(Semaphore::new(front.capacity.accepted()));
        let mut tasks = tokio::task::JoinSet::new();
        let gateway = Arc::clone(&front.gateway);
        for listener in self.explicit {
            let gateway = Arc::clone(&gateway);
            tasks.spawn(accept(listener, Arc::clone(&places), stopped.clone(), move |stream, peer| {
                let gateway = Arc::clone(&gateway);
                async move {
                    let served = serve_explicit(Arc::clone(&gateway), stream, peer);
                    gateway.until_end(served).await;
                }
            }));
        }
        for listener in self.transparent {
            let front = front.clone();
            tasks.spawn(accept(listener, Arc::clone(&places), stopped.clone(), move |stream, peer| {
                let front = front.clone();
                async move {
                    let gateway = Arc::clone(&front.gateway);
                    gateway.until_end(serve_redirected(front, stream, peer)).await;
                }
            }));
        }
        let mut admin_stopped = stopped.clone();
        let admin = tokio::spawn(admin::serve(admin_socket, handles, async move {
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

        told_to_stop().await?;
        drop(stop);
        while tasks.join_next().await.is_some() {}
        let _ = admin.await;
        tidy.abort();
        // No new connection is taken; a request that is under way ends by itself.
        gateway.end(DRAIN).await;
        Ok(())
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

async fn told_to_stop() -> Result<(), AppError> {
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
