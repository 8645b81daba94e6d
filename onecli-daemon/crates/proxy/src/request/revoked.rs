//! Revocation of open exchanges: streams, tunnels and upgraded connections end when policy no longer allows them.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use onecli_model::{AgentId, Clock, Code, Refusal, SecretId};
use onecli_policy::{Evidence, Grant, Snapshot};
use tokio::sync::watch;

use super::head::Head;
use crate::context::gateway::Gateway;
use crate::session::connection::Connection;

/// Longest and shortest wait for a session's end. The host's clock may be changed, and the host may sleep.
const LONGEST: Duration = Duration::from_mins(1);
const SHORTEST: Duration = Duration::from_millis(10);

/// Resolves when the permission for one exchange is revoked: see [`Snapshot::still_allows`].
pub(crate) struct Revoked(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Revoked {
    /// Returns the future for the request `head`, which used `grants` and is sent to `address`.
    pub(crate) fn new(
        gateway: &Arc<Gateway>,
        connection: &Arc<Connection>,
        agent: AgentId,
        head: &Head,
        grants: &[Grant],
        address: SocketAddr,
    ) -> Revoked {
        let (gateway, connection) = (Arc::clone(gateway), Arc::clone(connection));
        let head = head.clone_facts();
        let used: Vec<SecretId> = grants.iter().map(|grant| grant.secret().id).collect();
        Revoked(Box::pin(async move {
            let evidence = &connection.evidence;
            gateway
                .until_refused(evidence, |snapshot, now| {
                    snapshot
                        .still_allows(evidence, now, agent, &head.facts(), &used)
                        .is_none_or(|reach| !gateway.pool.outward().admits(&head.authority, address, &reach))
                })
                .await;
        }))
    }

    /// Returns the future for a test by root. It resolves when the daemon stops.
    pub(crate) fn of_test(gateway: &Arc<Gateway>, connection: &Arc<Connection>) -> Revoked {
        let (gateway, connection) = (Arc::clone(gateway), Arc::clone(connection));
        Revoked(Box::pin(async move { gateway.until_refused(&connection.evidence, |_, _| false).await }))
    }

    /// The refusal that the client gets, if its response has not begun. `code` is from [`Gateway::taken_back`].
    pub(crate) fn refusal(code: Code) -> Refusal {
        if code == Code::Interrupted {
            return Refusal::new(code, "the daemon is stopping", "try again in a moment");
        }
        Refusal::new(
            code,
            "the permission for the request was revoked while it was running",
            "an administrator revoked a grant, changed a rule, disabled the agent or let the session end",
        )
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revoked(..)")
    }
}

impl Future for Revoked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// Resolves when a new policy, or the end of the session in `evidence`, makes `refused` true. If that is already so,
/// it resolves immediately.
pub(crate) async fn until_refused(
    mut policy: watch::Receiver<Arc<Snapshot>>,
    clock: &dyn Clock,
    evidence: &Evidence,
    refused: impl Fn(&Snapshot, Timestamp) -> bool,
) {
    loop {
        let snapshot = Arc::clone(&policy.borrow_and_update());
        let now = clock.now();
        if refused(&snapshot, now) {
            return;
        }
        let end = snapshot.session_end(evidence);
        drop(snapshot);
        let ended = async {
            match end {
                Some(end) => tokio::time::sleep(until(end, now)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = policy.changed() => if changed.is_err() { return },
            () = ended => {}
        }
    }
}

fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default().clamp(SHORTEST, LONGEST)
}

#[cfg(test)]
mod tests {
    use onecli_model::TokenHash;
    use onecli_policy::Mode;
    use onecli_sys::SystemClock;

    use super::*;

    /// The content of the policies is irrelevant here, because `refused` only counts.
    #[tokio::test]
    async fn every_new_policy_is_checked() {
        let policy = watch::Sender::new(Arc::new(Snapshot::default()));
        let evidence = Evidence { mode: Mode::Explicit, cgroup: None, token: None };
        let asked = std::sync::atomic::AtomicU32::new(0);
        let refused = |_: &Snapshot, _| asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2;
        let waiting = until_refused(policy.subscribe(), &SystemClock, &evidence, refused);
        tokio::pin!(waiting);
        for _ in 0..2 {
            let early = tokio::time::timeout(Duration::from_millis(20), &mut waiting).await;
            assert!(early.is_err(), "nothing was revoked yet");
            policy.send_replace(Arc::new(Snapshot::default()));
        }
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
    }

    /// A session's end changes no policy; only time triggers it.
    #[tokio::test]
    async fn session_ends_by_time_alone() {
        let token = TokenHash([7; 32]);
        let end = SystemClock.now() + jiff::SignedDuration::from_millis(300);
        let policy = watch::Sender::new(Arc::new(onecli_policy::testing::with_session(token, end)));
        let evidence = Evidence { mode: Mode::Explicit, cgroup: None, token: Some(token) };
        let refused = |snapshot: &Snapshot, now: Timestamp| snapshot.identify(&evidence, now).is_err();
        let waiting = until_refused(policy.subscribe(), &SystemClock, &evidence, refused);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap();
        assert!(SystemClock.now() >= end);
    }

    #[test]
    fn session_waits_are_bounded() {
        let now = Timestamp::UNIX_EPOCH;
        let check = |millis: i64, expected: Duration| {
            assert_eq!(until(now + jiff::SignedDuration::from_millis(millis), now), expected, "{millis}");
        };
        check(-5, SHORTEST);
        check(0, SHORTEST);
        check(500, Duration::from_millis(500));
        check(86_400_000, LONGEST);
    }
}
