//! Values of the kernel programs' records.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use onecli_common::COMM_LEN;

/// Converts an address and port as the programs write them, both in network byte order; IPv4 if it is mapped.
pub(super) fn address(addr: [u8; 16], port: u16) -> SocketAddr {
    let addr = IpAddr::V6(Ipv6Addr::from(addr)).to_canonical();
    SocketAddr::new(addr, u16::from_be(port))
}

/// Returns the upper and the lower 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
pub(super) const fn halves(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

/// Returns a task's name as the process chose it. It may contain any text: callers escape it before they show or store
/// it (`audit::Text`).
pub(super) fn comm(raw: &[u8; COMM_LEN]) -> String {
    let name = raw.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
