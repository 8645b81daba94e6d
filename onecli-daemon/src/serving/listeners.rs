//! The daemon's listeners, from binding to draining.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use onecli_admin::Handles;
use onecli_config::Config;
use onecli_net::BoundListener;
use onecli_proxy::{DataPlane, ListenerScheme};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::connections::{ConnectionHandler, ServerContext, Sources};
use crate::agents::TransparentMode;
use crate::process::AppError;
use crate::process::service_manager::{self as service, InheritedSockets};
use crate::process::task_group::TaskGroup;

/// The time that open requests may take after a stop signal.
const DRAIN: Duration = Duration::from_secs(10);
/// The interval at which idle upstream connections are checked.
const TIDY: Duration = Duration::from_secs(5);

/// Bound listeners: no client can connect yet.
pub(crate) struct Listeners {
    explicit: Vec<(BoundListener, ListenerScheme)>,
    transparent: Vec<BoundListener>,
    /// Addresses of the listeners that this process opened itself.
    own: Vec<SocketAddr>,
    sources: Arc<Sources>,
}

impl Listeners {
    /// Binds every listener of the daemon's own network namespace. Binds and stamps the transparent ones only if
    /// connections are redirected. The agents' DNS sockets are created and removed with each agent.
    ///
    /// Listeners that the service manager already holds are taken from `inherited`. The service manager is asked to hold
    /// the others.
    pub(crate) fn bind(
        config: &Config,
        managed: &TransparentMode,
        inherited: &mut InheritedSockets,
    ) -> Result<Listeners, AppError> {
        let mut own = Vec::new();
        let mut open = |inherited: &mut InheritedSockets, address| {
            if let Some(bound) = inherited.tcp(address) {
                return Ok(bound);
            }
            own.push(address);
            onecli_net::bind(address)
        };
        let plain = config.listen.explicit.iter().map(|&address| (address, ListenerScheme::Plain));
        let tls = config.listen.explicit_tls.iter().map(|&address| (address, ListenerScheme::Tls));
        let explicit = plain
            .chain(tls)
            .map(|(address, scheme)| Ok::<_, AppError>((open(inherited, address)?, scheme)))
            .collect::<Result<_, _>>()?;
        let port = config.listen.transparent_port;
        let loopback =
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))];
        let transparent: Vec<BoundListener> = if managed.is_attached() {
            loopback.into_iter().map(|address| open(inherited, address)).collect::<Result<_, _>>()?
        } else {
            // No connection is redirected to them.
            for address in loopback {
                drop(inherited.tcp(address));
            }
            Vec::new()
        };
        for listener in &transparent {
            managed.stamp(listener)?;
        }
        let sources = Arc::new(Sources(config.listen.allow_sources.clone()));
        Ok(Listeners { explicit, transparent, own, sources })
    }

    /// Returns every address of the daemon. The proxy refuses agents' connections to them.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.explicit
            .iter()
            .map(|(bound, _)| bound)
            .chain(&self.transparent)
            .map(BoundListener::address)
            .collect()
    }

    /// Returns the explicit proxy's addresses, each with its protocol.
    pub(crate) fn explicit(&self) -> Vec<(SocketAddr, ListenerScheme)> {
        self.explicit.iter().map(|(bound, scheme)| (bound.address(), *scheme)).collect()
    }

    /// Starts to listen on all sockets before the first client is served.
    pub(crate) fn listen(self, context: ServerContext) -> Result<OpenListeners, AppError> {
        let explicit = self
            .explicit
            .into_iter()
            .map(|(bound, scheme)| Ok::<_, AppError>((bound.listen()?, scheme)))
            .collect::<Result<Vec<_>, _>>()?;
        let transparent =
            self.transparent.into_iter().map(BoundListener::listen).collect::<Result<Vec<_>, _>>()?;
        for listener in explicit.iter().map(|(listener, _)| listener).chain(&transparent) {
            // Not earlier: the service manager takes a socket that does not listen for hung up, and drops it.
            if listener.local_addr().is_ok_and(|address| self.own.contains(&address)) {
                service::store_listener(listener);
            }
        }
        let (stop, stopped) = watch::channel(());
        let slots = Arc::new(Semaphore::new(context.capacity.accepted()));
        let handler = ConnectionHandler { context, slots, stopped, sources: self.sources };
        Ok(OpenListeners { explicit, transparent, handler, stop })
    }
}

/// Listeners that accept connections.
pub(crate) struct OpenListeners {
    explicit: Vec<(TcpListener, ListenerScheme)>,
    transparent: Vec<TcpListener>,
    handler: ConnectionHandler,
    stop: watch::Sender<()>,
}

impl OpenListeners {
    /// Returns a handle that serves redirected connections of further listeners, until these listeners stop.
    pub(crate) fn handler(&self) -> ConnectionHandler {
        self.handler.clone()
    }

    /// Starts to serve clients and administrators.
    pub(crate) fn start(
        self,
        admin_socket: UnixListener,
        handles: Handles,
        (serving, upkeep): (&mut TaskGroup, &mut TaskGroup),
    ) -> Serving {
        for (listener, scheme) in self.explicit {
            serving.spawn("explicit proxy", self.handler.clone().explicit(listener, scheme));
        }
        for listener in self.transparent {
            serving.spawn("redirected connections", self.handler.clone().transparent(listener));
        }
        let mut stopped = self.handler.stopped.clone();
        serving.spawn("admin API", async move {
            let until_stopped = async move {
                let _ = stopped.changed().await;
            };
            if let Err(error) = onecli_admin::serve(admin_socket, handles, until_stopped).await {
                tracing::error!(%error, "the admin socket failed");
            }
        });
        let data_plane = self.handler.context.data_plane;
        upkeep.spawn("upkeep of connections", tidy(Arc::clone(&data_plane)));
        let follower = Arc::clone(&data_plane);
        upkeep.spawn("revoked connections", async move { follower.follow_policy().await });
        Serving { data_plane, stop: self.stop }
    }
}

/// What serves, until it is stopped.
pub(crate) struct Serving {
    data_plane: Arc<DataPlane>,
    stop: watch::Sender<()>,
}

impl Serving {
    /// Accepts no new connection, and lets open requests finish.
    pub(crate) async fn stop(self, serving: &mut TaskGroup, upkeep: &mut TaskGroup) {
        drop(self.stop);
        serving.drain().await;
        upkeep.abort();
        self.data_plane.end(DRAIN).await;
    }
}

/// Maintains the data plane. Never returns.
async fn tidy(data_plane: Arc<DataPlane>) {
    loop {
        tokio::time::sleep(TIDY).await;
        data_plane.tidy();
    }
}
