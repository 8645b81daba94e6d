//! Parsers for configuration values.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use onecli_model::{Host, NoProxy, ProxyUrl};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

pub(super) fn check_absolute<E: serde::de::Error>(path: PathBuf) -> Result<PathBuf, E> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(E::custom(format!("'{}' must be an absolute path", path.display())))
    }
}

pub(super) fn absolute<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    check_absolute(PathBuf::deserialize(from)?)
}

pub(super) fn absolute_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    absolute(from).map(Some)
}

pub(super) fn absolutes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    Vec::<PathBuf>::deserialize(from)?.into_iter().map(check_absolute).collect()
}

pub(super) fn absolute_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    Option::<PathBuf>::deserialize(from)?.map(check_absolute).transpose()
}

/// Parses the proxy URL. The error does not quote the text, which may contain a password.
pub(super) fn proxy_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ProxyUrl>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

pub(super) fn no_proxy<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<NoProxy>, D::Error> {
    parse_each(&Vec::deserialize(from)?, "host name, address or network, such as corp.example or 10.0.0.0/8")
}

/// Parses each value and names the failing one in the error. The parsers' own messages do not say which of several
/// values they mean.
pub(super) fn parse_each<T: std::str::FromStr, E: serde::de::Error>(
    texts: &[String],
    what: &str,
) -> Result<Vec<T>, E> {
    let parse =
        |text: &String| text.parse().map_err(|_| E::custom(format!("'{text}' is not a valid {what}")));
    texts.iter().map(parse).collect()
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    parse_each(&Vec::deserialize(from)?, "address and port, such as 127.0.0.1:10255 or [::1]:10255")
}

pub(super) fn host_names<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Host>, D::Error> {
    parse_each(&Vec::deserialize(from)?, "host name, such as proxy.internal")
}

pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    parse_each(&Vec::deserialize(from)?, "network, such as 10.0.0.0/24")
}

pub(super) fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Host, Vec<IpAddr>>, D::Error> {
    BTreeMap::<String, Vec<String>>::deserialize(from)?
        .into_iter()
        .map(|(name, addresses)| {
            let host = name.parse().map_err(|error| D::Error::custom(format!("'{name}': {error}")))?;
            Ok((host, parse_each(&addresses, "address, such as 10.0.0.5")?))
        })
        .collect()
}

pub(super) fn port<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    match u16::deserialize(from)? {
        0 => Err(D::Error::custom("the port must be a number from 1 to 65535")),
        port => Ok(port),
    }
}

/// Parses `"512MiB"`, `"4GiB"`, or a number of bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
    let bytes = units.iter().find_map(|(unit, shift)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    bytes.ok_or_else(|| D::Error::custom(format!("'{text}' is not a valid size; use \"512MiB\" or \"4GiB\"")))
}

pub(super) fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        0 => Err(D::Error::custom("the rate must be at least 1 record per second")),
        rate => Ok(rate),
    }
}

pub(super) fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    time(from, Duration::from_millis(1)..=Duration::from_mins(5), "1ms to 5min; use 500ms, 5s or 1min")
}

pub(super) fn head_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    time(from, Duration::from_millis(1)..=Duration::from_hours(1), "1ms to 1h; use 30s or 10m")
}

pub(super) fn idle_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    time(from, Duration::from_millis(1)..=Duration::from_hours(24), "1ms to 24h; use 5m or 1h")
}

/// Parses a duration within `bounds`. The last argument describes the bounds for the error message.
fn time<'de, D: Deserializer<'de>>(
    from: D,
    bounds: RangeInclusive<Duration>,
    bounds_text: &str,
) -> Result<Duration, D::Error> {
    time_of(&String::deserialize(from)?, bounds, bounds_text).map_err(D::Error::custom)
}

fn time_of(text: &str, bounds: RangeInclusive<Duration>, bounds_text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).ok().filter(|duration| bounds.contains(duration));
    duration.ok_or_else(|| format!("'{text}' is not a time from {bounds_text}"))
}

pub(super) fn approval_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    time(from, Duration::from_secs(1)..=Duration::from_hours(1), "1s to 1h; use 30s or 2m")
}

/// Parses the retention time; `"0"` is none.
pub(super) fn keep_replaced<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let bounds = Duration::from_secs(1)..=Duration::from_hours(30 * 24);
    let bounds_text = "1s to 30days, or 0 for none; use 24h or 7days";
    if text == "0" {
        Ok(Duration::ZERO)
    } else {
        time_of(&text, bounds, bounds_text).map_err(D::Error::custom)
    }
}

pub(super) fn cgroup_path<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    check_cgroup_path(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// Checks a path below the cgroup2 mount, and strips leading and trailing `/`.
pub(super) fn check_cgroup_path(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches('/');
    let plain = Path::new(trimmed).components().all(|part| matches!(part, Component::Normal(_)));
    if trimmed.is_empty() || !plain || trimmed.contains("//") || text.starts_with("/sys/") {
        return Err(format!(
            "'{text}' is not a valid cgroup: use a path below the cgroup2 mount, such as \
             onecli.slice/onecli-agents.slice"
        ));
    }
    Ok(trimmed.to_owned())
}

/// The default range, reserved for benchmarks (RFC 2544, RFC 6890). No network on the Internet uses it, and private
/// networks and VPNs avoid it. Tools with a "fake IP" mode have used it for years, so client programs accept it. Some
/// clients reject 240.0.0.0/4.
pub(super) const REFUSED_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

/// Parses a network, or `""` for none. The daemon assigns addresses by the hash of a name, so the network must be large
/// enough.
pub(super) fn refused_range<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Ipv4Net>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let range: Ipv4Net = text.parse().map_err(|_| {
        D::Error::custom(format!("'{text}' is not an IPv4 network; use \"198.18.0.0/15\", or \"\" for none"))
    })?;
    let range = range.trunc();
    let first = range.network();
    let unusable = first.is_loopback() || first.octets()[0] == 0 || first.is_multicast();
    if unusable || !(4..=20).contains(&range.prefix_len()) || range.contains(&Ipv4Addr::LOCALHOST) {
        return Err(D::Error::custom(format!(
            "'{text}' must be a /4 to /20 outside of 0.0.0.0/8, 127.0.0.0/8 and 224.0.0.0/4, and must not be \
             routed anywhere"
        )));
    }
    Ok(Some(range))
}
