//! Waits for the policy or the time that ends a permission.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use onecli_model::Clock;
use onecli_policy::{ClientEvidence, Snapshot};
use tokio::sync::watch;

/// Longest and shortest wait for a session's end. The host's clock may be changed, and the host may sleep.
const LONGEST: Duration = Duration::from_mins(1);
const SHORTEST: Duration = Duration::from_millis(10);

/// Resolves when a new policy, or the end of the session in `evidence`, makes `refused` true. If that is already so,
/// it resolves immediately.
pub(crate) async fn until_refused(
    mut policy: watch::Receiver<Arc<Snapshot>>,
    clock: &dyn Clock,
    evidence: &ClientEvidence,
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
    use onecli_policy::CaptureMode;
    use onecli_sys::SystemClock;

    use super::*;

    /// The content of the policies is irrelevant here, because `refused` only counts.
    #[tokio::test]
    async fn every_new_policy_is_checked() {
        let policy = watch::Sender::new(Arc::new(Snapshot::default()));
        let evidence = ClientEvidence { mode: CaptureMode::Explicit, cgroup: None, token: None };
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
        let evidence = ClientEvidence { mode: CaptureMode::Explicit, cgroup: None, token: Some(token) };
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
