//! Connections to upstreams: to a checked address, or through the operator's proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use onecli_model::{AddressScope, AgentId, Authority, Code, Host, NoProxy, ProxyUrl, Refusal};
use onecli_net::{
    CheckedAddr, DialError, Dialer, ProxyError, ResolveError, Resolver, Transport, connect_through,
    proxy_authorization,
};
use onecli_tls::{Alpn, UpstreamTls};
use uuid::Uuid;

const PROXY_HINT: &str = "ask an administrator to check [upstream] proxy in the configuration";

/// The operator's proxy, and the hosts that bypass it.
#[derive(Debug, Clone)]
pub struct UpstreamProxy {
    /// The address of the proxy.
    pub url: ProxyUrl,
    /// Hosts that are dialled directly.
    pub bypass: Vec<NoProxy>,
}

impl UpstreamProxy {
    /// Returns whether `host` is reached through the proxy.
    pub fn is_for(&self, host: &Host) -> bool {
        !self.bypass.iter().any(|entry| entry.covers(host))
    }
}

/// Opens connections to upstreams.
#[derive(Debug)]
pub(crate) struct UpstreamConnector {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) dialer: Dialer,
    pub(crate) tls: Arc<UpstreamTls>,
    pub(crate) proxy: Option<UpstreamProxy>,
}

/// An open connection to an upstream.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Transport>,
    /// The upstream's address, or the proxy's.
    pub(crate) address: SocketAddr,
    /// Set if a proxy reads the requests.
    pub(crate) relay: Option<Relay>,
}

/// A proxy that gets requests in absolute-form (RFC 9112 section 3.2.2), with the credentials it requires.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) authorization: Option<HeaderValue>,
}

impl UpstreamConnector {
    /// Opens a connection that carries bytes to `authority` unread: TLS of the daemon or of the agent. Rules allow it
    /// in `address_scope`.
    ///
    /// # Errors
    /// A [`Refusal`]: unresolvable, blocked, unreachable.
    pub(crate) async fn open(
        &self,
        authority: &Authority,
        address_scope: &AddressScope,
    ) -> Result<Opened, Refusal> {
        let Some(proxy) = self.proxy_for(authority) else { return self.dial(authority, address_scope).await };
        self.open_through(proxy, authority, address_scope).await
    }

    /// Opens such a connection for bytes that an agent sent to `wanted`. Returns `None` if that is not an address of
    /// `authority`.
    ///
    /// # Errors
    /// As [`UpstreamConnector::open`].
    pub(crate) async fn open_at(
        &self,
        authority: &Authority,
        address_scope: &AddressScope,
        wanted: SocketAddr,
    ) -> Result<Option<Opened>, Refusal> {
        let wanted = SocketAddr::new(wanted.ip().to_canonical(), wanted.port());
        let mut addresses =
            self.resolver.resolve(authority, address_scope).await.map_err(|error| resolve_refusal(&error))?;
        addresses.retain(|address| address.get() == wanted);
        if addresses.is_empty() {
            return Ok(None);
        }
        if let Some(proxy) = self.proxy_for(authority) {
            let literal = Authority::new(Host::from(wanted.ip()), wanted.port());
            return self.open_through(proxy, &literal, address_scope).await.map(Some);
        }
        let (stream, address) = self.connect(&addresses).await.map_err(|error| dial_refusal(&error))?;
        Ok(Some(Opened { stream, address, relay: None }))
    }

    /// Returns whether a pooled connection to `authority`, at this address, may serve requests that rules allow in
    /// `address_scope`.
    pub(crate) fn admits(
        &self,
        authority: &Authority,
        address: SocketAddr,
        address_scope: &AddressScope,
    ) -> bool {
        match self.proxy_for(authority) {
            Some(_) => self.resolver.check_for_proxy(authority, address_scope).is_ok(),
            None => self.resolver.admits(address, address_scope),
        }
    }

