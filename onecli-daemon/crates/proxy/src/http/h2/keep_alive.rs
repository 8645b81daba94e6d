//! Finds peers that disappeared silently, by PING (RFC 9113 section 6.7).

use std::time::Duration;

use h2::{Ping, PingPong};

use crate::limits::capped::Received;

/// How long a PING may remain unanswered.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Resolves when the peer does not answer a PING. A PING is sent if nothing was `received` for an `interval`, unless
/// `is_idle`.
pub(super) async fn lost(
    mut pings: PingPong,
    received: Received,
    interval: Duration,
    is_idle: impl Fn() -> bool,
) {
    loop {
        received.reset();
        tokio::time::sleep(interval).await;
        if received.any() || is_idle() {
            continue;
        }
        let answered = tokio::time::timeout(ANSWER_TIME, pings.ping(Ping::opaque())).await;
        if !matches!(answered, Ok(Ok(_))) {
            return;
        }
    }
}
