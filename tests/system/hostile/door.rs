//! The entry points, and their responses.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::h2wire::{Answer, preface};
use onecli_tests::socket::{Grepped, Socket};
use onecli_tests::upstream::Upstream;
use onecli_tests::wait_for;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::scene::API;

/// The way a request reaches the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Absolute-form at the proxy, with a token in each request.
    Proxy,
    /// Origin-form, in the TLS connection of a CONNECT.
    Tls,
    /// HTTP/2, in the TLS connection of a CONNECT.
    Http2,
}

/// The response.
#[derive(Debug, Default)]
pub(crate) struct Got {
    /// The status of the last response. Over HTTP/2, 200 represents any status from the upstream.
    pub(crate) status: Option<u16>,
    /// The error code, if the daemon refused the request.
    pub(crate) code: Option<String>,
    /// All received bytes.
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Doors {
    explicit: SocketAddr,
    http: u16,
    https: u16,
    token: String,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Doors {
    pub(crate) fn new(daemon: &Daemon, upstream: &Upstream, agent: &Agent) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(daemon.ca_file()).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = |alpn: &[u8]| {
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Arc::new(config)
        };
        Self {
            explicit: daemon.explicit_addr(),
            http: upstream.http_addr().port(),
            https: upstream.https_addr().port(),
            token: agent.token.clone(),
            http1: config(b"http/1.1"),
            http2: config(b"h2"),
        }
    }

    pub(crate) fn port(&self, door: Door) -> u16 {
        if door == Door::Proxy { self.http } else { self.https }
    }

    /// The `host:port` of the upstream for `door`.
    pub(crate) fn authority(&self, door: Door) -> String {
        format!("{API}:{}", self.port(door))
    }

    fn credentials(&self) -> String {
        format!("Proxy-Authorization: Bearer {}\r\n", self.token)
    }

    /// Fills a template: see `Hostile::http1`.
    pub(crate) fn fill(&self, door: Door, template: &str) -> Vec<u8> {
        let authority = self.authority(door);
        let (at, credentials) = match door {
            Door::Proxy => (format!("http://{authority}"), self.credentials()),
            Door::Tls | Door::Http2 => (String::new(), String::new()),
        };
        template
            .replace("{at}", &at)
            .replace("{head}", &format!("Host: {authority}\r\n{credentials}Connection: close\r\n"))
            .replace("{host}", API)
            .replace("{port}", &self.port(door).to_string())
            .into_bytes()
    }

    fn stream(&self) -> Socket {
        let stream = Socket::connect(self.explicit).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// TLS with `server_name` through a valid CONNECT.
    pub(crate) fn tunnel(
        &self,
        server_name: &str,
        http2: bool,
    ) -> Grepped<StreamOwned<ClientConnection, Socket>> {
        let mut stream = self.stream();
        let authority = self.authority(Door::Tls);
        let credentials = self.credentials();
        write!(stream, "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
        let name = ServerName::try_from(server_name.to_owned()).unwrap();
        let config = if http2 { &self.http2 } else { &self.http1 };
        Grepped::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream))
    }

    /// Sends `bytes` and reads to the end of the response.
    pub(crate) fn send(&self, door: Door, bytes: &[u8]) -> Got {
        match door {
            Door::Proxy => converse(&mut self.stream(), bytes),
            Door::Tls => converse(&mut self.tunnel(API, false), bytes),
            Door::Http2 => converse_http2(&mut self.tunnel(API, true), bytes),
        }
    }

    /// Sends `bytes` over TLS for another server name.
    pub(crate) fn send_as(&self, server_name: &str, bytes: &[u8]) -> Got {
        converse(&mut self.tunnel(server_name, false), bytes)
    }

    /// Sends `second` after the upstream received `first`.
    pub(crate) fn send_in_two(
        &self,
        door: Door,
        first: &[u8],
        second: &[u8],
        through: impl Fn() -> bool,
    ) -> Got {
        fn both(stream: &mut (impl Read + Write), first: &[u8], second: &[u8], wait: impl Fn()) -> Got {
            stream.write_all(first).unwrap();
            stream.flush().unwrap();
            wait();
            converse(stream, second)
        }
        let wait = || {
            let got = wait_for(Duration::from_secs(10), || through().then_some(()));
            assert!(got.is_some(), "the head was forwarded");
        };
        match door {
            Door::Proxy => both(&mut self.stream(), first, second, wait),
            Door::Tls | Door::Http2 => both(&mut self.tunnel(API, false), first, second, wait),
        }
    }

    /// Sends a CONNECT and reads its response.
    pub(crate) fn connect(&self, target: &str, host: &str) -> Got {
        let credentials = self.credentials();
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n{credentials}\r\n");
        let mut stream = self.stream();
        stream.write_all(head.as_bytes()).unwrap();
        let mut begun = [0; 12];
        if stream.read_exact(&mut begun).is_ok() && &begun == b"HTTP/1.1 200" {
            return Got { status: Some(200), code: None, bytes: begun.to_vec() };
        }
        let mut bytes = begun.to_vec();
        stream.read_to_end(&mut bytes).unwrap();
        understand(bytes)
    }
}

fn converse(stream: &mut (impl Read + Write), bytes: &[u8]) -> Got {
    // The daemon may close the connection before everything is written.
    let _ = stream.write_all(bytes);
    let _ = stream.flush();
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let shown = &bytes[..bytes.len().min(300)];
        assert!(!timed_out, "no end after {}, for {}", answer.escape_ascii(), shown.escape_ascii());
    }
    understand(answer)
}

/// Parses an HTTP/1 response.
fn understand(bytes: Vec<u8>) -> Got {
    let mut got = Got { bytes, ..Got::default() };
    let text = String::from_utf8_lossy(&got.bytes).into_owned();
    // `100 Continue` precedes the response.
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let line = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "));
    got.status = line.and_then(|rest| rest.get(..3)?.parse().ok());
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    got.code = head.lines().find_map(|line| line.strip_prefix("x-onecli-error: ")).map(str::to_owned);
    got
}

fn converse_http2(stream: &mut (impl Read + Write), frames: &[u8]) -> Got {
    let _ = stream.write_all(&[&preface(), frames].concat());
    let _ = stream.flush();
    let mut got = Got::default();
    let mut buffer = [0; 16 * 1024];
    let answer = loop {
        let answer = Answer::read(&got.bytes);
        if answer.ended {
            break answer;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break answer,
            Ok(read) => got.bytes.extend(&buffer[..read]),
            Err(error) => {
                let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!timed_out, "no end after {answer:?}, for {}", frames.escape_ascii());
                break answer;
            }
        }
    };
    let error: Value = serde_json::from_slice(&answer.data).unwrap_or_default();
    got.code = error["error"]["code"].as_str().map(str::to_owned);
    // Names and values are compressed, so a refusal is recognised by its content.
    got.status = (answer.answered && got.code.is_none()).then_some(200);
    got.bytes.extend(answer.data);
    got
}
