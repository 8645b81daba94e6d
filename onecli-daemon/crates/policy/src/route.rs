//! Decisions about connections, and the names that an agent may resolve.

use std::net::SocketAddr;
use std::sync::Arc;

use onecli_model::{AddressScope, Authority, Egress, Host, Refusal, Secret};

use super::decide::DecisionReason;
use super::identity::Identity;
use super::refusals::{denied_by, host_denied, removed};
use super::snapshot::Snapshot;

/// The most names that are resolved to check whether an address belongs to one of them.
const MOST_NAMES: usize = 16;

/// The decision about a connection whose destination is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Decrypt: a secret or a rule of the agent depends on the requests.
    Inspect,
    /// Forward the bytes unread.
    Tunnel {
        /// The addresses that it may connect to.
        address_scope: AddressScope,
        /// The reason for the decision.
        reason: DecisionReason,
    },
    /// Refuse.
    Deny(Refusal),
}

impl Snapshot {
    /// Decides a connection by its destination. Precedence:
    ///
    /// 1. a rule that denies all of it;
    /// 2. whether any request on it may be allowed;
    /// 3. whether its requests must be read;
    /// 4. a rule that allows all of it;
    /// 5. the agent's egress default.
    pub fn route(&self, identity: &Identity, authority: &Authority) -> Route {
        let stored = !self.stored_at(authority.host()).is_empty();
        self.route_stored(identity, authority, stored)
    }

    /// As [`Snapshot::route`]; `stored` says whether a response may contain a value.
    fn route_stored(&self, identity: &Identity, authority: &Authority, stored: bool) -> Route {
        let Some(view) = self.agent(identity.agent().id) else { return Route::Deny(removed()) };
        let connection = view.rules.for_connection(authority);
        if let Some(rule) = connection.deny {
            return Route::Deny(denied_by(rule, authority));
        }
        let secret = self.may_match(identity.agent().id, authority.host());
        let egress = identity.agent().egress;
        if !secret && !connection.may_allow && egress == Egress::Deny {
            return Route::Deny(host_denied(identity, authority, view.former_at(authority.host())));
        }
        // Values that any agent may have stored there must not come back unread, unless an administrator allows it.
        if secret || connection.inspect || (stored && connection.tunnel.is_none()) {
            return Route::Inspect;
        }
        match (connection.tunnel.or(connection.allow), egress) {
            (Some(rule), _) => {
                let address_scope = AddressScope {
                    open: connection.address_scope.open || egress == Egress::Allow,
                    ..connection.address_scope
                };
                Route::Tunnel { address_scope, reason: rule.as_ref().into() }
            }
            (None, Egress::Allow) => Route::Tunnel {
                address_scope: AddressScope { open: true, ..connection.address_scope },
                reason: DecisionReason::Default(egress),
            },
            // The requests must be read to find out whether they are allowed.
            (None, Egress::Deny) => Route::Inspect,
        }
    }

    /// Decides on unreadable bytes on a connection of which only the address is known. Returns the address itself
    /// and the names that a rule allows on its port, each with its address scope and cause. The caller must check that
    /// a fresh resolution of the name contains the address. Only a rule allows such bytes.
    pub fn unread(
        &self,
        identity: &Identity,
        address: SocketAddr,
    ) -> Vec<(Authority, AddressScope, DecisionReason)> {
        let Some(view) = self.agent(identity.agent().id) else { return Vec::new() };
        let literal = Host::from(address.ip());
        let names = view.rules.names_on(address.port(), MOST_NAMES);
        std::iter::once(&literal)
            .chain(names)
            .filter_map(|host| {
                let authority = Authority::new(host.clone(), address.port());
                let (address_scope, reason) = self.allows_unread(identity, &authority)?;
                Some((authority, address_scope, reason))
            })
            .collect()
    }

    /// Reports whether a rule allows unreadable bytes to this host and port. A secret for another port is ignored,
    /// because no value is injected into such bytes.
    pub fn allows_unread(
        &self,
        identity: &Identity,
        authority: &Authority,
    ) -> Option<(AddressScope, DecisionReason)> {
        let stored = self.is_stored_on(authority.host(), authority.port());
        match self.route_stored(identity, authority, stored) {
            Route::Tunnel { address_scope, reason: reason @ DecisionReason::Rule(..) } => {
                Some((address_scope, reason))
            }
            _ => None,
        }
    }

    /// Reports whether the agent may resolve this name.
    pub fn may_resolve(&self, identity: &Identity, host: &Host) -> bool {
        let Some(view) = self.agent(identity.agent().id) else { return false };
        match view.rules.may_allow(host) {
            None => false,
            Some(may_allow) => {
                may_allow
                    || identity.agent().egress == Egress::Allow
                    || self.may_match(identity.agent().id, host)
            }
        }
    }

    /// Reports whether an operator wrote this name, in a rule or a secret of the agent. The agent may have invented
    /// other names that it [may resolve](Self::may_resolve), and can leak data in them.
    pub fn is_written(&self, identity: &Identity, host: &Host) -> bool {
        let Some(view) = self.agent(identity.agent().id) else { return false };
        let is_it = |secret: &Arc<Secret>| secret.target.host.exact().any(|own| own == host);
        view.rules.name(host) || view.secrets.iter().any(is_it)
    }
}
