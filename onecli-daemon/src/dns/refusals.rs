//! Refused names of one agent, folded: a program that asks again and again, or for ever other names, fills neither the
//! log nor the memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::Code;

/// A name has at most one record in this time.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Names that are told apart; those beyond share one record.
const NAMES: usize = 32;

/// What is recorded, and what waits to be.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    names: HashMap<(String, Code), Folded>,
    others: Option<Folded>,
}

#[derive(Debug)]
struct Folded {
    recorded: Instant,
    since: u64,
}

/// Refusals that one record stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    /// `None`: of several names.
    pub(super) name: Option<String>,
    pub(super) code: Code,
    pub(super) count: u64,
}

impl Refusals {
    /// Counts a refusal. True: it wants a record of its own, now.
    pub(super) fn note(&mut self, now: Instant, name: &str, code: Code) -> bool {
        let key = (name.to_owned(), code);
        if let Some(folded) = self.names.get_mut(&key) {
            folded.since += 1;
            return false;
        }
        if self.names.len() < NAMES {
            self.names.insert(key, Folded { recorded: now, since: 0 });
            return true;
        }
        self.others.get_or_insert(Folded { recorded: now, since: 0 }).since += 1;
        false
    }

    /// What has waited long enough. To be called now and then.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Repeated> {
        self.take(now, WINDOW)
    }

    /// All that waits, when there will be no later call.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<Repeated> {
        self.take(now, Duration::ZERO)
    }

    fn take(&mut self, now: Instant, window: Duration) -> Vec<Repeated> {
        let mut due = Vec::new();
        let mut keep = |folded: &mut Folded, name: Option<&String>, code: Code| {
            if now.duration_since(folded.recorded) < window {
                return true;
            }
            let count = std::mem::take(&mut folded.since);
            folded.recorded = now;
            if count > 0 {
                due.push(Repeated { name: name.cloned(), code, count });
            }
            count > 0
        };
        self.names.retain(|(name, code), folded| keep(folded, Some(name), *code));
        self.others.take_if(|folded| !keep(folded, None, Code::EgressDenied));
        due
    }
}
