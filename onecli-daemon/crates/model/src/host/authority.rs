//! Hosts and authorities, parsed once. The parsed value is matched, dialled and forwarded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The maximum length of a parsed host, in bytes. 253 characters of a name in any script fit. The sender could
/// otherwise choose the time that the UTS 46 mapping of a longer text takes.
const MAX_INPUT: usize = 1024;

/// A host in canonical form: lower case, IDNA A-labels (RFC 5891), no trailing dot, no userinfo, no port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// A DNS name, at most 253 octets, its last label not a number.
    Name(String),
    /// An IPv4 literal in dotted-quad form.
    V4(Ipv4Addr),
    /// An IPv6 literal, never a v4-mapped one.
    V6(Ipv6Addr),
}

/// The reason why a host or an authority was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The text is empty.
    #[error("the host is empty")]
    Empty,
    /// The text is `user@host`. It is never accepted, because it is used to disguise a host.
    #[error("user information before the host is not accepted")]
    UserInfo,
    /// The text is not a name or literal that RFC 3986 and IDNA allow.
    #[error("the host is not a valid DNS name or address literal")]
    BadHost,
    /// The host is numeric, but not four decimal parts (`127.1`, `0x7f000001`). Clients disagree on these.
    #[error("the host looks like a number but is not a dotted-quad IPv4 address")]
    AmbiguousNumber,
    /// The host is `::ffff:a.b.c.d`. The IPv4 address must be used instead.
    #[error("an IPv4-mapped IPv6 address is not accepted: write the IPv4 address")]
    MappedAddress,
    /// The port is missing, zero, not a number, or greater than 65535.
    #[error("the port is missing or not a number from 1 to 65535")]
    BadPort,
}

impl Host {
    /// Returns the address, if the host is a literal.
    pub fn as_ip(&self) -> Option<IpAddr> {
        match self {
            Host::Name(_) => None,
            Host::V4(ip) => Some(IpAddr::V4(*ip)),
            Host::V6(ip) => Some(IpAddr::V6(*ip)),
        }
    }

    /// Returns the DNS name, if the host is one.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Host::Name(name) => Some(name),
            _ => None,
        }
    }

    fn parse_name(text: &str) -> Result<Host, AuthorityError> {
        if text.len() > MAX_INPUT {
            return Err(AuthorityError::BadHost);
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(AuthorityError::Empty);
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::URL)
            .map_err(|_| AuthorityError::BadHost)?;
        let labels_ok = ascii.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
        if !labels_ok || ascii.len() > 253 {
            return Err(AuthorityError::BadHost);
        }
        // The WHATWG URL standard's "ends in a number" check: resolvers read 127.1 and 0x7f.1 as 127.0.0.1.
        let last = ascii.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AuthorityError::AmbiguousNumber);
        }
        Ok(Host::Name(ascii.into_owned()))
    }

    fn parse_v6(text: &str) -> Result<Host, AuthorityError> {
        let ip: Ipv6Addr = text.parse().map_err(|_| AuthorityError::BadHost)?;
        if ip.to_ipv4_mapped().is_some() {
            return Err(AuthorityError::MappedAddress);
        }
        Ok(Host::V6(ip))
    }
}

impl FromStr for Host {
    type Err = AuthorityError;

    /// Parses a host without a port. IPv6 literals may have brackets.
    fn from_str(text: &str) -> Result<Host, AuthorityError> {
        if text.contains('@') {
            return Err(AuthorityError::UserInfo);
        }
        if let Some(inner) = text.strip_prefix('[') {
            return Host::parse_v6(inner.strip_suffix(']').ok_or(AuthorityError::BadHost)?);
        }
        if text.contains(':') {
            return Host::parse_v6(text);
        }
        match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Host::V4(ip)),
            Err(_) => Host::parse_name(text),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = AuthorityError;

    fn try_from(text: String) -> Result<Host, AuthorityError> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> String {
        host.to_string()
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Host {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        }
    }
}

impl fmt::Display for Host {
    /// Writes IPv6 without brackets; [`Authority`] adds them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.pad(name),
            Host::V4(ip) => ip.fmt(f),
            Host::V6(ip) => ip.fmt(f),
        }
    }
}

