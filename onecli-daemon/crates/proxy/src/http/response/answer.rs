//! Delivers the upstream's response to the agent: scrubs it while it streams, and records the outcome at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use onecli_audit::Text;
use onecli_model::{Code, Refusal};
use onecli_policy::Snapshot;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::issued::{Issued, Stage};
use super::ranges::Ranges;
use super::returned::withheld;
use super::scrubbed::{Fault, ScrubbedBody, data_len};
use crate::http::body::peer_body::PeerBody;
use crate::http::body::{Body, BodyError, Progress};
use crate::http::context::connection::HttpConnection;
use crate::http::context::handles::Http;
use crate::http::decode::{NotDecoded, Source, is_encoded};
use crate::http::fields::names::ERROR_HEADER;
use crate::http::fields::trailers::Announced;
use crate::http::request::head::strip_hop_by_hop;
use crate::http::request::revoked::Revoked;
use crate::http::scrub::{Records, Scrubber};
use crate::http::session_cookies;
use crate::http::session_cookies::Sessions;
use crate::http::upstream::pool::Upstream;
use crate::limits::idle_timeout::IdleTimeout;
use crate::session::counters::Counters;
use crate::session::request_audit::RequestAudit;

/// State that the delivery of a response needs.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) http: Arc<Http>,
    pub(crate) connection: Arc<HttpConnection>,
    pub(crate) audit: RequestAudit,
    pub(crate) ranges: Ranges,
    pub(crate) issued: Issued,
    pub(crate) scrubber: Scrubber,
    pub(crate) upstream: Upstream,
    pub(crate) progress: Arc<Progress>,
    pub(crate) revoked: Revoked,
    pub(crate) sessions: Sessions,
}

impl Delivery {
    /// Replaces the sessions in the headers of a response, and writes the counts to its record.
    pub(crate) fn seal_sessions(&mut self, headers: &mut HeaderMap) {
        session_cookies::seal(&mut self.sessions, &self.http.secrets.vault, self.audit.record(), headers);
    }
}

/// A response that the agent does not get, with the audit record that must report this.
#[derive(Debug)]
pub(crate) struct Undelivered {
    pub(crate) refusal: Refusal,
    pub(crate) audit: RequestAudit,
}

impl Undelivered {
    pub(crate) fn new(refusal: Refusal, audit: RequestAudit) -> Box<Undelivered> {
        Box::new(Undelivered { refusal, audit })
    }
}

