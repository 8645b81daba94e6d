//! Tracks the values of one host while a response streams.

use std::sync::Arc;
use std::time::Duration;

use onecli_model::Host;
use onecli_policy::Snapshot;
use onecli_vault::Credentials;
use tokio::sync::watch;

use super::search_set::SearchSet;
use super::sets::ScrubValues;
use crate::http::scrub::{Needles, Scrubber, SecretUpdates, Wanted};

/// The values that responses of a host are searched for, under the current policy.
///
/// A value is in the policy, or counted by [`Credentials::changes`], before a request carries it to an upstream. So a
/// response that checks this before each chunk is searched for every value that the chunk can contain.
#[derive(Clone)]
pub(crate) struct Followed {
    values: Arc<ScrubValues>,
    host: Host,
    /// Reports a change while there is a policy that has not been checked.
    policy: watch::Receiver<Arc<Snapshot>>,
    set: Arc<SearchSet>,
    /// The value of [`Credentials::changes`] at the last check.
    changes: u64,
    /// The needles for new responses.
    current: Arc<Needles>,
    /// The needles for this response, including replaced values.
    searched: Arc<Needles>,
    flush_after: Option<Duration>,
}

impl Followed {
    /// Tracks the values for responses of `host`.
    pub(crate) fn new(values: &Arc<ScrubValues>, host: &Host) -> Followed {
        let mut policy = values.policy.clone();
        let snapshot = Arc::clone(&policy.borrow_and_update());
        Followed {
            set: values.at(&snapshot, host),
            values: Arc::clone(values),
            host: host.clone(),
            policy,
            changes: 0,
            current: Arc::default(),
            searched: Arc::default(),
            flush_after: None,
        }
    }

    /// The host's values.
    pub(crate) fn set(&self) -> &Arc<SearchSet> {
        &self.set
    }

    pub(super) fn credentials(&self) -> &Arc<Credentials> {
        &self.values.credentials
    }

    /// Returns a scrubber for `current`, the values after `changes` changes, and for all newer values.
    pub(super) fn scrubber(mut self, current: Arc<Needles>, changes: u64) -> Scrubber {
        self.flush_after = self.set.flush_after();
        (self.searched, self.current, self.changes) = (Arc::clone(&current), current, changes);
        Scrubber::following(self.wanted(), Box::new(self))
    }

    fn wanted(&self) -> Wanted {
        let has_issued = self.set.issued().next().is_some();
        Wanted { needles: Arc::clone(&self.searched), flush_after: self.flush_after, has_issued }
    }

    /// Adopts the set of the newest policy. Returns whether it is a different set.
    fn take_set(&mut self) -> bool {
        let snapshot = Arc::clone(&self.policy.borrow_and_update());
        let set = self.values.at(&snapshot, &self.host);
        if Arc::ptr_eq(&set, &self.set) {
            return false;
        }
        self.flush_after = match (self.flush_after, set.flush_after()) {
            // Bytes that may begin replaced values wait as long as before.
            (Some(one), Some(other)) if !self.searched.is_empty() => Some(one.max(other)),
            (None, _) if !self.searched.is_empty() => None,
            (_, of_new) => of_new,
        };
        self.set = set;
        true
    }
}

impl SecretUpdates for Followed {
    fn take_changed(&mut self) -> Option<Wanted> {
        // The counter is read before the values, so that no value is missed.
        let changes = self.values.credentials.changes();
        let is_new_policy = self.policy.has_changed().unwrap_or(false);
        if changes == self.changes && !is_new_policy {
            return None;
        }
        self.changes = changes;
        let is_new_set = is_new_policy && self.take_set();
        let current = self.set.current(&self.values.credentials);
        if !is_new_set && Arc::ptr_eq(&current, &self.current) {
            return None;
        }
        self.searched = self.values.joined(&self.searched, &self.current, &current);
        self.current = current;
        Some(self.wanted())
    }
}
