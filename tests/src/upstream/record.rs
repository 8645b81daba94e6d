//! The requests that the upstream received.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

/// The number of bytes of a request body that are stored; further bytes are only counted.
pub const BODY_KEPT: usize = 1 << 20;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Request method.
    pub method: String,
    /// Path and query, undecoded.
    pub path: String,
    /// `:authority` or `Host`.
    pub authority: String,
    /// Header fields in order of arrival (repeated names are adjacent), names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body so far, at most [`BODY_KEPT`] bytes.
    pub body: Vec<u8>,
    /// Length of the body so far.
    pub body_len: u64,
    /// Trailer fields, names in lower case.
    pub trailers: Vec<(String, String)>,
    /// `HTTP/1.1`, `HTTP/2.0`, ...
    pub version: String,
    /// Protocol agreed by ALPN; `None` on plain HTTP and for clients without ALPN.
    pub alpn: Option<String>,
    /// Server name of the TLS handshake; `None` on plain HTTP.
    pub sni: Option<String>,
    /// The address of the client.
    pub peer: SocketAddr,
    /// Number of the connection, from 1.
    pub connection: usize,
}

impl Recorded {
    /// The values of every copy of header `name`.
    #[must_use]
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The value of header `name` if it arrived exactly once.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        match self.header_all(name).as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// The number of occurrences of `value` in the path, the headers and the stored body.
    #[must_use]
    pub fn count(&self, value: &str) -> usize {
        let body = memchr::memmem::find_iter(&self.body, value).count();
        self.path.matches(value).count()
            + self.headers.iter().map(|(_, v)| v.matches(value).count()).sum::<usize>()
            + body
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn fields(fields: &HeaderMap) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Properties of a connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) number: usize,
    pub(super) peer: SocketAddr,
    pub(super) alpn: Option<String>,
    pub(super) sni: Option<String>,
}

/// The record shared by every listener of one upstream.
#[derive(Default)]
pub(super) struct Log {
    keeps: bool,
    requests: Mutex<Vec<Arc<Mutex<Recorded>>>>,
    connections: AtomicUsize,
    failed_handshakes: AtomicUsize,
}

impl Log {
    /// A record that stores requests, or only counts connections.
    pub(super) fn new(keeps: bool) -> Self {
        Self { keeps, ..Self::default() }
    }

    /// Counts a connection and returns its number, from 1.
    pub(super) fn connected(&self) -> usize {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn handshake_failed(&self) {
        self.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed_handshakes(&self) -> usize {
        self.failed_handshakes.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().iter().map(|r| r.lock().clone()).collect()
    }

    pub(super) fn request_count(&self) -> usize {
        self.requests.lock().len()
    }

    pub(super) fn clear(&self) {
        self.requests.lock().clear();
    }

    /// Records the head. The returned entry records the body while it is read.
    pub(super) fn record(&self, head: &Parts, connection: &Connection) -> Entry {
        let host = head.headers.get(http::header::HOST).map(text).unwrap_or_default();
        let entry = Arc::new(Mutex::new(Recorded {
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            authority: head.uri.authority().map_or(host, ToString::to_string),
            headers: fields(&head.headers),
            body: Vec::new(),
            body_len: 0,
            trailers: Vec::new(),
            version: format!("{:?}", head.version),
            alpn: connection.alpn.clone(),
            sni: connection.sni.clone(),
            peer: connection.peer,
            connection: connection.number,
        }));
        if self.keeps {
            self.requests.lock().push(Arc::clone(&entry));
        }
        Entry { record: entry, keeps: self.keeps }
    }
}

/// The record of one request that is still being read.
pub(super) struct Entry {
    record: Arc<Mutex<Recorded>>,
    keeps: bool,
}

impl Entry {
    pub(super) fn body(&self, data: &[u8]) {
        let mut entry = self.record.lock();
        entry.body_len += data.len() as u64;
        if !self.keeps {
            return;
        }
        let room = BODY_KEPT.saturating_sub(entry.body.len()).min(data.len());
        entry.body.extend_from_slice(&data[..room]);
    }

    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        self.record.lock().trailers = fields(trailers);
    }

    pub(super) fn snapshot(&self) -> Recorded {
        self.record.lock().clone()
    }
}
