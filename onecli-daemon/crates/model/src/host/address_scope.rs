//! The addresses that rules allow or deny for one request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses that one request may be sent to, according to the rules. The crate `net` knows the blocked ranges
/// and turns allowed addresses into addresses that can be dialled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressScope {
    /// Whether every address outside the blocked ranges is allowed.
    pub open: bool,
    /// Networks that a rule allows explicitly, even in blocked ranges.
    pub allowed: Vec<IpNet>,
    /// Networks that are denied, even if a rule allows them.
    pub denied: Vec<IpNet>,
}

impl AddressScope {
    /// Returns the scope of every address outside the blocked ranges.
    pub fn open() -> AddressScope {
        AddressScope { open: true, ..AddressScope::default() }
    }

    /// Returns whether the address is in a denied network, in any form that routes there.
    pub fn denies(&self, ip: IpAddr) -> bool {
        self.denied.iter().any(|net| contains_any_form(*net, ip))
    }
}

/// Returns whether `net` contains the address, or the IPv4 address within it (mapped, NAT64, 6to4).
pub(crate) fn contains_any_form(net: IpNet, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    net.contains(&ip)
        || match ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => embedded_v4(ip).is_some_and(|v4| net.contains(&IpAddr::V4(v4))),
        }
}

/// Returns the embedded address by RFC 4291 section 2.5.5, RFC 6052, RFC 8215 (with RFC 6052's longest prefix), RFC
/// 3056.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, _, _, _, _, _] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_network_is_denied_in_every_form() {
        let address_scope =
            AddressScope { denied: vec!["203.0.113.0/24".parse().unwrap()], ..AddressScope::open() };
        for denied in [
            "203.0.113.7",
            "::ffff:203.0.113.7",
            "64:ff9b::cb00:7107",
            "64:ff9b:1::cb00:7107",
            "2002:cb00:7107::1",
            "::203.0.113.7",
        ] {
            assert!(address_scope.denies(denied.parse().unwrap()), "{denied}");
        }
        for other in ["203.0.114.7", "2001:db8::cb00:7107", "64:ff9b::cb00:7207"] {
            assert!(!address_scope.denies(other.parse().unwrap()), "{other}");
        }
    }
}