    async fn open_through(
        &self,
        proxy: &ProxyUrl,
        authority: &Authority,
        address_scope: &AddressScope,
    ) -> Result<Opened, Refusal> {
        let (stream, address) = self.connect_proxy(proxy, authority, address_scope).await?;
        let connected = connect_through(stream, proxy, authority);
        let stream = match tokio::time::timeout(self.dialer.connect_timeout, connected).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return Err(proxy_refusal(proxy, authority, &error)),
            Err(_) => return Err(timed_out("the upstream proxy")),
        };
        Ok(Opened { stream, address, relay: None })
    }

    /// Opens a connection for plain HTTP requests to `authority`.
    ///
    /// # Errors
    /// As [`UpstreamConnector::open`].
    pub(crate) async fn open_plain(
        &self,
        authority: &Authority,
        address_scope: &AddressScope,
    ) -> Result<Opened, Refusal> {
        let Some(proxy) = self.proxy_for(authority) else { return self.dial(authority, address_scope).await };
        let (stream, address) = self.connect_proxy(proxy, authority, address_scope).await?;
        let relay = Relay { authorization: proxy_authorization(proxy) };
        Ok(Opened { stream, address, relay: Some(relay) })
    }

    fn proxy_for(&self, authority: &Authority) -> Option<&ProxyUrl> {
        let proxy = self.proxy.as_ref()?;
        proxy.is_for(authority.host()).then_some(&proxy.url)
    }

    async fn dial(&self, authority: &Authority, address_scope: &AddressScope) -> Result<Opened, Refusal> {
        let addresses =
            self.resolver.resolve(authority, address_scope).await.map_err(|error| resolve_refusal(&error))?;
        let (stream, address) = self.connect(&addresses).await.map_err(|error| dial_refusal(&error))?;
        Ok(Opened { stream, address, relay: None })
    }

    async fn connect(
        &self,
        addresses: &[CheckedAddr],
    ) -> Result<(Box<dyn Transport>, SocketAddr), DialError> {
        let (tcp, address) = self.dialer.dial(addresses).await?;
        Ok((Box::new(tcp), address))
    }

    /// Connects to the proxy itself.
    async fn connect_proxy(
        &self,
        proxy: &ProxyUrl,
        authority: &Authority,
        address_scope: &AddressScope,
    ) -> Result<(Box<dyn Transport>, SocketAddr), Refusal> {
        self.resolver.check_for_proxy(authority, address_scope).map_err(|error| resolve_refusal(&error))?;
        let unreachable = |error: &dyn std::fmt::Display| {
            Refusal::new(Code::UpstreamConnect, format!("the upstream proxy: {error}"), PROXY_HINT)
        };
        let own = proxy.authority();
        let addresses = self.resolver.resolve_proxy(own).await.map_err(|error| unreachable(&error))?;
        let (stream, address) = self.connect(&addresses).await.map_err(|error| unreachable(&error))?;
        if !proxy.is_tls() {
            return Ok((stream, address));
        }
        // Uses no agent's id, because TLS sessions with the proxy belong to the daemon.
        let handshake = self.tls.connect(AgentId(Uuid::nil()), own, Alpn::Http1, stream);
        match tokio::time::timeout(self.dialer.connect_timeout, handshake).await {
            Ok(Ok(verified)) => Ok((Box::new(verified), address)),
            Ok(Err(error)) => {
                Err(Refusal::new(Code::UpstreamTls, format!("the upstream proxy: {error}"), error.hint()))
            }
            Err(_) => Err(timed_out("the TLS handshake with the upstream proxy")),
        }
    }
}

fn proxy_refusal(proxy: &ProxyUrl, authority: &Authority, error: &ProxyError) -> Refusal {
    Refusal::new(
        Code::UpstreamConnect,
        format!("the upstream proxy {} could not connect to {authority}: {error}", proxy.authority()),
        PROXY_HINT,
    )
}

pub(crate) fn resolve_refusal(error: &ResolveError) -> Refusal {
    match error {
        ResolveError::Blocked(_) => Refusal::new(
            Code::AddressBlocked,
            error.to_string(),
            "ask an administrator to allow the network: onecli rule add allow --host HOST --address NETWORK",
        ),
        ResolveError::Failed { .. } => Refusal::new(
            Code::UpstreamResolve,
            error.to_string(),
            "check the host's name, and the DNS servers of the host that OneCLI runs on",
        ),
    }
}

pub(crate) fn dial_refusal(error: &DialError) -> Refusal {
    match error {
        DialError::Refused { .. } => {
            Refusal::new(Code::UpstreamConnect, error.to_string(), "check the upstream and its port")
        }
        DialError::TimedOut(_) => timed_out("connecting"),
    }
}

pub(crate) fn timed_out(what: &str) -> Refusal {
    Refusal::new(
        Code::UpstreamTimeout,
        format!("{what} timed out"),
        "try again, and check that the upstream is running",
    )
}
