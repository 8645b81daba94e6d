//! Connections of clients: accepting them, detecting their protocol, and handing them to it.

mod explicit;
pub(crate) mod listener_scheme;
pub(crate) mod protocol;
pub(crate) mod router;
#[cfg(test)]
mod tests;
mod tls;
mod transparent;

use std::net::SocketAddr;
use std::sync::Arc;

use onecli_model::Clock;
use onecli_net::SyntheticAddresses;

use self::listener_scheme::ListenerScheme;
use self::router::Router;
use crate::session::Services;

/// Accepts connections of clients.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) services: Services,
    pub(crate) router: Arc<Router>,
    /// Addresses that represent names.
    pub(crate) synthetic: Arc<SyntheticAddresses>,
    /// Addresses of the explicit proxy. A redirected connection to one of them uses proxy HTTP, with or without TLS.
    pub(crate) explicit_addresses: Vec<(SocketAddr, ListenerScheme)>,
    pub(crate) clock: Arc<dyn Clock>,
}