/// Turns the upstream's response into the agent's.
///
/// # Errors
/// [`Code::UpstreamProtocol`] if the body has a coding that cannot be scanned.
pub(crate) fn deliver(
    method: &Method,
    response: Response<PeerBody>,
    mut delivery: Delivery,
) -> Result<Response<Body>, Box<Undelivered>> {
    let (mut parts, incoming) = response.into_parts();
    // A reason phrase is stored as an extension. Only the status, scrubbed headers and the body are forwarded.
    parts.extensions.clear();
    delivery.scrubber.renew();
    let is_whole_only = delivery.ranges.is_whole_only(&delivery.scrubber);
    if !delivery.scrubber.is_idle() && has_transfer_coding(&parts.headers) {
        return Err(Undelivered::new(cannot_be_scanned("transfer coding"), delivery.audit));
    }
    if !delivery.scrubber.is_idle() && parts.status == StatusCode::PARTIAL_CONTENT && is_whole_only {
        // This part may hold half of a value and the next response the other half. A server may send a part only
        // after a Range (RFC 9110 section 15.3.7).
        let refusal = Refusal::new(
            Code::UpstreamProtocol,
            "the upstream returned a partial response (206) that was not requested",
            "OneCLI cannot search a partial response for the credential: request a resource that is \
             returned whole",
        );
        return Err(Undelivered::new(refusal, delivery.audit));
    }
    if !delivery.scrubber.is_idle() && has_message_coding(&parts.headers) {
        return Err(Undelivered::new(cannot_be_scanned("message coding (grpc-encoding)"), delivery.audit));
    }
    if parts.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED && delivery.upstream.relay().is_some() {
        // The agent sees the daemon as its proxy, and the agent's own token was valid.
        let refusal = Refusal::new(
            Code::UpstreamConnect,
            "the upstream proxy rejected the daemon's credentials (407)",
            "ask an administrator to check [upstream] proxy in the configuration",
        );
        return Err(Undelivered::new(refusal, delivery.audit));
    }
    let is_searched = !delivery.scrubber.is_idle() || !delivery.issued.is_idle(&parts.headers);
    let source = if !is_searched || !has_body(method, parts.status) {
        Source::Plain(incoming)
    } else {
        let (decoders, agent) = (&delivery.http.bodies.decoders, delivery.audit.payer());
        match Source::decode(&mut parts.headers, incoming, || decoders.take(agent)) {
            Ok(source) => source,
            Err(NotDecoded::Unknown) => {
                return Err(Undelivered::new(cannot_be_scanned("content coding"), delivery.audit));
            }
            Err(NotDecoded::Busy) => return Err(Undelivered::new(too_many_decoders(), delivery.audit)),
        }
    };
    if is_unsearchable(parts.status, &parts.headers) {
        delivery.scrubber.pass_unsearched();
    }
    delivery.ranges.correct(&delivery.scrubber, &mut parts.headers);
    let trailers = Announced::of_response(&parts.headers);
    clean_headers(&mut parts.headers);
    if let Some(trailer) = trailers.field() {
        parts.headers.insert(header::TRAILER, trailer);
    }
    if parts.status == StatusCode::NO_CONTENT {
        // RFC 9110 section 8.6 forbids the field here, and HTTP/2 clients would report a missing body.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    // Cookies are sealed first. A service may copy the credential into a cookie, and must get that cookie back
    // unchanged.
    delivery.seal_sessions(&mut parts.headers);
    delivery.issued.headers(&mut parts.headers);
    delivery.scrubber.headers(&mut parts.headers);
    if delivery.scrubber.is_cut() {
        return Err(Undelivered::new(withheld(), delivery.audit));
    }
    delivery.scrubber.split_into(Records::of(&parts.headers));
    let record = delivery.audit.record();
    record.status = Some(parts.status.as_u16());
    // The kernel and HTTP/2 notice a dead peer long before this timeout.
    let idle_timeout = IdleTimeout::new(delivery.connection.session.upstreams.timeouts.idle);
    let Delivery { http, connection, audit, issued, scrubber, upstream, progress, revoked, sessions, .. } =
        delivery;
    let source = issued.stage(parts.status, &parts.headers, source);
    let streaming = Streaming {
        policy: connection.session.policy.subscribe(),
        body: ScrubbedBody::new(source, scrubber, idle_timeout, !has_body(method, parts.status)),
        delivery: Some(Box::new(Delivering { http, connection, audit, upstream, progress, sessions })),
        bytes_out: 0,
        taken_back: None,
        waiting: None,
    };
    Ok(Response::from_parts(parts, Answer::new(streaming, revoked).boxed_unsync()))
}

/// Removes hop-by-hop headers, the daemon's own error mark, and headers that direct the agent to another service
/// around the proxy.
pub(crate) fn clean_headers(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::ALT_SVC);
    headers.remove(ERROR_HEADER);
}

