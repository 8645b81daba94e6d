//! What happens to a connection, and which names an agent may resolve.

use std::net::SocketAddr;
use std::sync::Arc;

use onecli_model::{Authority, Egress, Host, Reach, Refusal, Secret};

use super::decide::Cause;
use super::identity::Identity;
use super::refusals::{denied_by, host_denied, removed};
use super::snapshot::Snapshot;

/// Names that are resolved to find out whether an address is one of theirs.
const MOST_NAMES: usize = 16;

/// What happens to a connection, once it is known where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Decrypt: a secret or a rule of the agent has to see what is asked for.
    Inspect,
    /// Pass the bytes on, unread.
    Tunnel {
        /// To these addresses.
        reach: Reach,
        /// Because of this.
        cause: Cause,
    },
    /// Refuse.
    Deny(Refusal),
}

impl Snapshot {
    /// Decides a connection by where it goes. Precedence: a rule that denies all of it; whether anything on it may be
    /// allowed; whether that takes reading it; a rule that allows all of it; the agent's egress default.
    pub fn route(&self, identity: &Identity, authority: &Authority) -> Route {
        let stored = !self.stored_at(authority.host()).is_empty();
        self.route_stored(identity, authority, stored)
    }

    /// The same, where `stored` tells whether a value may be in what comes back.
    fn route_stored(&self, identity: &Identity, authority: &Authority, stored: bool) -> Route {
        let Some(view) = self.agent(identity.agent().id) else { return Route::Deny(removed()) };
        let whole = view.rules.whole(authority);
        if let Some(rule) = whole.deny {
            return Route::Deny(denied_by(rule, authority));
        }
        let secret = self.may_match(identity.agent().id, authority.host());
        let egress = identity.agent().egress;
        if !secret && !whole.hopeful && egress == Egress::Deny {
            return Route::Deny(host_denied(identity, authority, view.former_at(authority.host())));
        }
        // What any agent may have left there must not come back unread, unless an administrator says so.
        if secret || whole.inspect || (stored && whole.tunnel.is_none()) {
            return Route::Inspect;
        }
        match (whole.tunnel.or(whole.allow), egress) {
            (Some(rule), _) => {
                let reach = Reach { open: whole.reach.open || egress == Egress::Allow, ..whole.reach };
                Route::Tunnel { reach, cause: rule.as_ref().into() }
            }
            (None, Egress::Allow) => {
                Route::Tunnel { reach: Reach { open: true, ..whole.reach }, cause: Cause::Default(egress) }
            }
            // What may be allowed then is known only once it is read.
            (None, Egress::Deny) => Route::Inspect,
        }
    }

    /// For bytes that cannot be read on a connection of which only the address is known: the address itself, and the
    /// names that a rule allows on its port, each with what rules say of it. A name counts where a fresh resolution of it
    /// holds the address. Nothing but a rule allows such bytes.
    pub fn unread(&self, identity: &Identity, address: SocketAddr) -> Vec<(Authority, Reach, Cause)> {
        let Some(view) = self.agent(identity.agent().id) else { return Vec::new() };
        let literal = Host::from(address.ip());
        let names = view.rules.names_on(address.port(), MOST_NAMES);
        std::iter::once(&literal)
            .chain(names)
            .filter_map(|host| {
                let authority = Authority::new(host.clone(), address.port());
                let (reach, cause) = self.allows_unread(identity, &authority)?;
                Some((authority, reach, cause))
            })
            .collect()
    }

    /// Does a rule allow bytes that cannot be read to this host and port? A secret for another port does not count: no value
    /// is put into such bytes.
    pub fn allows_unread(&self, identity: &Identity, authority: &Authority) -> Option<(Reach, Cause)> {
        let stored = self.is_stored_on(authority.host(), authority.port());
        match self.route_stored(identity, authority, stored) {
            Route::Tunnel { reach, cause: cause @ Cause::Rule(..) } => Some((reach, cause)),
            _ => None,
        }
    }

    /// May the agent learn the addresses of this name?
    pub fn may_resolve(&self, identity: &Identity, host: &Host) -> bool {
        let Some(view) = self.agent(identity.agent().id) else { return false };
        match view.rules.hope(host) {
            None => false,
            Some(hopeful) => {
                hopeful
                    || identity.agent().egress == Egress::Allow
                    || self.may_match(identity.agent().id, host)
            }
        }
    }

    /// Is the name one that an operator wrote, in a rule or a secret of the agent? Other names that it [may
    /// resolve](Self::may_resolve) it may have made up, and can say something by them.
    pub fn is_written(&self, identity: &Identity, host: &Host) -> bool {
        let Some(view) = self.agent(identity.agent().id) else { return false };
        let is_it = |secret: &Arc<Secret>| secret.target.host.exact().any(|own| own == host);
        view.rules.name(host) || view.secrets.iter().any(is_it)
    }
}
