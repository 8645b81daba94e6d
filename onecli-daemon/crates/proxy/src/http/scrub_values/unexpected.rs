//! Counts values that appear in responses to requests that did not send them.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use onecli_model::AgentId;
use parking_lot::Mutex;

/// This many matches of an agent are masked within this time. After that, responses with matches are withheld for the
/// same time.
const MOST: usize = 20;
const WINDOW: Duration = Duration::from_mins(10);
/// Number of agents whose matches are stored, each in less than 1 KiB.
const AGENTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Counts unexpected matches by agent. A restart resets the counts.
#[derive(Debug)]
pub(crate) struct UnexpectedMatches(Mutex<LruCache<AgentId, Matches>>);

#[derive(Debug, Default)]
struct Matches {
    recent: VecDeque<Instant>,
    cut_until: Option<Instant>,
}

impl UnexpectedMatches {
    pub(crate) fn new() -> UnexpectedMatches {
        UnexpectedMatches(Mutex::new(LruCache::new(AGENTS)))
    }

    /// Counts a match in a response to this agent. Returns true if the response must be cut off. The result depends
    /// only on the number of matches and on time.
    pub(crate) fn note(&self, agent: AgentId, now: Instant) -> bool {
        let mut all = self.0.lock();
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

#[cfg(test)]
mod tests {
    use onecli_model::Clock as _;
    use onecli_sys::SystemClock;
    use uuid::Uuid;

    use super::*;

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
        assert!(!matches.note(one, start + WINDOW), "responses pass again");
    }

    #[test]
    fn infrequent_matches_cut_no_response() {
        let (matches, start) = (UnexpectedMatches::new(), SystemClock.instant());
        let agent = AgentId(Uuid::from_u128(1));
        for n in 0..200 {
            assert!(!matches.note(agent, start + WINDOW / 18 * n), "{n}");
        }
    }
}
