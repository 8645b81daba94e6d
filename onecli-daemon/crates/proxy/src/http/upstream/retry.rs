//! Decides whether a request without a response is sent again.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::send_failure::SendFailure;

/// How often a request is sent again that the upstream did not process.
const MAX_RETRIES: u32 = 5;
/// The pause before the second retry; it doubles with each retry. The first retry follows at once, on another
/// connection.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The retries of one request.
#[derive(Debug)]
pub(crate) struct Retries {
    /// RFC 9110 section 9.2.2: sending the request twice has the same effect as sending it once.
    is_idempotent: bool,
    /// Number of attempts that the upstream provably did not process.
    unprocessed: u32,
    /// Set if the request was sent again although the upstream may have processed it.
    was_repeated: bool,
    /// The time limit, counted from the first failure.
    limit: Duration,
    until: Option<Instant>,
}

impl Retries {
    /// Returns the retries of a request with `method`. No attempt begins later than `limit` after the first failure.
    pub(crate) fn new(method: &Method, limit: Duration) -> Retries {
        Retries {
            is_idempotent: method.is_idempotent(),
            unprocessed: 0,
            was_repeated: false,
            limit,
            until: None,
        }
    }

    /// The pause before the next attempt, which uses a new connection. `None` if there is no further attempt. The
    /// last attempt failed at `now`.
    pub(crate) fn after(
        &mut self,
        failure: &SendFailure,
        was_reused: bool,
        now: Instant,
    ) -> Option<Duration> {
        let until = *self.until.get_or_insert(now + self.limit);
        let pause = match failure {
            SendFailure::Unprocessed(_) => self.pause()?,
            // The upstream may have closed the idle connection before it received the request (RFC 9112 section
            // 9.3.1).
            SendFailure::Silent(_) if was_reused && self.is_idempotent && !self.was_repeated => {
                self.was_repeated = true;
                Duration::ZERO
            }
            SendFailure::Silent(_) | SendFailure::Failed(_) => return None,
        };
        // The first retry ignores the limit, because the failure itself may have taken longer.
        let is_first = self.unprocessed + u32::from(self.was_repeated) == 1;
        (is_first || now + pause <= until).then_some(pause)
    }

    fn pause(&mut self) -> Option<Duration> {
        let before = self.unprocessed;
        self.unprocessed += 1;
        match before {
            0 => Some(Duration::ZERO),
            MAX_RETRIES.. => None,
            _ => Some(FIRST_PAUSE * 2u32.pow(before - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn error() -> hyper::Error {
        let (client, server) = tokio::io::duplex(64);
        drop(server);
        let io = hyper_util::rt::TokioIo::new(client);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = http::Request::new(http_body_util::Empty::<bytes::Bytes>::new());
        let error = sender.send_request(request).await.unwrap_err();
        let _ = connection.await;
        error
    }

    #[tokio::test]
    async fn unprocessed_request_is_sent_again_five_times() {
        let failure = SendFailure::Unprocessed(error().await.into());
        let mut retries = Retries::new(&Method::POST, Duration::from_secs(5));
        let now = Instant::now();
        let pauses: Vec<_> = (0..7).map(|_| retries.after(&failure, false, now)).collect();
        let millis = |millis| Some(Duration::from_millis(millis));
        assert_eq!(pauses, [millis(0), millis(50), millis(100), millis(200), millis(400), None, None]);
    }

    #[tokio::test]
    async fn retries_end_at_the_limit() {
        let failure = SendFailure::Unprocessed(error().await.into());
        let mut retries = Retries::new(&Method::GET, Duration::from_millis(120));
        let start = Instant::now();
        let mut at = |millis| retries.after(&failure, false, start + Duration::from_millis(millis)).is_some();
        assert!(at(0));
        assert!(at(70));
        assert!(!at(71));
    }

    #[tokio::test]
    async fn silent_failure_is_retried_once_if_idempotent_and_reused() {
        let failure = SendFailure::Silent(error().await.into());
        let check = |method: Method, was_reused: bool, expected: [bool; 2]| {
            let mut retries = Retries::new(&method, Duration::from_secs(5));
            let got = [(); 2].map(|()| retries.after(&failure, was_reused, Instant::now()).is_some());
            assert_eq!(got, expected, "{method} {was_reused}");
        };
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE]
        {
            check(method.clone(), true, [true, false]);
            check(method, false, [false, false]);
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, "FROB".parse().unwrap()] {
            check(method.clone(), true, [false, false]);
            check(method, false, [false, false]);
        }
    }

    #[tokio::test]
    async fn failure_after_the_first_byte_is_not_retried() {
        let failure = SendFailure::Failed(error().await.into());
        let mut retries = Retries::new(&Method::GET, Duration::from_secs(5));
        assert_eq!(retries.after(&failure, true, Instant::now()), None);
    }
}
