//! Values that come back in responses to requests that did not send them.
//!
//! A value can come back so only if it was stored at the service, or if an agent guessed it: the mask confirms a guess. So
//! each such match raises an alert, and an agent that causes many gets no more responses with matches for a while.

use std::collections::VecDeque;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::gateway::Gateway;
use super::scrub::{MatchGuard, Needles, spellings};
use super::scrub_values::SearchSet;
use crate::audit::{Record, Text};
use crate::model::{AgentId, Code, Refusal, Secret, SecretValue, WireForm};
use crate::policy::Watch;
use crate::vault::Credential;

/// So many matches of an agent in this time are masked; then responses with matches are cut off for as long.
const MOST: usize = 20;
const WINDOW: Duration = Duration::from_mins(10);
/// Agents whose matches are remembered, each with less than 1 KiB.
const AGENTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Counts unexpected matches by agent. A restart forgets the counts.
#[derive(Debug)]
pub(super) struct UnexpectedMatches(Mutex<LruCache<AgentId, Matches>>);

#[derive(Debug, Default)]
struct Matches {
    recent: VecDeque<Instant>,
    cut_until: Option<Instant>,
}

impl UnexpectedMatches {
    pub(super) fn new() -> UnexpectedMatches {
        UnexpectedMatches(Mutex::new(LruCache::new(AGENTS)))
    }

    /// Counts a match in a response to this agent. True: the response is to be cut off. It depends on the number of matches
    /// and on time, and on nothing else.
    pub(super) fn note(&self, agent: AgentId, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let matches = all.get_or_insert_mut(agent, Matches::default);
        if matches.cut_until.is_some_and(|end| now < end) {
            return true;
        }
        matches.recent.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        matches.recent.push_back(now);
        if matches.recent.len() >= MOST {
            matches.recent.clear();
            matches.cut_until = Some(now + WINDOW);
        }
        false
    }
}

/// What the sender of the request is told, if it can still be told anything.
pub(super) fn withheld() -> Refusal {
    Refusal::new(
        Code::ResponseWithheld,
        "the response holds a credential that the request did not send, and the agent got too many such responses",
        "wait ten minutes; an administrator finds the requests with 'onecli audit list --code secret_returned'",
    )
}

/// Watches over the response to one request.
pub(super) struct ResponseGuard {
    gateway: Arc<Gateway>,
    agent: AgentId,
    /// The request, as it was decided.
    record: Record,
    searched: Arc<SearchSet>,
    sent: Vec<Credential>,
    signatures: Vec<SecretValue>,
    /// Spellings of what the request sent, and of other tokens of the same secrets. Made at the first match, and again when
    /// so many tokens were issued.
    expected: Option<(u64, Needles)>,
}

impl ResponseGuard {
    /// For the request of `record`, with which `sent` and `signatures` left.
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        agent: AgentId,
        record: &Record,
        searched: &Arc<SearchSet>,
        (sent, signatures): (Vec<Credential>, Vec<SecretValue>),
    ) -> ResponseGuard {
        let (gateway, searched) = (Arc::clone(gateway), Arc::clone(searched));
        ResponseGuard { gateway, agent, record: record.clone(), searched, sent, signatures, expected: None }
    }

    fn expected(&mut self) -> &Needles {
        let issued = self.gateway.credentials.purchases();
        if self.expected.as_ref().is_none_or(|(known, _)| *known != issued) {
            let mut needles = Needles::default();
            needles.extend(spellings(&self.expected_forms()));
            self.expected = Some((issued, needles));
        }
        &self.expected.get_or_insert_default().1
    }

    /// A token takes the place of another while a response is under way: both are the agent's to send.
    fn expected_forms(&self) -> Vec<WireForm> {
        let is_sent = |watch: &&Watch| self.sent.iter().any(|one| *one.name() == watch.secret().name);
        let placed = self.sent.iter().flat_map(|one| one.placement().wire_forms(one.value()));
        let signed = self.signatures.iter().flat_map(WireForm::plain);
        let issued = self.searched.issued().filter(is_sent);
        let tokens = issued.flat_map(|watch| self.gateway.credentials.issued_forms(watch));
        placed.chain(signed).chain(tokens).collect()
    }

    /// Raises an alert, which is folded with others like it.
    fn alert(&self, owner: Option<&Secret>, detail: Option<&str>) {
        let Gateway { refusals, clock, quota, audit, .. } = self.gateway.as_ref();
        let mut alert = self.record.clone();
        alert.alert(Code::SecretReturned);
        if let Some(detail) = detail {
            alert.rule = Some(Text::new(detail));
        }
        let now = clock.instant();
        let may_write =
            || quota.take(now, self.agent, (1, alert.line_bytes()), audit.space_is_scarce()).is_ok();
        if !refusals.note(now, (&alert, self.agent), &self.gateway.snapshot(), may_write) {
            return;
        }
        alert.secret = owner.map(|secret| Text::new(secret.name.as_str()));
        alert.secret_version = owner.map(|secret| secret.version);
        audit.outcome(alert);
    }
}

impl MatchGuard for ResponseGuard {
    fn matched(&mut self, matched: &[u8]) -> bool {
        if self.expected().is_in(matched) {
            return false;
        }
        self.alert(self.searched.owner(matched), None);
        self.gateway.unexpected.note(self.agent, self.gateway.clock.instant())
    }

    fn nearly_matched(&mut self, text: &[u8]) -> bool {
        if self.expected().is_end_in(text) {
            return false;
        }
        self.alert(None, Some("the end of a value"));
        self.gateway.unexpected.note(self.agent, self.gateway.clock.instant())
    }
}

impl fmt::Debug for ResponseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseGuard(..)")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::{Clock as _, SystemClock};

    #[test]
    fn responses_are_cut_after_twenty_matches_for_ten_minutes() {
        let (matches, start) = (UnexpectedMatches::new(), SystemClock.instant());
        let (one, other) = (AgentId(Uuid::from_u128(1)), AgentId(Uuid::from_u128(2)));
        for _ in 0..MOST {
            assert!(!matches.note(one, start));
        }
        assert!(matches.note(one, start), "the next one");
        assert!(!matches.note(other, start), "another agent");
        assert!(matches.note(one, start + WINDOW.saturating_sub(Duration::from_secs(1))));
        assert!(!matches.note(one, start + WINDOW), "they pass again");
    }

    #[test]
    fn matches_that_are_spread_out_cut_nothing() {
        let (matches, start) = (UnexpectedMatches::new(), SystemClock.instant());
        let agent = AgentId(Uuid::from_u128(1));
        for n in 0..200 {
            assert!(!matches.note(agent, start + WINDOW / 18 * n), "{n}");
        }
    }
}
