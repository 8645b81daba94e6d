//! A request that policy allowed, with the conditions.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use onecli_audit::Text;
use onecli_model::{AddressScope, Refusal, Rule};
use onecli_policy::{Decision, Grant, Identity, ScrubGrant};

use crate::http::body::Payload;
use crate::http::request::head::Head;
use crate::http::session_cookies::Presented;
use crate::limits::agent_quota::QuotaShare;
use crate::session::Session;
use crate::session::request_audit::RequestAudit;

/// A request that policy allowed.
pub(crate) struct AuthorizedRequest {
    pub(super) identity: Identity,
    pub(super) head: Head,
    pub(super) authorization: Authorization,
    pub(super) body: Payload,
    /// The agent's share of buffered bodies, if the body is in memory.
    pub(super) share: Option<QuotaShare>,
    pub(super) sessions: Presented,
    pub(super) client_upgrade: Option<OnUpgrade>,
    /// Set if the client waits for 100 (Continue).
    pub(super) expects_continue: bool,
}

/// The grants that policy gave to a request, with their conditions.
pub(super) struct Authorization {
    pub(super) grants: Vec<Grant>,
    /// The secrets whose sealed sessions may be opened.
    pub(super) sessions: Vec<Grant>,
    pub(super) values_to_scrub: Vec<ScrubGrant>,
    pub(super) approve: Option<Arc<Rule>>,
    pub(super) limits: Vec<Arc<Rule>>,
    pub(super) address_scope: AddressScope,
    is_ruled: bool,
    /// Set for a test by root, which needs no grant of an agent.
    pub(super) is_test: bool,
}

impl Authorization {
    /// Returns whether the decision depended on the request's content, or the response may contain a value.
    pub(super) fn is_judged(&self) -> bool {
        self.is_ruled || !self.values_to_scrub.is_empty()
    }

    /// The secrets whose credential or session the request carries.
    pub(super) fn used(&self) -> Vec<Grant> {
        let is_new = |own: &&Grant| !self.grants.iter().any(|grant| grant.secret().id == own.secret().id);
        self.grants.iter().chain(self.sessions.iter().filter(is_new)).cloned().collect()
    }

    /// Returns what the current policy allows.
    ///
    /// # Errors
    /// Policy's refusal.
    pub(super) fn ask(
        session: &Session,
        identity: &Identity,
        head: &Head,
        audit: &mut RequestAudit,
    ) -> Result<Authorization, Refusal> {
        let snapshot = session.policy.snapshot();
        let ruling = snapshot.decide(identity, &head.facts());
        audit.record().rule = ruling.reason.map(|reason| Text::new(&reason.to_string()));
        let grants = match ruling.decision {
            Decision::Inject(grants) => grants,
            Decision::Forward => Vec::new(),
            Decision::Deny(refusal) => return Err(refusal),
        };
        Ok(Authorization {
            grants,
            sessions: ruling.sessions,
            values_to_scrub: snapshot.values_to_scrub(identity, head.authority.host()),
            approve: ruling.approve,
            limits: ruling.limits,
            address_scope: ruling.address_scope,
            is_ruled: ruling.is_ruled,
            is_test: false,
        })
    }

    /// Returns the permission for a test by root.
    pub(super) fn of_test(grant: Grant, scrub_grant: ScrubGrant) -> Authorization {
        Authorization {
            grants: vec![grant],
            sessions: Vec::new(),
            values_to_scrub: vec![scrub_grant],
            approve: None,
            limits: Vec::new(),
            address_scope: AddressScope::open(),
            is_ruled: true,
            is_test: true,
        }
    }
}

impl AuthorizedRequest {
    /// Returns a request without a body that no client sent.
    pub(super) fn of_test(identity: Identity, head: Head, authorization: Authorization) -> AuthorizedRequest {
        AuthorizedRequest {
            identity,
            head,
            authorization,
            body: Payload::whole(bytes::Bytes::new()),
            share: None,
            sessions: Presented::default(),
            client_upgrade: None,
            expects_continue: false,
        }
    }
}
