//! A refusal from the audit log, and whether the current policy still refuses it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Method;
use onecli_model::{Authority, CanonicalPath, Code, Host, Operations, PathReadings};
use onecli_policy::{Decision, Identity, RequestFacts, Route, Snapshot};
use serde::Deserialize;

/// The port in the record of a DNS query.
const DNS_PORT: u16 = 53;

/// The fields of a record that matter here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct RefusedAccess {
    pub(super) code: Option<String>,
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) address: Option<String>,
    #[serde(default)]
    pub(super) count: Option<u64>,
}

impl RefusedAccess {
    pub(super) fn is(&self, code: Code) -> bool {
        self.code.as_deref() == Some(code.as_str())
    }

    /// Returns whether a name was refused before any connection.
    pub(super) fn is_dns(&self) -> bool {
        self.port == Some(DNS_PORT) && self.address.is_none() && self.method.is_none()
    }

    /// Returns the destination of the connection according to the kernel.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        self.address.as_ref()?.parse().ok()
    }

    /// Returns the requested host; for a connection without a name, its address.
    pub(super) fn host(&self) -> Option<Host> {
        match &self.host {
            Some(host) => host.parse().ok(),
            None => self.destination().map(|address| Host::from(address.ip())),
        }
    }

    /// Returns the requested port; `None` for a name only.
    pub(super) fn port(&self) -> Option<u16> {
        if self.is_dns() {
            return None;
        }
        Some(self.port.or(self.destination().map(|address| address.port())).unwrap_or(443))
    }

    /// Returns the method and path; `None` for a connection whose content was not read.
    pub(super) fn request(&self) -> Option<(&str, &str)> {
        let method = self.method.as_deref().filter(|method| *method != "CONNECT")?;
        Some((method, self.path.as_deref()?))
    }
}

/// The current policy for one agent.
pub(super) struct CurrentPolicy {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) identity: Identity,
}

impl CurrentPolicy {
    /// Returns whether the current policy refuses the same access. Returns true if that cannot be determined.
    pub(super) fn refuses(&self, refused: &RefusedAccess) -> bool {
        let Some(host) = refused.host() else { return true };
        let Some(port) = refused.port() else { return !self.snapshot.may_resolve(&self.identity, &host) };
        if refused.is(Code::ProtocolDenied) {
            return self.refuses_unread(refused, host, port);
        }
        let authority = Authority::new(host, port);
        match refused.request() {
            Some((method, path)) => self.refuses_request(refused, &authority, method, path),
            None => matches!(self.snapshot.route(&self.identity, &authority), Route::Deny(_)),
        }
    }

    fn refuses_unread(&self, refused: &RefusedAccess, host: Host, port: u16) -> bool {
        match refused.destination() {
            Some(address) => self.snapshot.unread(&self.identity, address).is_empty(),
            None => self.snapshot.allows_unread(&self.identity, &Authority::new(host, port)).is_none(),
        }
    }

    fn refuses_request(
        &self,
        refused: &RefusedAccess,
        authority: &Authority,
        method: &str,
        path: &str,
    ) -> bool {
        let (Ok(method), Ok(path)) = (Method::from_bytes(method.as_bytes()), CanonicalPath::parse(path))
        else {
            return true;
        };
        let outcome = self.snapshot.decide(
            &self.identity,
            &RequestFacts {
                method: &method,
                authority,
                path: PathReadings::new(&path),
                tls: authority.port() != 80,
                named: &[],
                placeholders: &[],
                body: &[],
                operations: &Operations::default(),
                sessions: &[],
            },
        );
        // The host's addresses are not known here. Assume that a network named by a rule contains them.
        let is_blocked = refused.is(Code::AddressBlocked) && outcome.address_scope.allowed.is_empty();
        is_blocked || matches!(outcome.decision, Decision::Deny(_))
    }
}
