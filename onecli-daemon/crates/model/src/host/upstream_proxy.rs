//! The proxy of the operator's network, for hosts where upstreams can be reached only through it.

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use zeroize::Zeroizing;

use super::authority::{Authority, Host};

/// `http://[USER:PASSWORD@]HOST[:PORT]`, or `https://` if the connection to the proxy itself uses TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    authority: Authority,
    tls: bool,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
}

/// The text is not the URL of a proxy. The error never contains the text, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is not the URL of a proxy: write http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before HOST if required"
)]
pub struct ProxyUrlError;

impl ProxyUrl {
    /// Returns the proxy's host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns whether the connection to the proxy uses TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Sets another password. The URL must already name a user.
    ///
    /// # Errors
    /// [`ProxyUrlError`] if no user is named.
    pub fn with_password(mut self, password: Zeroizing<String>) -> Result<ProxyUrl, ProxyUrlError> {
        if self.user.is_none() {
            return Err(ProxyUrlError);
        }
        self.password = Some(password);
        Ok(self)
    }

    /// Returns user and password (RFC 7617), joined by a colon.
    pub fn credentials(&self) -> Option<Zeroizing<String>> {
        let user = self.user.as_ref()?;
        let password = self.password.as_ref().map_or("", |password| password.as_str());
        Some(Zeroizing::new(format!("{user}:{password}")))
    }
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<ProxyUrl, ProxyUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(ProxyUrlError)?;
        let (tls, port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(ProxyUrlError),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (userinfo, host) = match rest.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, rest),
        };
        let decode = |text: &str| {
            let decoded =
                percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| ProxyUrlError)?;
            if decoded.chars().any(char::is_control) { Err(ProxyUrlError) } else { Ok(decoded.into_owned()) }
        };
        let (user, password) = match userinfo.map(|all| all.split_once(':').unwrap_or((all, ""))) {
            // RFC 7617 section 2: a colon ends the user.
            Some((user, _)) if user.is_empty() || user.to_ascii_lowercase().contains("%3a") => {
                return Err(ProxyUrlError);
            }
            Some((user, password)) => (Some(decode(user)?), Some(Zeroizing::new(decode(password)?))),
            None => (None, None),
        };
        let authority = Authority::parse(host, Some(port)).map_err(|_| ProxyUrlError)?;
        Ok(ProxyUrl { authority, tls, user, password })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// Hosts that are reached without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoProxy {
    /// A name and all names below it.
    Name(String),
    /// Addresses in URLs. No name is resolved for this.
    Network(IpNet),
}

impl NoProxy {
    /// Returns whether `host` is one of them.
    pub fn covers(&self, host: &Host) -> bool {
        match (self, host) {
            (NoProxy::Name(name), Host::Name(host)) => {
                host == name || host.strip_suffix(name.as_str()).is_some_and(|before| before.ends_with('.'))
            }
            (NoProxy::Network(network), host) => host.as_ip().is_some_and(|ip| network.contains(&ip)),
            (NoProxy::Name(_), _) => false,
        }
    }
}

/// The text is neither a name, nor an address, nor a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither a host name, nor an address, nor a network such as 10.0.0.0/8")]
pub struct NoProxyError;

impl FromStr for NoProxy {
    type Err = NoProxyError;

    fn from_str(text: &str) -> Result<NoProxy, NoProxyError> {
        if let Ok(network) = text.parse() {
            return Ok(NoProxy::Network(network));
        }
        match text.strip_prefix('.').unwrap_or(text).parse::<Host>().map_err(|_| NoProxyError)? {
            Host::Name(name) => Ok(NoProxy::Name(name)),
            Host::V4(ip) => Ok(NoProxy::Network(std::net::IpAddr::V4(ip).into())),
            Host::V6(ip) => Ok(NoProxy::Network(std::net::IpAddr::V6(ip).into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<(&str, Option<&str>)>| {
            let got = text.parse::<ProxyUrl>().ok();
            let got = got.map(|url| (url.to_string(), url.credentials().map(|both| both.to_string())));
            let got = got.as_ref().map(|(url, both)| (url.as_str(), both.as_deref()));
            assert_eq!(got, expected, "{text}");
        };
        check("http://proxy.corp:3128", Some(("http://proxy.corp:3128", None)));
        check("http://proxy.corp/", Some(("http://proxy.corp:80", None)));
        check("https://[2001:db8::1]:8443", Some(("https://[2001:db8::1]:8443", None)));
        check("http://me:p%40ss@proxy:3128", Some(("http://proxy:3128", Some("me:p@ss"))));
        check("http://me@proxy:3128", Some(("http://proxy:3128", Some("me:"))));
        check("http://me:a:b@proxy:3128", Some(("http://proxy:3128", Some("me:a:b"))));
        for bad in [
            "proxy:3128",
            "socks5://proxy:1080",
            "http://",
            "http://proxy:3128/path",
            "http://:pw@proxy:1",
            "http://a%3ab:pw@proxy:1",
            "http://a:%0d%0a@proxy:1",
            "http://proxy:0",
            "",
        ] {
            check(bad, None);
        }
        let url: ProxyUrl = "http://me:secret@proxy:1".parse().unwrap();
        assert!(!format!("{url:?} {url}").contains("secret"));
        let other = url.with_password(Zeroizing::new("other".to_owned())).unwrap();
        assert_eq!(other.credentials().unwrap().as_str(), "me:other");
        let nobody: ProxyUrl = "http://proxy:1".parse().unwrap();
        assert!(nobody.with_password(Zeroizing::new("x".to_owned())).is_err());
    }

    #[test]
    fn hosts_without_the_proxy() {
        let check = |entry: &str, host: &str, expected: bool| {
            let entry: NoProxy = entry.parse().unwrap();
            assert_eq!(entry.covers(&host.parse().unwrap()), expected, "{entry:?} {host}");
        };
        check("corp.test", "corp.test", true);
        check(".Corp.test", "a.b.corp.test", true);
        check("corp.test", "xcorp.test", false);
        check("corp.test", "corp.test.evil", false);
        check("10.0.0.0/8", "10.1.2.3", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("2001:db8::/32", "2001:db8::5", true);
        check("10.0.0.0/8", "ten.test", false);
        assert!("*".parse::<NoProxy>().is_err() && "a b".parse::<NoProxy>().is_err());
    }
}
