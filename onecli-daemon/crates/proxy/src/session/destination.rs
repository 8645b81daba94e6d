//! The destination of a connection.

use std::net::SocketAddr;

use onecli_model::Authority;

/// The destination of a connection, from the client or from the kernel.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    /// The kernel's record: an address. Its server name or `Host` must still be found.
    Address(SocketAddr),
    /// The kernel recorded a synthetic address; this is the name behind it. The server name and `Host` may differ
    /// from it, because a program may have resolved another name with a search domain appended.
    Name(Authority),
    /// A CONNECT target: SNI and `Host` must agree with it.
    Authority(Authority),
    /// The daemon itself, as a proxy. Each request names its own destination.
    Proxy,
}

impl Destination {
    /// The host and port that the client connected to; `None` for the daemon itself.
    pub(crate) fn authority(&self) -> Option<Authority> {
        match self {
            Destination::Address(address) => Some(Authority::new(address.ip().into(), address.port())),
            Destination::Name(authority) | Destination::Authority(authority) => Some(authority.clone()),
            Destination::Proxy => None,
        }
    }

    /// The port that the client connected to; `None` for the daemon itself.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Destination::Address(address) => Some(address.port()),
            Destination::Name(authority) | Destination::Authority(authority) => Some(authority.port()),
            Destination::Proxy => None,
        }
    }
}
