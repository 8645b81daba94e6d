//! Sockets: listeners, origins of connections, protocol detection, names, addresses, dialling, tunnels.

#![forbid(unsafe_code)]

mod address;
mod dial;
mod families;
mod hosts;
mod listen;
mod origin;
mod prefixed;
mod proxy;
mod resolve;
mod synthetic;
mod tunnel;

pub use address::{AddressPolicy, CheckedAddr};
pub use dial::{DialError, Dialer, tune};
pub use listen::{BoundListener, ListenError, bind};
pub use origin::{ConnectionOrigin, OriginLookup};
pub use prefixed::PrefixedStream;
pub use proxy::{ProxyError, Transport, connect_through, proxy_authorization};
pub use resolve::{Addresses, ResolveError, ResolveFailure, Resolver};
pub use synthetic::{SyntheticAddresses, client_speaks_first};
pub use tunnel::{TunnelBytes, TunnelEnd, tunnel};

#[cfg(test)]
mod tests;