fn has_body(method: &Method, status: StatusCode) -> bool {
    *method != Method::HEAD && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Returns whether there is a transfer coding besides `chunked`, which hyper decodes (RFC 9112 section 6.1).
fn has_transfer_coding(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Returns whether gRPC messages are compressed individually. The request did not allow any message coding.
fn has_message_coding(headers: &HeaderMap) -> bool {
    headers.get_all("grpc-encoding").iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Returns whether a body that passes with these headers can never be searched. Codings that the daemon decoded are
/// no longer in the headers.
fn is_unsearchable(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::PARTIAL_CONTENT
        || has_transfer_coding(headers)
        || has_message_coding(headers)
        || is_encoded(headers)
}

/// The reason for ending a running response that cannot be searched.
fn unsearchable() -> Refusal {
    Refusal::new(
        Code::Revoked,
        "a secret was stored for the host, and this response has an encoding that cannot be searched for it",
        "send the request again: the daemon then requests a response that it can search",
    )
}

/// The message does not quote the upstream's text, because it may contain the value.
fn cannot_be_scanned(what: &str) -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the upstream's response has a {what} that the daemon cannot decode"),
        "OneCLI cannot search such a response for the credential: request a resource that is not stored \
         encoded",
    )
}

fn too_many_decoders() -> Refusal {
    Refusal::new(
        Code::LimitReached,
        "the limit on Brotli and zstd responses that are decoded at the same time is reached",
        "read the open ones to their end, or let the upstream send gzip or no coding",
    )
}

/// State that is needed while the body streams.
struct Delivering {
    http: Arc<Http>,
    connection: Arc<HttpConnection>,
    audit: RequestAudit,
    upstream: Upstream,
    progress: Arc<Progress>,
    sessions: Sessions,
}

/// The body of a response. At its end, the outcome is recorded and the connection returns to the pool. If it is
/// dropped earlier, the outcome reports that.
///
/// hyper polls a body only while the client reads. A separate task therefore watches the permission for the response.
/// When the permission is revoked, the upstream's side ends at once, and the agent's side ends at the next poll. No
/// frame passes under a policy that has not been checked.
struct Answer {
    streaming: Arc<Mutex<Streaming>>,
    watching: Option<AbortHandle>,
}

impl Answer {
    fn new(mut streaming: Streaming, mut revoked: Revoked) -> Answer {
        if streaming.is_end() {
            return Answer { streaming: Arc::new(Mutex::new(streaming)), watching: None };
        }
        streaming.policy.mark_unchanged();
        if Pin::new(&mut revoked).poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            streaming.take_back();
            return Answer { streaming: Arc::new(Mutex::new(streaming)), watching: None };
        }
        let streaming = Arc::new(Mutex::new(streaming));
        let watched = Arc::clone(&streaming);
        let watching = tokio::spawn(std::future::poll_fn(move |cx| {
            let mut streaming = lock(&watched);
            loop {
                // This order is required: a policy must be marked as seen before it is checked. The loop repeats if a
                // newer policy arrived meanwhile, because a policy that was already marked as seen wakes no task.
                streaming.policy.mark_unchanged();
                if Pin::new(&mut revoked).poll(cx).is_ready() {
                    streaming.take_back();
                    return Poll::Ready(());
                }
                if streaming.body.is_blind_now() {
                    streaming.end(Code::Revoked);
                    return Poll::Ready(());
                }
                if !streaming.policy.has_changed().unwrap_or(false) {
                    break;
                }
            }
            if let Some(waiting) = streaming.waiting.take() {
                waiting.wake();
            }
            Poll::Pending
        }));
        Answer { streaming, watching: Some(watching.abort_handle()) }
    }
}

fn lock(streaming: &Mutex<Streaming>) -> MutexGuard<'_, Streaming> {
    streaming.lock()
}

/// A body that is being streamed.
struct Streaming {
    body: ScrubbedBody<Stage<Source>>,
    delivery: Option<Box<Delivering>>,
    bytes_out: u64,
    /// Reports a change while there is a policy that has not been checked.
    policy: watch::Receiver<Arc<Snapshot>>,
    /// The reason for an early end, until the agent's side has reported it.
    taken_back: Option<Code>,
    /// The task that waits for the next frame.
    waiting: Option<Waker>,
}

impl Streaming {
    /// Ends the body, because the permission for it was revoked.
    fn take_back(&mut self) {
        let Some(delivery) = &self.delivery else { return };
        let code = delivery.connection.session.lifecycle.revoked_code();
        self.end(code);
    }

