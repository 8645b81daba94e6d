//! The policy on addresses that may be dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use onecli_model::AddressScope;
use onecli_model::metadata::METADATA_ADDRESSES;

/// An address that the address policy permits. Only [`AddressPolicy::check`] creates one, and only such an address is
/// dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckedAddr(SocketAddr);

impl CheckedAddr {
    /// The address.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

/// Blocks loopback, link-local, cloud metadata, private, multicast and reserved ranges (IANA special-purpose
/// registries, RFC 6890), also inside IPv6 forms of IPv4 addresses. The operator exempts networks.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
    own: Vec<SocketAddr>,
}

impl AddressPolicy {
    /// `allow` is `[egress] allow_addresses`. `own` are the daemon's listeners, which are blocked even if `allow`
    /// contains them.
    pub fn new(allow: Vec<IpNet>, own: Vec<SocketAddr>) -> AddressPolicy {
        AddressPolicy { allow, own }
    }

    /// Returns the checked address if `address` may be dialled for a request that rules allow in `address_scope`.
    pub fn check(&self, address: SocketAddr, address_scope: &AddressScope) -> Option<CheckedAddr> {
        let ip = address.ip().to_canonical();
        let address = SocketAddr::new(ip, address.port());
        if self.is_own(address) || address_scope.denies(ip) {
            return None;
        }
        let blocked = is_blocked(ip);
        let exempt = self.allow.iter().any(|net| net.contains(&ip));
        let named =
            address_scope.allowed.iter().any(|net| net.contains(&ip) && (!blocked || is_explicit(*net, ip)));
        (named || (address_scope.open && (exempt || !blocked))).then_some(CheckedAddr(address))
    }

    /// Returns the checked address of the operator's upstream proxy: any address except the daemon's own.
    pub fn check_proxy(&self, address: SocketAddr) -> Option<CheckedAddr> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        (!self.is_own(address)).then_some(CheckedAddr(address))
    }

    /// Returns whether the address is one of the daemon's listeners. A listener bound to all addresses owns its port
    /// on every address of this host. Of these, loopback and 0.0.0.0 are recognized here.
    fn is_own(&self, address: SocketAddr) -> bool {
        self.own.iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || address.ip().is_unspecified()
                    || (own.ip().is_unspecified() && address.ip().is_loopback()))
        })
    }
}

/// Returns whether a rule for `net` covers this address in a blocked range explicitly. A `net` with most of the
/// Internet does not. A cloud's metadata service needs a rule for exactly that address, because it issues credentials
/// to every client.
fn is_explicit(net: IpNet, ip: IpAddr) -> bool {
    if METADATA_ADDRESSES.contains(&ip) {
        return net.prefix_len() == net.max_prefix_len();
    }
    net.prefix_len() >= if ip.is_ipv4() { 8 } else { 7 }
}

fn is_blocked(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_blocked_v4(ip),
        IpAddr::V6(ip) => is_blocked_v6(ip),
    }
}

fn is_blocked_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    a == 0
        || a == 10
        || a == 127
        || a >= 224 // multicast, reserved, broadcast
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT, RFC 6598
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99) // 6to4 relay, RFC 7526
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
}

