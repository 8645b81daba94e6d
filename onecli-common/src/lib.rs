//! Definitions shared by OneCLI's kernel programs (`onecli-ebpf`) and its daemon: map keys, map values, names.
//!
//! Every type here crosses the kernel boundary: `repr(C)`, no padding, sizes asserted. A change of any layout requires
//! a new [`ABI_VERSION`]. Pinned maps outlive the program that made them, and the kernel does not check that a reused
//! map has the layout that its new user expects.
//!
//! Addresses are 16 bytes in network byte order. IPv4 is written in its mapped form (`::ffff:a.b.c.d`), so an address
//! has one spelling for both socket families.
#![no_std]

mod event;
mod ident;
pub mod names;
mod stat;

pub use event::{Deny, Hook, Reason};
pub use ident::{AgentEntry, Ident, IdentFlags, TupleKey, Waiting};
pub use stat::Stat;

/// Version of every layout in this crate, and the name of the pin directory (`v4`) below the bpffs directory.
pub const ABI_VERSION: u32 = 4;

/// Bytes of a task name, its terminating NUL included (`TASK_COMM_LEN` of the kernel).
pub const COMM_LEN: usize = 16;

/// `AF_INET`, as sockets of managed processes report it.
pub const AF_INET: u8 = 2;
/// `AF_INET6`, as sockets of managed processes report it.
pub const AF_INET6: u8 = 10;
/// `IPPROTO_TCP`.
pub const IPPROTO_TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const IPPROTO_UDP: u8 = 17;
/// The port of DNS, host byte order. Managed processes may send no other UDP.
pub const DNS_PORT: u16 = 53;

/// IPv4 `address` (network byte order) in its mapped IPv6 form.
#[must_use]
pub const fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
