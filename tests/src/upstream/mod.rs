//! A real upstream: HTTP/1.1 and HTTP/2, over TLS with its own CA and in plain text.
//!
//! It listens on ephemeral ports of both loopback addresses and records every request. Paths:
//!
//! | path | response |
//! |---|---|
//! | `/echo` | the request as JSON in the body, and its header fields as `x-echo-NAME` response fields |
//! | `/compressed/{gzip,deflate,br,zstd,aes128gcm}` | the content of `/echo`, in that content coding |
//! | `/echo-as/{base64,base32,hex,percent}` | header values of the request in that encoding, one per line |
//! | `/status/N` | status N |
//! | `/bytes/N` | N bytes, streamed, with a Content-Length |
//! | `/chunked/N` | N bytes, streamed, without a Content-Length |
//! | `/upload` | length and SHA-256 of the request body, as JSON |
//! | `/discard` | length of the request body, as JSON |
//! | `/sse?n=N&ms=MS&at` | N server-sent events, MS apart; with `at`, each has a comment: send time in epoch ms |
//! | `/watch?n=N&ms=MS` | N events, MS apart, each with the `Authorization` of every request so far |
//! | `/stored` | the same as lines |
//! | `/hear?coding=NAME` | endless events: `hello`, then the body of each request to `/say`; coding only declared |
//! | `/say` | 200; see `/hear` |
//! | `/bomb/N` | N MiB of zeros in gzip, regardless of `Accept-Encoding` |
//! | `/slow/MS` | 200 after MS milliseconds |
//! | `/redirect?to=URL&status=N` | a redirect |
//! | `/trailers` | a body followed by the trailer `x-checksum` and by fields as for `/issue` |
//! | `/token/N` | a numbered OAuth 2.0 token that lives N seconds; an error for 0 |
//! | `/slow-token/MS` | a token that lives an hour, after MS milliseconds |
//! | `/app/.../access_tokens` | a token that lives an hour |
//! | `/accept/N` | 200 for token number N, else 401 |
//! | `/issue?cookie=HEX&header=HEX&body=HEX&status=N` | these `Set-Cookie` fields, `NAME: VALUE` fields and body |
//! | `/ws/unaccepted`, `/ws/of-another` | 101 without `Sec-WebSocket-Accept`, or with that of another key |
//! | `/ws` | a WebSocket echo, after a 101 with fields as for `/issue`; `headers` returns the handshake's |
//! | a path of [`Builder::page`] | that page; with `?coding=gzip` in that content coding |
//! | `/git/REPO/...` | smart HTTP git behind Basic authentication, see [`git::Repo`] |

mod answer;
mod ca;
pub mod git;
mod hear;
mod issue;
mod record;
mod routes;
mod serve;
mod ws;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use rustls::ServerConfig;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

pub use ca::TestCa;
pub use record::{BODY_KEPT, Recorded};

/// Options of an upstream; [`Upstream::start`] suits most tests.
pub struct Builder {
    names: Vec<String>,
    alpn: Vec<Vec<u8>>,
    git: Option<git::Repo>,
    pages: HashMap<String, (HeaderValue, Bytes)>,
    unrecorded: bool,
    streams: u32,
}

impl Builder {
    /// Sets the limit of concurrent HTTP/2 streams on one connection (default 200).
    #[must_use]
    pub fn streams(mut self, most: u32) -> Self {
        self.streams = most;
        self
    }

    /// Stores no requests: under load the record would only cost memory and time.
    #[must_use]
    pub fn unrecorded(mut self) -> Self {
        self.unrecorded = true;
        self
    }

    /// Offers only these ALPN protocols (default `h2` and `http/1.1`).
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Serves `repo` below `/git/`.
    #[must_use]
    pub fn git(mut self, repo: git::Repo) -> Self {
        self.git = Some(repo);
        self
    }

    /// Serves these bytes at `path`, which may contain escapes.
    #[must_use]
    pub fn page(mut self, path: &str, kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        let _ = self.pages.insert(path.to_owned(), (HeaderValue::from_static(kind), bytes.into()));
        self
    }

