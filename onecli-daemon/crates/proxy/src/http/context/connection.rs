//! What all requests of one HTTP connection have in common.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request};
use onecli_audit::{Record, Text};
use onecli_model::Authority;

use crate::http::body::body_memory::ConnectionMemory;
use crate::session::destination::Destination;
use crate::session::{Security, Session};
use onecli_model::Scheme;

/// What every request on a connection must name.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) scheme: Scheme,
    /// The host; `None` if the client chooses it, or for a proxy's absolute-form requests.
    pub(crate) authority: Option<Authority>,
    /// The port, if only an address is known.
    pub(crate) port: Option<u16>,
    /// The host of a request that names none (HTTP/1.0).
    pub(crate) implied: Option<Authority>,
}

/// An HTTP connection of a client.
#[derive(Debug, Clone)]
pub(crate) struct HttpConnection {
    pub(crate) session: Session,
    pub(crate) expected: Expected,
    /// Body bytes that wait on the connection.
    pub(crate) memory: Arc<ConnectionMemory>,
}

impl HttpConnection {
    /// The connection of `session`, with at most this many concurrent requests.
    pub(crate) fn new(session: Session, streams: usize) -> HttpConnection {
        let expected = Expected::of(&session);
        HttpConnection { session, expected, memory: ConnectionMemory::new(streams) }
    }
}

impl Expected {
    fn of(session: &Session) -> Expected {
        let authority = session.authority.clone();
        if session.security != Security::Plain {
            return Expected { scheme: Scheme::Https, authority, port: None, implied: None };
        }
        let (port, implied) = match &session.destination {
            // A plain request names its own host; the kernel reported the port.
            Destination::Address(address) => (Some(address.port()), None),
            Destination::Name(name) => (Some(name.port()), Some(name.clone())),
            Destination::Authority(_) | Destination::Proxy => (None, None),
        };
        Expected { scheme: Scheme::Http, authority, port, implied }
    }

    /// Records what a request asks for before any of it is checked, so that the record of a refusal shows it. If the
    /// request names several hosts, the record gets the one that does not belong here.
    pub(crate) fn note<B>(&self, request: &Request<B>, record: &mut Record) {
        let http = record.http_mut();
        http.method = Some(Text::new(request.method().as_str()));
        if *request.method() != Method::CONNECT {
            http.path = Some(Text::new(request.uri().path()));
        }
        let port = self.port.unwrap_or(self.scheme.default_port());
        let target = request.uri().authority().map(|target| target.as_str().as_bytes());
        let hosts = request.headers().get_all(header::HOST).iter().map(HeaderValue::as_bytes);
        let named: Vec<_> = target
            .into_iter()
            .chain(hosts)
            .map(|raw| {
                let text = String::from_utf8_lossy(raw);
                (Authority::parse(&text, Some(port)), text)
            })
            .collect();
        let strange = named.iter().find(|(named, _)| named.as_ref().ok() != self.authority.as_ref());
        match strange.or(named.first()) {
            Some((Ok(authority), _)) => _ = record.target(authority.host(), authority.port()),
            // User information may contain a password.
            Some((Err(_), text)) => {
                record.host = Some(Text::new(text.rsplit('@').next().unwrap_or_default()));
                record.port = None;
            }
            None => {}
        }
    }
}
