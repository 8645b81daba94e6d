//! `Expect: 100-continue` (RFC 9110 section 10.1.1): the client sends its body when it gets 100 (Continue).
//!
//! The first read of the body sends the 100: hyper does so over HTTP/1.1, [`crate::http::h2`] over HTTP/2. If the daemon
//! refuses a request without reading its body, the client gets the final status only. The body of an allowed request
//! waits at a [`Gate`] for the upstream.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::header::{self, HeaderValue};
use http::{Request, StatusCode, Version};
use onecli_model::{Code, Refusal};

/// How long the daemon waits for a 100 or a final status from the upstream. Then it sends the body, like a client
/// that gets no 100.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// The only expectation that HTTP defines.
pub(crate) const CONTINUE: HeaderValue = HeaderValue::from_static("100-continue");

/// Returns whether `value` is `100-continue`.
pub(crate) fn is_continue(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(CONTINUE.as_bytes())
}

/// Returns whether the client of `request` waits for 100 (Continue).
///
/// # Errors
/// [`Code::ExpectationFailed`] for any other expectation.
pub(crate) fn expects_continue<B>(request: &Request<B>) -> Result<bool, Refusal> {
    let mut values = request.headers().get_all(header::EXPECT).iter().peekable();
    let is_expected = values.peek().is_some();
    if let Some(other) = values.find(|value| !is_continue(value)) {
        return Err(Refusal::new(
            Code::ExpectationFailed,
            format!(
                "the request has the unsupported expectation '{}'",
                String::from_utf8_lossy(other.as_bytes())
            ),
            "send 'Expect: 100-continue', or no Expect field: no other expectation is defined (RFC 9110 \
             section 10.1.1)",
        ));
    }
    Ok(is_expected && request.version() > Version::HTTP_10)
}

const WAITING: u8 = 0;
const OPEN: u8 = 1;
const CLOSED: u8 = 2;

/// Delays a request's body until the upstream wants it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// One of the constants above. It changes once.
    state: AtomicU8,
    body: AtomicWaker,
}

impl Gate {
    /// Lets the body pass, unless the gate is closed.
    fn open(&self) {
        if self.leave_waiting(OPEN) {
            self.0.body.wake();
        }
    }

    /// Reports that a final response arrived. Returns true if the body had not been let through; it is then never
    /// sent.
    pub(crate) fn close(&self) -> bool {
        self.leave_waiting(CLOSED)
    }

    fn leave_waiting(&self, to: u8) -> bool {
        self.0.state.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Returns whether the body still waits, so that the daemon must request a 100 from the upstream.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == WAITING
    }

    /// Reports an interim response of the upstream with this status.
    pub(crate) fn interim(&self, status: StatusCode) {
        if status == StatusCode::CONTINUE {
            self.open();
        }
    }

    /// Ready when the body may be read.
    pub(super) fn poll_open(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.body.register(cx.waker());
        if self.0.state.load(Ordering::Acquire) == OPEN { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits for the result of `sending`, and opens the gate if that takes too long.
    pub(crate) async fn until<T>(gate: Option<&Gate>, sending: impl Future<Output = T>) -> T {
        let mut sending = pin!(sending);
        if let Some(gate) = gate.filter(|gate| gate.is_waiting()) {
            match tokio::time::timeout(CONTINUE_TIMEOUT, &mut sending).await {
                Ok(sent) => return sent,
                Err(_) => gate.open(),
            }
        }
        sending.await
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn only_100_continue_is_accepted() {
        let check = |version: Version, values: &[&str], expected: Result<bool, Code>| {
            let mut request = Request::builder().version(version);
            for value in values {
                request = request.header(header::EXPECT, *value);
            }
            let got = expects_continue(&request.body(()).unwrap()).map_err(|refusal| refusal.code);
            assert_eq!(got, expected, "{version:?} {values:?}");
        };
        for version in [Version::HTTP_11, Version::HTTP_2] {
            check(version, &[], Ok(false));
            check(version, &["100-continue"], Ok(true));
            check(version, &["100-Continue"], Ok(true));
            check(version, &["100-continue", "100-continue"], Ok(true));
            for other in ["", "200-ok", "100-continue, x", "100-continue;q=1"] {
                check(version, &[other], Err(Code::ExpectationFailed));
                check(version, &["100-continue", other], Err(Code::ExpectationFailed));
            }
        }
        check(Version::HTTP_10, &["100-continue"], Ok(false));
    }

    fn is_open(gate: &Gate) -> bool {
        gate.poll_open(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn gate_opens_only_for_100() {
        let gate = Gate::default();
        assert!(!is_open(&gate));
        gate.interim(StatusCode::EARLY_HINTS);
        assert!(!is_open(&gate));
        gate.interim(StatusCode::CONTINUE);
        assert!(is_open(&gate));
        assert!(!gate.close(), "the body was let through");
        assert!(is_open(&gate));
    }

    #[tokio::test]
    async fn gate_closed_by_a_final_response_stays_closed() {
        let gate = Gate::default();
        assert!(gate.close());
        gate.interim(StatusCode::CONTINUE);
        assert!(!is_open(&gate));
    }

    #[tokio::test]
    async fn gate_opens_when_the_upstream_is_silent() {
        let (gate, start) = (Gate::default(), tokio::time::Instant::now());
        let opened = std::future::poll_fn(|cx| gate.poll_open(cx));
        Gate::until(Some(&gate), opened).await;
        assert!(start.elapsed() >= CONTINUE_TIMEOUT);
    }
}