    /// Binds the listeners and serves until the upstream is dropped.
    #[must_use]
    pub fn start(self) -> Upstream {
        let ca = TestCa::new("OneCLI test upstream CA");
        let mut names = self.names.clone();
        names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
        let (chain, key) = ca.leaf(&names);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the leaf fits its key");
        tls.alpn_protocols = self.alpn;

        let dir = tempfile::Builder::new().prefix("onecli-test-upstream-").tempdir().expect("temp dir");
        let ca_file = dir.path().join("upstream-ca.pem");
        std::fs::write(&ca_file, ca.pem()).expect("write the CA file");

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("upstream")
            .enable_all()
            .build()
            .expect("runtime");
        let log = Arc::new(record::Log::new(!self.unrecorded));
        let service = Arc::new(routes::Routes { log: Arc::clone(&log), git: self.git, pages: self.pages });
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let (secure, secure_v6) = bind_both();
        let (plain, plain_v6) = bind_both();
        let (https, http) = (secure.local_addr().unwrap(), plain.local_addr().unwrap());
        for (listener, tls) in [
            (Some(secure), Some(acceptor.clone())),
            (secure_v6, Some(acceptor)),
            (Some(plain), None),
            (plain_v6, None),
        ] {
            if let Some(listener) = listener {
                serve::spawn(&runtime, listener, tls, Arc::clone(&service), self.streams);
            }
        }
        Upstream { ca, ca_file, names: self.names, https, http, log, _dir: dir, runtime: Some(runtime) }
    }
}

/// A running upstream. Drop closes its listeners and connections.
pub struct Upstream {
    ca: TestCa,
    ca_file: PathBuf,
    names: Vec<String>,
    https: SocketAddr,
    http: SocketAddr,
    log: Arc<record::Log>,
    _dir: TempDir,
    runtime: Option<Runtime>,
}

impl Upstream {
    /// An upstream that presents a certificate for `names` and the loopback addresses.
    #[must_use]
    pub fn start(names: &[&str]) -> Self {
        Self::builder(names).start()
    }

    /// A builder for an upstream like that of [`Self::start`], with options.
    #[must_use]
    pub fn builder(names: &[&str]) -> Builder {
        Builder {
            names: names.iter().map(|&n| n.to_owned()).collect(),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            git: None,
            pages: HashMap::new(),
            unrecorded: false,
            streams: 200,
        }
    }

    /// The names its certificate is for.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Its CA's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    /// A file that holds [`Self::ca_pem`].
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The HTTPS listener on 127.0.0.1. The same port is served on `[::1]` if the machine has IPv6.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        self.https
    }

    /// The plain HTTP listener on 127.0.0.1. The same port is served on `[::1]` if the machine has IPv6.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// `https://NAME:PORT` + `path`.
    #[must_use]
    pub fn https_url(&self, name: &str, path: &str) -> String {
        format!("https://{name}:{}{path}", self.https.port())
    }

    /// `http://NAME:PORT` + `path`.
    #[must_use]
    pub fn http_url(&self, name: &str, path: &str) -> String {
        format!("http://{name}:{}{path}", self.http.port())
    }

    /// Every request since the start or the last [`Self::clear`], in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.log.requests()
    }

    /// The single recorded request. Any other number fails the test and is shown.
    #[must_use]
    pub fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "expected one request at the upstream, got {requests:#?}");
        requests.remove(0)
    }

    /// The number of requests.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.log.request_count()
    }

    /// The number of TCP connections accepted since the start.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.log.connections()
    }

    /// The number of failed TLS handshakes since the start.
    #[must_use]
    pub fn failed_handshakes(&self) -> usize {
        self.log.failed_handshakes()
    }

    /// Deletes the recorded requests.
    pub fn clear(&self) {
        self.log.clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits until the workers release the tasks, which hold the directory of the git repository.
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        }
    }
}

/// An ephemeral port of 127.0.0.1, and the same port of `::1` if the machine has IPv6.
fn bind_both() -> (TcpListener, Option<TcpListener>) {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1"), None);
    }
    for _ in 0..100 {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1");
        let port = v4.local_addr().unwrap().port();
        if let Ok(v6) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            return (v4, Some(v6));
        }
    }
    panic!("no port is free on both 127.0.0.1 and ::1");
}

#[cfg(test)]
mod tests;
