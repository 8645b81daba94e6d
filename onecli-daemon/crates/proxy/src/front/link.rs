//! What the [`Front`](super::Front) of a connection and the service behind hyper tell each other.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use onecli_audit::{Record, Text};
use onecli_model::{Authority, Refusal};

use super::section::Section;
use super::violation::Violation;

/// A request that broke a rule of framing, as far as it was read. It stands in the extensions of the request that
/// hyper is given in its place.
#[derive(Debug, Clone)]
pub(crate) struct Malformed {
    pub(super) violation: Violation,
    method: Option<Method>,
    host: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    credentials: Option<HeaderValue>,
}

impl Malformed {
    /// What `section` read of `bytes` before it broke a rule.
    pub(super) fn new(violation: Violation, section: &Section, bytes: &[u8]) -> Malformed {
        let method = section.method(bytes).and_then(|method| Method::from_bytes(method).ok());
        let target = section.target(bytes).unwrap_or_default();
        let (host, path) = split_target(target, method == Some(Method::CONNECT));
        let credentials = section.credentials(bytes).and_then(|value| HeaderValue::from_bytes(value).ok());
        Malformed {
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

    /// Is `request` one in place of a malformed one?
    pub(crate) fn of<B>(request: &Request<B>) -> Option<&Malformed> {
        request.extensions().get()
    }

    /// What its sender is answered.
    pub(crate) fn refusal(&self) -> Refusal {
        self.violation.refusal()
    }

    /// Writes what was read of it; what the connection tells is not overwritten.
    pub(crate) fn describe(&self, record: &mut Record) {
        record.method = self.method.as_ref().map(|method| Text::new(method.as_str()));
        record.path = self.path.as_deref().map(Text::from_bytes);
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

    /// Writes it into the request in its place: who asks, and how.
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

/// Host and path of a target, of any form; never user information or a query, which may hold secrets.
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

/// How a request that asked to leave HTTP/1 was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// It leaves: what follows is not HTTP/1.
    Leaves,
    /// It stays: another head follows.
    Stays,
    /// The connection ends.
    Ends,
}

/// Shared by a connection's front and its service. Heads are numbered from 0 on both sides: hyper calls the service
/// once for each, in their order.
#[derive(Debug, Default)]
pub(crate) struct Link(Mutex<Shared>);

#[derive(Debug, Default)]
struct Shared {
    calls: u64,
    refused: Option<(u64, Malformed)>,
    answered: Option<(u64, Switch)>,
    front: Option<Waker>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Head `number` was malformed.
    pub(super) fn refuse(&self, number: u64, malformed: Malformed) {
        self.lock().refused = Some((number, malformed));
    }

    /// How head `number` was answered, when it is.
    pub(super) fn poll_switch(&self, number: u64, cx: &mut Context<'_>) -> Poll<Switch> {
        let mut shared = self.lock();
        match shared.answered {
            Some((answered, switch)) if answered == number => Poll::Ready(switch),
            _ => {
                shared.front = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// A request has reached the service; one in place of a malformed one becomes so here.
    pub(crate) fn arrive<B>(&self, request: &mut Request<B>) -> Turn {
        let mut shared = self.lock();
        let number = shared.calls;
        shared.calls += 1;
        let turn = Turn { number, connect: *request.method() == Method::CONNECT };
        if let Some((_, malformed)) = shared.refused.take_if(|(refused, _)| *refused == number) {
            malformed.fill(request);
        }
        turn
    }

    /// `turn`'s request is answered with `response`.
    pub(crate) fn leave<B>(&self, turn: &Turn, response: &mut Response<B>) {
        let switch = match (turn.connect, response.status()) {
            (true, status) if status.is_success() => Switch::Leaves,
            (false, StatusCode::SWITCHING_PROTOCOLS) => Switch::Leaves,
            // A client may have sent the tunnel's first bytes already, chosen by somebody else; they must not be read
            // as requests of its own.
            (true, _) => {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                Switch::Ends
            }
            (false, _) => Switch::Stays,
        };
        let mut shared = self.lock();
        shared.answered = Some((turn.number, switch));
        if let Some(front) = shared.front.take() {
            front.wake();
        }
    }
}

/// One request between its arrival at the service and its answer.
#[derive(Debug)]
pub(crate) struct Turn {
    number: u64,
    connect: bool,
}

#[cfg(test)]
impl Malformed {
    /// Method, host and path, as they were read.
    pub(super) fn seen(&self) -> (Option<&str>, Option<&str>, Option<&str>) {
        fn text(bytes: &[u8]) -> Option<&str> {
            std::str::from_utf8(bytes).ok()
        }
        let host = self.host.as_deref().and_then(text);
        (self.method.as_ref().map(Method::as_str), host, self.path.as_deref().and_then(text))
    }
}