    fn end(&mut self, code: Code) {
        self.failed(code);
        self.body.cut();
        self.taken_back = Some(code);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn account(&mut self, delivery: &mut Delivering) {
        if let Some(source) = self.body.source() {
            source.report(&mut delivery.audit);
        }
        let scrubber = self.body.scrubber();
        let record = delivery.audit.record();
        record.bytes_in = Some(delivery.progress.bytes());
        record.bytes_out = Some(self.bytes_out);
        if !scrubber.is_idle() {
            record.scrub_hits = Some(scrubber.hits());
        }
        Counters::add(&delivery.connection.session.recorder.counters.scrub_hits, scrubber.hits());
    }

    /// Records that the whole response was read.
    fn complete(&mut self) {
        if let Some(mut delivery) = self.delivery.take() {
            self.account(&mut delivery);
            delivery.audit.close();
            let Delivering { http, upstream, .. } = *delivery;
            http.pool.release(upstream);
        }
    }

    fn failed(&mut self, code: Code) {
        if let Some(mut delivery) = self.delivery.take() {
            self.account(&mut delivery);
            // The record retains the status that the agent saw; the code reports that the body broke off.
            let status = delivery.audit.record().status;
            delivery.audit.record().code = Some(Text::new(code.as_str()));
            delivery.audit.record().status = status;
            delivery.audit.close();
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut streaming = lock(&self.streaming);
        let polled = streaming.poll(cx);
        if polled.is_pending() && !streaming.waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            streaming.waiting = Some(cx.waker().clone());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.streaming).is_end()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.streaming).size_hint()
    }
}

impl Streaming {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(code) = self.taken_back.take() {
            return Poll::Ready(Some(Err(Revoked::refusal(code).into())));
        }
        if self.policy.has_changed().is_ok_and(|changed| changed) {
            return Poll::Pending;
        }
        let frame = match std::task::ready!(self.body.poll_frame(cx)) {
            Some(Ok(frame)) => match &self.delivery {
                Some(delivery) => session_cookies::strip_trailers(&delivery.sessions, frame),
                None => frame,
            },
            None => {
                self.complete();
                return Poll::Ready(None);
            }
            Some(Err(Fault::Silent)) => {
                self.failed(Code::UpstreamTimeout);
                return Poll::Ready(Some(Err("the upstream was silent for too long".into())));
            }
            Some(Err(Fault::Withheld)) => {
                self.failed(Code::ResponseWithheld);
                self.body.cut();
                return Poll::Ready(Some(Err(withheld().into())));
            }
            Some(Err(Fault::Unsearchable)) => {
                self.failed(Code::Revoked);
                self.body.cut();
                return Poll::Ready(Some(Err(unsearchable().into())));
            }
            Some(Err(Fault::Upstream(error))) => {
                self.failed(Code::UpstreamProtocol);
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.bytes_out += data_len(&frame);
        Poll::Ready(Some(Ok(frame)))
    }

    /// A body that was ended early has no regular end.
    fn is_end(&self) -> bool {
        self.taken_back.is_none() && self.body.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    /// hyper stops polling after the announced length or the trailers are written, so `poll_frame` does not always
    /// see the end.
    fn drop(&mut self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
        let mut body = lock(&self.streaming);
        let code = body.delivery.as_ref().map_or(Code::ClientGone, |delivery| delivery.audit.broken_off());
        if body.body.has_ended() || body.is_end() { body.complete() } else { body.failed(code) }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    #[test]
    fn partial_and_encoded_responses_are_unsearchable() {
        let check = |status: u16, field: Option<(&'static str, &'static str)>, expected: bool| {
            let fields = field.into_iter();
            let fields =
                fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_unsearchable(status, &fields.collect()), expected, "{status} {field:?}");
        };
        check(200, None, false);
        check(206, None, true);
        check(200, Some(("content-encoding", "gzip")), true);
        check(200, Some(("content-encoding", "aes128gcm")), true);
        check(200, Some(("content-encoding", "identity")), false);
        check(200, Some(("transfer-encoding", "chunked")), false);
        check(200, Some(("transfer-encoding", "gzip, chunked")), true);
        check(200, Some(("grpc-encoding", "gzip")), true);
        check(200, Some(("grpc-encoding", "identity")), false);
    }
}
