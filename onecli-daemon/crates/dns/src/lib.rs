//! The agents' resolver. Names that an agent may reach resolve, and all others are refused, so that DNS cannot carry
//! data out.
//!
//! The kernel redirects every datagram of a managed process for port 53, whatever IPv4 server it names (127.0.0.53
//! too). The new destination is a loopback address that belongs to the agent alone. [`Server`] has a socket on each
//! of these addresses, so the destination address identifies the agent. DNS over TCP arrives at the transparent
//! listener with the kernel's record of the connection. The kernel refuses servers with IPv6 addresses with
//! `EPERM`. Clients then try the next server of resolv.conf(5), so one IPv4 server with any address in it is
//! enough.
//!
//! | name | answer |
//! |---|---|
//! | `localhost` and below (RFC 6761 section 6.3) | loopback |
//! | a name that the agent may resolve | A, AAAA: its addresses, if it has any; other types: no data |
//! | such a name with a search domain appended | `NXDOMAIN`, without a query to another server |
//! | other names, if `denied` permits it | A: a synthetic address; AAAA: no data; others: `REFUSED` |
//! | all remaining names | `REFUSED`, and an audit record |
//!
//! A synthetic address ([`onecli_net::SyntheticAddresses`]) points to the daemon, which refuses the connection with
//! the reason. The record of the connection also covers the query. A query that no connection follows within two
//! seconds has a record of its own. A disabled agent may not resolve any name.
//!
//! The third row has `NXDOMAIN` because `REFUSED` ends the search through resolv.conf's domains. In musl it ends
//! before the name itself is queried (`options ndots:5`, as Kubernetes sets it), in glibc before the remaining
//! domains. With glibc, a short name that is the agent's only with the second of two domains appended therefore does
//! not resolve.

#![forbid(unsafe_code)]

mod address;
mod answer;
mod denied;
mod lookup;
mod message;
mod name_budget;
mod server;
mod stream;

#[cfg(test)]
mod tests;

pub use answer::QueryHandler;
pub use lookup::{Addresses, HostLookup, LookupError};
pub use server::{DnsClient, Server, SocketMark, SocketStore};
