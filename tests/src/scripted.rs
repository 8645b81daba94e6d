//! A TLS upstream for which a test writes every byte.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::server::WantsServerCert;
use rustls::{ConfigBuilder, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::upstream::TestCa;

/// The upstream's end of a connection.
pub type Conn = StreamOwned<ServerConnection, TcpStream>;

/// A TLS server that serves each connection with a function of the test, on a separate thread.
pub struct ScriptedUpstream {
    name: String,
    address: SocketAddr,
    ca_file: PathBuf,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    _dir: TempDir,
}

impl ScriptedUpstream {
    /// Serves `name`, and agrees to one of the protocols in `alpn`. `serve` receives the number of the connection, from
    /// 1. When it returns, the connection is closed without a TLS closure alert.
    ///
    /// # Panics
    /// No port or no certificate could be obtained.
    #[must_use]
    pub fn start(
        name: &str,
        alpn: &[&str],
        serve: impl Fn(usize, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, name, alpn, serve)
    }

    /// Like [`ScriptedUpstream::start`], at the given address of this host.
    ///
    /// # Panics
    /// As [`ScriptedUpstream::start`].
    #[must_use]
    pub fn start_at(
        address: Ipv4Addr,
        name: &str,
        alpn: &[&str],
        serve: impl Fn(usize, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let ca = TestCa::new("scripted upstream CA");
        let (chain, key) = ca.leaf(&[name.to_owned()]);
        let mut tls = server_config().with_single_cert(chain, key).expect("the leaf fits its key");
        tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::with(address, name, tls, ca.pem(), serve)
    }

    /// Like [`ScriptedUpstream::start`], with this configuration. A client must trust `ca_pem`.
    ///
    /// # Panics
    /// No port is free.
    #[must_use]
    pub fn with(
        address: Ipv4Addr,
        name: &str,
        tls: ServerConfig,
        ca_pem: &str,
        serve: impl Fn(usize, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind((address, 0)).expect("bind a port"), name, tls, ca_pem, serve)
    }

    /// Like [`ScriptedUpstream::start`], on a listener of the test.
    ///
    /// # Panics
    /// The listener has no address.
    #[must_use]
    pub fn on(
        listener: TcpListener,
        name: &str,
        tls: ServerConfig,
        ca_pem: &str,
        serve: impl Fn(usize, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("onecli-test-").tempdir().expect("temp dir");
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, ca_pem).expect("write the CA's certificate");
        let address = listener.local_addr().expect("its address");
        let (connections, ended) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end, tls, serve) =
            (Arc::clone(&connections), Arc::clone(&ended), Arc::new(tls), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let (tls, serve) = (Arc::clone(&tls), Arc::clone(&serve));
                // The test notices a failed connection.
                std::thread::spawn(move || serve(number, &mut accept(stream, tls)?));
            }
        });
        Self { name: name.to_owned(), address, ca_file, connections, ended, _dir: dir }
    }

    /// The address of the listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.name, self.address.port())
    }

    /// `https://HOST:PORT` + `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority())
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate that the daemon must trust.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The number of connections so far.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for ScriptedUpstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

/// A TLS server configuration that lacks only its certificate.
///
/// # Panics
/// Never: the versions fit the provider.
#[must_use]
pub fn server_config() -> ConfigBuilder<ServerConfig, WantsServerCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_no_client_auth()
}

fn accept(stream: TcpStream, tls: Arc<ServerConfig>) -> io::Result<Conn> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_mins(1)))?;
    let session = ServerConnection::new(tls).map_err(io::Error::other)?;
    Ok(StreamOwned::new(session, stream))
}

/// Reads an HTTP/1 request and returns its head and body. A chunked body retains its framing.
///
/// # Errors
/// The connection ended, or the length is not a number.
pub fn read_http1(conn: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let head = read_to(conn, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&head).into_owned();
    let lower = head.to_ascii_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        return Ok((head, read_to(conn, b"0\r\n\r\n")?));
    }
    let length = lower.split_once("content-length:").map_or(Ok(0), |(_, rest)| {
        rest.lines().next().unwrap_or_default().trim().parse().map_err(io::Error::other)
    })?;
    let mut body = vec![0; length];
    conn.read_exact(&mut body)?;
    Ok((head, body))
}

/// Reads until the received bytes end with `end`.
fn read_to(conn: &mut impl Read, end: &[u8]) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        conn.read_exact(&mut byte)?;
        read.push(byte[0]);
    }
    Ok(read)
}

/// Writes an HTTP/1.1 response with this body.
///
/// # Errors
/// The connection ended.
pub fn write_http1(conn: &mut impl Write, body: &str) -> io::Result<()> {
    write!(conn, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    conn.flush()
}
