//! A real upstream: HTTP/1.1 and HTTP/2, over TLS with a CA of its own and in the clear.
//!
//! It listens on ephemeral ports of both loopback addresses and records every request. Paths:
//!
//! | path | answer |
//! |---|---|
//! | `/echo` | the request as JSON in the body, and its header fields as `x-echo-NAME` response fields |
//! | `/compressed/{gzip,deflate,br,zstd,aes128gcm}` | what `/echo` says, in that content coding |
//! | `/echo-as/{base64,base32,hex,percent}` | header values of the request in that encoding, one per line |
//! | `/status/N` | status N |
//! | `/bytes/N` | N bytes, streamed, with a length |
//! | `/chunked/N` | N bytes, streamed, without a length |
//! | `/upload` | count and SHA-256 of the request body, as JSON |
//! | `/discard` | count of the request body, as JSON |
//! | `/sse?n=N&ms=MS&at` | N server-sent events, MS apart; with `at` a comment tells when each was sent, in ms since the epoch |
//! | `/watch?n=N&ms=MS` | N events, MS apart, each with the `Authorization` of every request so far |
//! | `/stored` | the same as lines |
//! | `/hear?coding=NAME` | server-sent events without end: `hello`, then the body of each request to `/say`; the content coding is only named |
//! | `/say` | 200; see `/hear` |
//! | `/bomb/N` | N MiB of zeros, gzip, whatever was asked for |
//! | `/slow/MS` | 200 after MS milliseconds |
//! | `/redirect?to=URL&status=N` | a redirect |
//! | `/trailers` | a body followed by the trailer `x-checksum`, and by fields as of `/issue` |
//! | `/token/N` | an OAuth 2.0 token that lives N seconds, numbered; for 0 an error |
//! | `/slow-token/MS` | the same for an hour, after MS milliseconds |
//! | `/app/.../access_tokens` | the same, for an hour |
//! | `/accept/N` | 200 for token number N, else 401 |
//! | `/issue?cookie=HEX&header=HEX&body=HEX&status=N` | these `Set-Cookie` fields, `NAME: VALUE` fields and body |
//! | `/ws/unaccepted`, `/ws/of-another` | 101 without `Sec-WebSocket-Accept`, or with that of another key |
//! | `/ws` | a WebSocket that echoes messages, after a 101 with fields as of `/issue`; `headers` is answered with the handshake's header fields |
//! | a path of [`Builder::page`] | that page; with `?coding=gzip` in that content coding |
//! | `/git/REPO/...` | smart HTTP git behind Basic authentication, see [`git::Repo`] |

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

/// How an upstream is made; [`Upstream::start`] suits most tests.
pub struct Builder {
    names: Vec<String>,
    alpn: Vec<Vec<u8>>,
    git: Option<git::Repo>,
    pages: HashMap<String, (HeaderValue, Bytes)>,
    unrecorded: bool,
    streams: u32,
}

impl Builder {
    /// Allows so many HTTP/2 streams at a time on one connection (200 unless said).
    #[must_use]
    pub fn streams(mut self, most: u32) -> Self {
        self.streams = most;
        self
    }

    /// Keeps no requests: under load the record would only cost memory and time.
    #[must_use]
    pub fn unrecorded(mut self) -> Self {
        self.unrecorded = true;
        self
    }

    /// Offers only these ALPN protocols (`h2` and `http/1.1` unless said).
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

    /// Serves these bytes at `path`, which may hold escapes.
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

/// A running upstream; dropping it closes its listeners and connections.
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

    /// The same, with options.
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

    /// The HTTPS listener on 127.0.0.1; the same port is served on `[::1]` where the machine has IPv6.
    #[must_use]
    pub fn https_addr(&self) -> SocketAddr {
        self.https
    }

    /// The plain HTTP listener on 127.0.0.1; the same port is served on `[::1]` where the machine has IPv6.
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

    /// The one request that arrived; anything else ends the test and is shown.
    #[must_use]
    pub fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request at the upstream, saw {requests:#?}");
        requests.remove(0)
    }

    /// How many requests arrived.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.log.request_count()
    }

    /// How many TCP connections were accepted since the start.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.log.connections()
    }

    /// How many TLS handshakes failed since the start.
    #[must_use]
    pub fn failed_handshakes(&self) -> usize {
        self.log.failed_handshakes()
    }

    /// Forgets the recorded requests.
    pub fn clear(&self) {
        self.log.clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waits for the workers to let go of the tasks: they hold the git repository's directory.
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
        }
    }
}

/// An ephemeral port of 127.0.0.1, and the same one of `::1` where the machine has IPv6.
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
