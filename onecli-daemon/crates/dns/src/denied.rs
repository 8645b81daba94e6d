//! Names that an agent may not resolve and that are answered with an address at which the daemon returns the reason.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onecli_model::{Code, Host};

/// The TTL of such an answer, in seconds. If an operator allows the name, it must soon resolve to its own addresses.
pub(super) const TTL: u32 = 1;
/// The time that a query waits for its connection before it gets a record of its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// The maximum number of waiting names of one agent, 20 KiB. Further ones are recorded like repeated refusals.
const WAITING: usize = 64;

/// First labels of names that stay refused: programs query these on their own and continue without an answer. They
/// are proxies of the network (WPAD) and metadata services of clouds, also with a search domain appended.
const FIRST_LABELS: [&str; 3] = ["wpad", "metadata", "instance-data"];
/// Last labels of names that stay refused: reverse names and other infrastructure (RFC 3172), names that must not
/// exist (RFC 6761 section 6.4), and Tor names (RFC 7686).
const LAST_LABELS: [&str; 3] = ["arpa", "invalid", "onion"];
/// Firefox queries this name to find out whether it may use DNS over HTTPS. An address means yes.
const CANARY: &str = "use-application-dns.net";

/// Returns whether a denied name is answered with an address. All other names stay refused. A single label is refused
/// because search domains may complete it.
pub(super) fn is_explained(host: &Host) -> bool {
    let Some(name) = host.as_name() else { return false };
    let (Some((first, _)), Some((_, last))) = (name.split_once('.'), name.rsplit_once('.')) else {
        return false;
    };
    !FIRST_LABELS.contains(&first) && !LAST_LABELS.contains(&last) && name != CANARY
}

/// Denied queries without a connection so far. The record of a connection also covers its query.
#[derive(Debug, Default)]
pub(super) struct PendingQueries(HashMap<(Host, Code), Waiting>);

#[derive(Debug)]
struct Waiting {
    since: Instant,
    count: u64,
}

/// Queries of one name without a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnconnectedQuery {
    pub(super) name: Host,
    pub(super) code: Code,
    /// The number of queries, at least one.
    pub(super) count: u64,
}

impl PendingQueries {
    /// Counts a query. Returns false if too many names wait; this query must then be recorded in another way.
    pub(super) fn note(&mut self, now: Instant, name: &Host, code: Code) -> bool {
        let key = (name.clone(), code);
        if self.0.len() >= WAITING && !self.0.contains_key(&key) {
            return false;
        }
        self.0.entry(key).or_insert(Waiting { since: now, count: 0 }).count += 1;
        true
    }

    /// Removes and returns the queries that have waited long enough. `was_connected` returns whether a connection to
    /// a name arrived since then.
    pub(super) fn due(
        &mut self,
        now: Instant,
        was_connected: impl Fn(&Host, Instant) -> bool,
    ) -> Vec<UnconnectedQuery> {
        self.take(was_connected, |waiting| now.duration_since(waiting.since) >= PATIENCE)
    }

    /// Removes and returns all queries.
    pub(super) fn rest(&mut self, was_connected: impl Fn(&Host, Instant) -> bool) -> Vec<UnconnectedQuery> {
        self.take(was_connected, |_| true)
    }

    fn take(
        &mut self,
        was_connected: impl Fn(&Host, Instant) -> bool,
        is_over: impl Fn(&Waiting) -> bool,
    ) -> Vec<UnconnectedQuery> {
        let mut alone = Vec::new();
        self.0.retain(|(name, code), waiting| {
            if was_connected(name, waiting.since) {
                return false;
            }
            if is_over(waiting) {
                alone.push(UnconnectedQuery { name: name.clone(), code: *code, count: waiting.count });
                return false;
            }
            true
        });
        alone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_programs_query_on_their_own_stay_refused() {
        for (name, expected) in [
            ("example.com", true),
            ("a.b.example.com", true),
            ("printer.local", true),
            ("metadatas.example.com", true),
            ("single", false),
            ("wpad.corp.example", false),
            ("metadata.google.internal", false),
            ("metadata.google.internal.corp.example", false),
            ("instance-data.ec2.internal", false),
            ("1.2.0.192.in-addr.arpa", false),
            ("8.b.d.0.1.0.0.2.ip6.arpa", false),
            ("ipv4only.arpa", false),
            ("nothing.invalid", false),
            ("hidden.onion", false),
            ("use-application-dns.net", false),
        ] {
            assert_eq!(is_explained(&name.parse().unwrap()), expected, "{name}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a reference time")]
    fn denied_query_is_recorded_unless_a_connection_follows() {
        let (start, mut queries) = (Instant::now(), PendingQueries::default());
        let name = |n: usize| -> Host { format!("n{n}.test").parse().unwrap() };
        assert!((0..WAITING).all(|n| queries.note(start, &name(n), Code::EgressDenied)));
        assert!(queries.note(start, &name(0), Code::EgressDenied), "the same name again");
        assert!(!queries.note(start, &name(WAITING), Code::EgressDenied), "one name beyond the limit");
        assert!(queries.due(start + PATIENCE / 2, |_, _| false).is_empty(), "not yet");
        let due = queries.due(start + PATIENCE, |host, since| *host != name(0) && since == start);
        assert_eq!(due, [UnconnectedQuery { name: name(0), code: Code::EgressDenied, count: 2 }]);
        assert!(queries.rest(|_, _| false).is_empty(), "a connection covers its query");
        assert!(queries.note(start, &name(1), Code::AgentDisabled));
        assert_eq!(queries.rest(|_, _| false).len(), 1);
    }
}