/// A host and a port (RFC 3986 section 3.2, without userinfo).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Authority {
    host: Host,
    port: u16,
}

impl Authority {
    /// Joins a host and a port.
    pub fn new(host: Host, port: u16) -> Authority {
        Authority { host, port }
    }

    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`. Without a port, `default_port` applies.
    ///
    /// # Errors
    /// [`AuthorityError`]; without a default, a missing port is [`AuthorityError::BadPort`].
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Authority, AuthorityError> {
        if text.contains('@') {
            return Err(AuthorityError::UserInfo);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(inner) => {
                let (host, rest) = inner.split_once(']').ok_or(AuthorityError::BadHost)?;
                let port = match rest {
                    "" => None,
                    rest => Some(rest.strip_prefix(':').ok_or(AuthorityError::BadHost)?),
                };
                (Host::parse_v6(host)?, port)
            }
            None => match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(AuthorityError::BadHost),
                Some((host, port)) => (host.parse()?, Some(port)),
                None => (text.parse()?, None),
            },
        };
        let port = match port {
            Some(port) => parse_port(port)?,
            None => default_port.ok_or(AuthorityError::BadPort)?,
        };
        Ok(Authority { host, port })
    }

    /// Returns the host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the `Host` / `:authority` value for `scheme_port`. It omits the port if that is the scheme's own.
    pub fn to_header(&self, scheme_port: u16) -> String {
        match (&self.host, self.port == scheme_port) {
            (Host::V6(ip), true) => format!("[{ip}]"),
            (host, true) => host.to_string(),
            _ => self.to_string(),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AuthorityError> {
    if text.is_empty() || text.len() > 5 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AuthorityError::BadPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(AuthorityError::BadPort),
        Ok(port) => Ok(port),
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::V6(ip) => write!(f, "[{ip}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, AuthorityError>) {
        let got = Authority::parse(text, Some(443)).map(|a| a.to_string());
        assert_eq!(got.as_deref().map_err(|e| *e), expected, "{text:?}");
    }

    #[test]
    fn long_names_are_refused_before_they_are_mapped() {
        let label = "\u{ad}".repeat(400);
        assert_eq!(format!("a{label}.test").parse::<Host>().unwrap().to_string(), "a.test");
        assert_eq!(format!("a{label}{label}.test").parse::<Host>(), Err(AuthorityError::BadHost));
    }

    #[test]
    fn spellings_of_one_host_become_one() {
        check("api.example.com", Ok("api.example.com:443"));
        check("API.Example.COM.:8443", Ok("api.example.com:8443"));
        check("bücher.example", Ok("xn--bcher-kva.example:443"));
        check("api。example.com", Ok("api.example.com:443"));
        check("127.0.0.1:80", Ok("127.0.0.1:80"));
        check("[2001:DB8::1]:80", Ok("[2001:db8::1]:80"));
        check("[::1]", Ok("[::1]:443"));
    }

    #[test]
    fn ambiguous_hosts_are_refused() {
        use AuthorityError::{AmbiguousNumber, BadHost, BadPort, Empty, MappedAddress, UserInfo};
        check("", Err(Empty));
        check(".", Err(Empty));
        check("api.example.com@evil.test", Err(UserInfo));
        check("api.example.com:443@evil.test:443", Err(UserInfo));
        check("127.1", Err(AmbiguousNumber));
        check("2130706433", Err(AmbiguousNumber));
        check("0x7f000001", Err(AmbiguousNumber));
        check("0177.0.0.1", Err(AmbiguousNumber));
        check("[::ffff:127.0.0.1]", Err(MappedAddress));
        check("a..b", Err(BadHost));
        check("a b", Err(BadHost));
        check("a/b", Err(BadHost));
        check("a%2eb", Err(BadHost));
        check("a\r\nb", Err(BadHost));
        check("::1", Err(BadHost));
        check("[::1", Err(BadHost));
        check("[::1]443", Err(BadHost));
        check("[fe80::1%25eth0]", Err(BadHost));
        check("a:", Err(BadPort));
        check("a:0", Err(BadPort));
        check("a:65536", Err(BadPort));
        check("a:+80", Err(BadPort));
        check("a:080000", Err(BadPort));
    }
}