fn is_blocked_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded =
        |high: u16, low: u16| is_blocked_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || (s[0] & 0xfe00) == 0xfc00 // unique local, RFC 4193; holds fd00:ec2::254
        || (s[0] & 0xffc0) == 0xfe80 // link-local
        || (s[0] & 0xffc0) == 0xfec0 // site-local, RFC 3879
        || s[..6] == [0; 6] // IPv4-compatible, RFC 4291
        || s[..5] == [0; 5] // IPv4-mapped
        || (s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] && embedded(s[6], s[7])) // NAT64, RFC 6052
        || s[..3] == [0x64, 0xff9b, 1] // local-use NAT64, RFC 8215
        || (s[0] == 0x2002 && embedded(s[1], s[2])) // 6to4, RFC 3056
        || s[..2] == [0x2001, 0] // Teredo, RFC 4380
        || s[..2] == [0x2001, 0xdb8] // documentation
        || s[0] == 0x100 // discard-only, RFC 6666
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_ranges() {
        let policy = AddressPolicy::default();
        for blocked in [
            "0.0.0.0:80",
            "10.1.2.3:80",
            "127.0.0.1:80",
            "127.9.9.9:80",
            "100.64.0.1:80",
            "169.254.169.254:80",
            "172.16.0.1:80",
            "172.31.255.255:80",
            "192.168.1.1:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "198.18.0.1:80",
            "[::]:80",
            "[::1]:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[ff02::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::7f00:1]:80",
            "[64:ff9b::a9fe:a9fe]:80",
            "[2002:7f00:1::]:80",
            "[::127.0.0.1]:80",
            "[2001::1]:80",
        ] {
            assert_eq!(policy.check(blocked.parse().unwrap(), &AddressScope::open()), None, "{blocked}");
        }
        for open in [
            "1.1.1.1:443",
            "172.32.0.1:443",
            "100.128.0.1:443",
            "[2606:4700::1111]:443",
            "[64:ff9b::101:101]:443",
        ] {
            assert!(policy.check(open.parse().unwrap(), &AddressScope::open()).is_some(), "{open}");
        }
    }

    #[test]
    fn exemptions_do_not_cover_the_daemons_listeners() {
        let own = vec!["127.0.0.1:10255".parse().unwrap()];
        let policy =
            AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap(), "0.0.0.0/32".parse().unwrap()], own);
        assert!(policy.check("127.0.0.1:8443".parse().unwrap(), &AddressScope::open()).is_some());
        assert!(policy.check("[::ffff:127.0.0.1]:8443".parse().unwrap(), &AddressScope::open()).is_some());
        assert_eq!(policy.check("127.0.0.1:10255".parse().unwrap(), &AddressScope::open()), None);
        assert_eq!(policy.check("0.0.0.0:10255".parse().unwrap(), &AddressScope::open()), None);
        assert_eq!(policy.check("[::ffff:127.0.0.1]:10255".parse().unwrap(), &AddressScope::open()), None);
    }

    #[test]
    fn rules_allow_and_deny_addresses() {
        let policy = AddressPolicy::new(Vec::new(), vec!["10.0.0.9:10255".parse().unwrap()]);
        let address_scope = |open, allowed: &[&str], denied: &[&str]| AddressScope {
            open,
            allowed: allowed.iter().map(|net| net.parse().unwrap()).collect(),
            denied: denied.iter().map(|net| net.parse().unwrap()).collect(),
        };
        let check = |address_scope: &AddressScope, address: &str, expected: bool| {
            let got = policy.check(address.parse().unwrap(), address_scope).is_some();
            assert_eq!(got, expected, "{address} {address_scope:?}");
        };
        let private = address_scope(false, &["10.0.0.0/8"], &["10.9.0.0/16"]);
        check(&private, "10.1.2.3:5432", true);
        check(&private, "[::ffff:10.1.2.3]:5432", true);
        check(&private, "10.9.0.1:5432", false);
        check(&private, "10.0.0.9:10255", false);
        check(&private, "192.168.0.1:5432", false);
        check(&private, "1.1.1.1:5432", false);
        let all = address_scope(false, &["0.0.0.0/0", "::/0"], &[]);
        check(&all, "1.1.1.1:443", true);
        check(&all, "10.0.0.1:443", false);
        check(&all, "[::1]:443", false);
        let metadata = |net: &str| address_scope(true, &[net], &[]);
        check(&metadata("169.254.0.0/16"), "169.254.169.254:80", false);
        check(&metadata("169.254.0.0/16"), "169.254.1.1:80", true);
        check(&metadata("169.254.169.254/32"), "169.254.169.254:80", true);
        check(&metadata("fd00:ec2::/32"), "[fd00:ec2::254]:80", false);
        check(&metadata("fd00:ec2::254/128"), "[fd00:ec2::254]:80", true);
        check(&address_scope(true, &[], &["1.1.1.0/24"]), "1.1.1.1:443", false);
        check(&address_scope(true, &[], &["1.1.1.0/24"]), "[64:ff9b::101:101]:443", false);
    }
}
