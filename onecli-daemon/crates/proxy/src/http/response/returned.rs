//! Values that appear in responses to requests that did not send them.
//!
//! This happens only if a value was stored at the service, or if an agent guessed it, because the mask confirms a
//! guess. So each such match raises an alert. An agent that causes many gets no more responses with matches for a
//! while.

use std::fmt;
use std::sync::Arc;

use onecli_audit::{Record, Text};
use onecli_model::{AgentId, Code, Host, Refusal, Secret, SecretValue, WireForm};
use onecli_policy::ScrubGrant;
use onecli_vault::Credential;

use crate::http::context::handles::Http;
use crate::http::scrub::{MatchGuard, Needles, spellings};
use crate::http::scrub_values::SearchSet;
use crate::session::recorder::Recorder;
use crate::session::request_audit::RequestAudit;

/// The refusal that the client gets, if its response has not begun.
pub(crate) fn withheld() -> Refusal {
    Refusal::new(
        Code::ResponseWithheld,
        "the response contains a credential that the request did not send, and the agent got too many such \
         responses",
        "wait ten minutes; an administrator can find the requests with 'onecli audit list --code \
         secret_returned'",
    )
}

/// Checks the response to one request for unexpected values.
pub(crate) struct ResponseGuard {
    http: Arc<Http>,
    recorder: Arc<Recorder>,
    agent: AgentId,
    /// The request, as recorded with its decision.
    record: Record,
    host: Host,
    /// The values that the host's responses were searched for when the request was sent.
    searched: Arc<SearchSet>,
    sent: Vec<Credential>,
    signatures: Vec<SecretValue>,
    /// Built at the first match, and rebuilt when values changed.
    expected: Option<Expected>,
}

/// Spellings of the values that the request sent, and of other values of the same secrets.
#[derive(Default)]
struct Expected {
    needles: Needles,
    /// The search set and the number of changes that they were built from.
    searched: Arc<SearchSet>,
    changes: u64,
}

impl ResponseGuard {
    /// Returns the guard for the request of `audit` to this host, which sent `sent` and `signatures`.
    pub(crate) fn new(
        http: &Arc<Http>,
        agent: AgentId,
        audit: &RequestAudit,
        (host, searched): (&Host, &Arc<SearchSet>),
        (sent, signatures): (Vec<Credential>, Vec<SecretValue>),
    ) -> ResponseGuard {
        let (http, recorder) = (Arc::clone(http), Arc::clone(audit.recorder()));
        let (record, host, searched) = (audit.copy(), host.clone(), Arc::clone(searched));
        ResponseGuard { http, recorder, agent, record, host, searched, sent, signatures, expected: None }
    }

    fn expected(&mut self) -> &Needles {
        let changes = self.http.secrets.credentials.changes();
        let searched = self.http.secrets.scrub_values.searched(&self.host);
        let is_current =
            |known: &Expected| known.changes == changes && Arc::ptr_eq(&known.searched, &searched);
        if !self.expected.as_ref().is_some_and(is_current) {
            let needles = self.expected_needles(&searched);
            self.expected = Some(Expected { needles, searched, changes });
        }
        &self.expected.get_or_insert_default().needles
    }

    /// A new value or token may replace the sent one while a response streams. The agent may send either.
    fn expected_needles(&self, searched: &SearchSet) -> Needles {
        let is_sent = |grant: &ScrubGrant| self.sent.iter().any(|one| *one.name() == grant.secret().name);
        let placed = self.sent.iter().flat_map(|one| one.placement().wire_forms(one.value()));
        let signed = self.signatures.iter().flat_map(WireForm::plain);
        let credentials = &self.http.secrets.credentials;
        let issued = searched.issued().filter(|grant| is_sent(grant));
        let tokens = issued.flat_map(|grant| credentials.issued_forms(grant));
        let fetched = searched.fetched().filter(|grant| is_sent(grant));
        let values = fetched.flat_map(|grant| credentials.fetched_forms(self.agent, grant));
        let forms: Vec<WireForm> = placed.chain(signed).chain(tokens).chain(values).collect();
        let mut needles = Needles::default();
        needles.extend(spellings(&forms));
        needles.extend(searched.placed(is_sent));
        needles
    }

    /// Raises an alert. Similar alerts are folded.
    fn alert(&self, owner: Option<&Secret>, detail: Option<&str>) {
        let mut alert = self.record.clone();
        alert.alert(Code::SecretReturned);
        if let Some(detail) = detail {
            alert.rule = Some(Text::new(detail));
        }
        if !self.recorder.counts_alert(&alert, self.agent) {
            return;
        }
        alert.secret = owner.map(|secret| Text::new(secret.name.as_str()));
        alert.secret_version = owner.map(|secret| secret.version);
        self.recorder.audit.outcome(alert);
    }
}

impl MatchGuard for ResponseGuard {
    fn matched(&mut self, matched: &[u8]) -> bool {
        if self.expected().is_in(matched) {
            return false;
        }
        let current = self.http.secrets.scrub_values.searched(&self.host);
        self.alert(current.owner(matched).or_else(|| self.searched.owner(matched)), None);
        self.http.secrets.unexpected.note(self.agent, self.recorder.clock.instant())
    }

    fn nearly_matched(&mut self, text: &[u8]) -> bool {
        if self.expected().is_end_in(text) {
            return false;
        }
        self.alert(None, Some("the end of a value"));
        self.http.secrets.unexpected.note(self.agent, self.recorder.clock.instant())
    }
}

impl fmt::Debug for ResponseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseGuard(..)")
    }
}
