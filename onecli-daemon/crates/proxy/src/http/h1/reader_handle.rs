//! State that the [`StrictReader`](super::StrictReader) of a connection shares with the service behind hyper.

use std::task::{Context, Poll, Waker};

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use onecli_audit::{Record, Text};
use onecli_model::{Authority, Refusal};
use parking_lot::{Mutex, MutexGuard};

use super::section::Section;
use super::violation::Violation;

/// A request that broke a framing rule, as far as it was read. It is stored in the extensions of the request that
/// hyper gets instead.
#[derive(Debug, Clone)]
pub(crate) struct RejectedRequest {
    pub(super) violation: Violation,
    method: Option<Method>,
    host: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    credentials: Option<HeaderValue>,
}

impl RejectedRequest {
    /// Stores what `section` read of `bytes` before it found a violation.
    pub(super) fn new(violation: Violation, section: &Section, bytes: &[u8]) -> RejectedRequest {
        let method = section.method(bytes).and_then(|method| Method::from_bytes(method).ok());
        let target = section.target(bytes).unwrap_or_default();
        let (host, path) = split_target(target, method == Some(Method::CONNECT));
        let credentials = section.credentials(bytes).and_then(|value| HeaderValue::from_bytes(value).ok());
        RejectedRequest {
            violation,
            host: host.or_else(|| section.host(bytes)).map(<[u8]>::to_vec),
            path: path.map(<[u8]>::to_vec),
            credentials: credentials.map(|mut value| {
                value.set_sensitive(true);
                value
            }),
            method,
        }
    }

    /// Returns the malformed request that `request` replaces, if it does.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<&RejectedRequest> {
        request.extensions().get()
    }

    /// The refusal that its sender gets.
    pub(crate) fn refusal(&self) -> Refusal {
        self.violation.refusal()
    }

    /// Writes what was read of the request into `record`; facts about the connection are not overwritten.
    pub(crate) fn describe(&self, record: &mut Record) {
        let http = record.http_mut();
        http.method = self.method.as_ref().map(|method| Text::new(method.as_str()));
        http.path = self.path.as_deref().map(Text::from_bytes);
        if record.host.is_some() {
            return;
        }
        let Some(host) = self.host.as_deref() else { return };
        match std::str::from_utf8(host).ok().and_then(|host| Authority::parse(host, Some(80)).ok()) {
            Some(authority) => {
                record.target(authority.host(), authority.port());
            }
            None => record.host = Some(Text::from_bytes(host)),
        }
    }

    /// Copies host, method and credentials of the malformed request into its replacement.
    fn fill<B>(self, request: &mut Request<B>) {
        if let Some(method) = &self.method {
            *request.method_mut() = method.clone();
        }
        let path = self.path.as_deref().and_then(|path| path.try_into().ok());
        *request.uri_mut() = path.unwrap_or_default();
        *request.headers_mut() = HeaderMap::new();
        if let Some(credentials) = &self.credentials {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, credentials.clone());
        }
        request.extensions_mut().insert(self);
    }
}

/// Returns host and path of a target of any form, but never user information or a query, which may contain secrets.
fn split_target(target: &[u8], connect: bool) -> (Option<&[u8]>, Option<&[u8]>) {
    let before =
        |text: &[u8], stops: &[u8]| text.iter().position(|byte| stops.contains(byte)).unwrap_or(text.len());
    let without_query = &target[..before(target, b"?#")];
    if connect {
        return (Some(without_query), None);
    }
    let Some(scheme) = memchr::memmem::find(without_query, b"://").filter(|_| !target.starts_with(b"/"))
    else {
        return (None, (!without_query.is_empty()).then_some(without_query));
    };
    let rest = &without_query[scheme + 3..];
    let (authority, path) = rest.split_at(before(rest, b"/"));
    let host = memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..]);
    (Some(host), Some(if path.is_empty() { b"/" } else { path }))
}

/// The outcome of a request to leave HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// Accepted: the next bytes are not HTTP/1.
    Leaves,
    /// Refused: another head follows.
    Stays,
    /// The connection ends.
    Ends,
}

/// State that a connection's reader and its service share. Both number heads from 0, because hyper calls the service
/// once for each head, in order.
#[derive(Debug, Default)]
pub(crate) struct ReaderHandle(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    calls: u64,
    refused: Option<(u64, RejectedRequest)>,
    answered: Option<(u64, Switch)>,
    reader: Option<Waker>,
}

impl ReaderHandle {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock()
    }

    /// Reports that head `number` was malformed.
    pub(super) fn refuse(&self, number: u64, rejected: RejectedRequest) {
        self.lock().refused = Some((number, rejected));
    }

    /// Ready with the outcome for head `number` when it is answered.
    pub(super) fn poll_switch(&self, number: u64, cx: &mut Context<'_>) -> Poll<Switch> {
        let mut shared = self.lock();
        match shared.answered {
            Some((answered, switch)) if answered == number => Poll::Ready(switch),
            _ => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Reports that a request has reached the service. If it replaces a malformed one, that is attached here.
    pub(crate) fn arrive<B>(&self, request: &mut Request<B>) -> Turn {
        let mut shared = self.lock();
        let number = shared.calls;
        shared.calls += 1;
        let turn = Turn { number, connect: *request.method() == Method::CONNECT };
        if let Some((_, rejected)) = shared.refused.take_if(|(refused, _)| *refused == number) {
            rejected.fill(request);
        }
        turn
    }

    /// Reports that the request of `turn` is answered with `response`.
    pub(crate) fn leave<B>(&self, turn: &Turn, response: &mut Response<B>) {
        let switch = match (turn.connect, response.status()) {
            (true, status) if status.is_success() => Switch::Leaves,
            (false, StatusCode::SWITCHING_PROTOCOLS) => Switch::Leaves,
            // A client may already have sent the tunnel's first bytes, which a third party may have chosen. They must
            // not be read as requests of the client.
            (true, _) => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                Switch::Ends
            }
            (false, _) => Switch::Stays,
        };
        let mut shared = self.lock();
        shared.answered = Some((turn.number, switch));
        if let Some(reader) = shared.reader.take() {
            reader.wake();
        }
    }
}

/// One request, from its arrival at the service to its response.
#[derive(Debug)]
pub(crate) struct Turn {
    number: u64,
    connect: bool,
}

#[cfg(test)]
impl RejectedRequest {
    /// Method, host and path, as they were read.
    pub(super) fn seen(&self) -> (Option<&str>, Option<&str>, Option<&str>) {
        fn text(bytes: &[u8]) -> Option<&str> {
            std::str::from_utf8(bytes).ok()
        }
        let host = self.host.as_deref().and_then(text);
        (self.method.as_ref().map(Method::as_str), host, self.path.as_deref().and_then(text))
    }
}
