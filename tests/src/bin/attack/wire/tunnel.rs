//! TLS connections of an agent: through a CONNECT, or directly to the upstream for a control.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::http1::{self, Answer};

/// The time limit of a read.
const PATIENCE: Duration = Duration::from_secs(20);
/// The type of TLS records that carry data (RFC 8446 section 5.1).
const APPLICATION_DATA: u8 = 23;

/// A TLS connection, and the sizes of the records that carried data.
pub(crate) struct Tunnel(StreamOwned<ClientConnection, Records>);

impl Tunnel {
    /// TLS for `server_name` through a CONNECT to `authority`. A refused CONNECT is the inner error.
    pub(crate) fn through(
        proxy: SocketAddr,
        token: &str,
        authority: &str,
        server_name: &str,
        trust: &Arc<ClientConfig>,
    ) -> io::Result<Result<Self, Answer>> {
        let mut stream = connect(proxy)?;
        write!(
            stream,
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
        )?;
        let head = http1::read_head(&mut stream)?;
        if head.status != 200 {
            let rest = http1::read_rest(&mut stream);
            return Ok(Err(Answer { body: rest, ..head }));
        }
        Self::over(stream, server_name, trust).map(Ok)
    }

    /// TLS for `server_name` directly at `address`.
    pub(crate) fn direct(
        address: SocketAddr,
        server_name: &str,
        trust: &Arc<ClientConfig>,
    ) -> io::Result<Self> {
        Self::over(connect(address)?, server_name, trust)
    }

    fn over(stream: TcpStream, server_name: &str, trust: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(trust), name).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(session, Records::new(stream));
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        Ok(Self(tls))
    }

    /// Sends a request and reads its response.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Answer {
        self.0.sock.sizes.clear();
        // The daemon may respond before the whole request is written.
        let _ = self.0.write_all(request);
        let _ = self.0.flush();
        let mut answer = http1::read(&mut self.0);
        answer.records = std::mem::take(&mut self.0.sock.sizes);
        answer
    }

    /// Sets the time limit of a read.
    pub(crate) fn patience(&self, limit: Duration) {
        self.0.sock.stream.set_read_timeout(Some(limit)).expect("a time-out that is not zero");
    }

    /// Reads until nothing arrives for `silence`.
    pub(crate) fn read_until_silence(&mut self, silence: Duration) -> Vec<u8> {
        self.patience(silence);
        let read = http1::read_rest(&mut self.0);
        self.patience(PATIENCE);
        read
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Connects, with a time limit on each read.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A client that trusts the CA certificates in `file`, and offers these protocols.
pub(crate) fn trusting(file: &Path, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).expect("a PEM file") {
        roots.add(certificate.expect("a certificate")).expect("a CA certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

/// Reads TLS records and records the sizes of those with data, because an agent sees them too.
struct Records {
    stream: TcpStream,
    sizes: Vec<usize>,
    head: Vec<u8>,
    left: usize,
}

impl Records {
    fn new(stream: TcpStream) -> Self {
        Self { stream, sizes: Vec::new(), head: Vec::new(), left: 0 }
    }

    fn note(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if let [kind, _, _, high, low] = self.head[..] {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                if kind == APPLICATION_DATA {
                    self.sizes.push(self.left);
                }
                self.head.clear();
            }
        }
    }
}

impl Read for Records {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.note(&buffer[..read]);
        Ok(read)
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
