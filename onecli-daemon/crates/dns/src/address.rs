//! The loopback address of an agent's resolver.

use std::net::Ipv4Addr;

use onecli_model::AgentId;

/// 127.64.0.0/10. All of 127/8 is this host (RFC 1122 section 3.2.1.3), and other programs use its beginning
/// (127.0.0.53).
const NETWORK: u32 = 0x7f40_0000;
/// The mask of the host part, 22 bits.
const HOSTS: u32 = (1 << 22) - 1;
/// The number of addresses tried for one agent.
const TRIES: u32 = 64;

/// Returns the addresses to try for an agent, in order. The first derives from the random end of its id, so it is the
/// same after a restart unless another agent has it.
pub(super) fn candidates(agent: AgentId) -> impl Iterator<Item = Ipv4Addr> {
    let [.., a, b, c, d] = *agent.0.as_bytes();
    let start = u32::from_be_bytes([a, b, c, d]);
    (0..TRIES).map(move |step| Ipv4Addr::from(NETWORK | (start.wrapping_add(step) & HOSTS)))
}
