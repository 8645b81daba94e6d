//! The metadata services of clouds. They issue the machine's credentials to any process that requests them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::authority::Host;

/// AWS, GCP, Azure and others; AWS for containers; Alibaba; Oracle; AWS over IPv6.
pub const METADATA_ADDRESSES: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// Names of GCP, AWS, and Alibaba.
const METADATA_NAMES: [&str; 4] =
    ["metadata", "metadata.google.internal", "instance-data.ec2.internal", "metadata.aliyuncs.com"];

/// Returns whether this host is a cloud's metadata service.
pub fn is_metadata_service(host: &Host) -> bool {
    let is_name = |name: &str| METADATA_NAMES.contains(&name) || name.starts_with("instance-data.");
    host.as_ip().is_some_and(|ip| METADATA_ADDRESSES.contains(&ip.to_canonical()))
        || host.as_name().is_some_and(is_name)
}
