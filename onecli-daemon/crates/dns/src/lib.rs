//! The agents' resolver: names that an agent may reach resolve, others are refused, so DNS carries nothing out.
//!
//! The kernel sends every datagram of a managed process for port 53, whatever IPv4 server it names (127.0.0.53 too), to
//! a loopback address that is the agent's alone; [`Server`] has a socket on each, so the address that a query arrives at
//! says whose it is. DNS over TCP comes through the transparent listener with the kernel's record of the connection.
//! Servers with IPv6 addresses are refused by the kernel with `EPERM`; clients go on to the next server of
//! resolv.conf(5), so one IPv4 server in it, of whatever address, is enough.
//!
//! | name | answer |
//! |---|---|
//! | `localhost` and below (RFC 6761 section 6.3) | loopback |
//! | one the agent may resolve | A, AAAA: its addresses; any other type, or no address of that family: no data |
//! | the same with a search domain behind it | `NXDOMAIN`, without asking anybody |
//! | any other that is no single label, reverse name or the like (`denied`) | A: a synthetic address; AAAA: no data; other types: `REFUSED` |
//! | any other | `REFUSED`, and an audit record |
//!
//! A synthetic address ([`onecli_net::SyntheticAddresses`]) leads to the daemon, which refuses the connection with the reason. Its
//! record is the query's too; a query that no connection follows within two seconds has one of its own. To a disabled agent
//! every name is one that it may not resolve.
//!
//! `NXDOMAIN` in the third row because `REFUSED` ends the search of resolv.conf's domains: in musl before the name itself
//! is asked for (`options ndots:5`, as Kubernetes sets it), in glibc before the domains that are left. A short name that
//! is an agent's only with the second of two domains behind it therefore does not resolve with glibc.

#![forbid(unsafe_code)]

mod address;
mod answer;
mod coined;
mod denied;
mod message;
mod names;
mod server;
mod stream;

#[cfg(test)]
mod tests;

pub use answer::Parts;
pub use names::{Addresses, Names, NoAddress};
pub use server::{Asker, Keeper, Server, Stamp};
