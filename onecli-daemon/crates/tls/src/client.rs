//! The upstream side: certificates are verified for exactly the host that was matched.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::{io, pin::Pin};

use lru::LruCache;
use onecli_model::{AgentId, Authority, Host};
use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::anchor::PathLimits;
use super::failure::{CertificateRequested, NoCertificate, TlsFailure};
use super::provider;
use super::sessions::{AgentSessions, SessionCache};
use super::verify::UpstreamVerifier;

/// The number of cached client configurations of agents. Each is below 1 KiB; the sessions are stored separately
/// ([`SessionCache`]).
const CACHED_CONFIGS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// The maximum number of certificates that an upstream may present. This and rustls' 64 KiB limit the certificates in
/// a session.
const MOST_CERTIFICATES: usize = 32;

/// The protocols offered to the upstream (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2, else HTTP/1.1.
    Any,
    /// HTTP/1.1 alone: an upgrade (RFC 9110 section 7.8) needs it.
    Http1,
}

/// The reason why an upstream cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// A file of additional authorities cannot be read.
    #[error("cannot read CA certificates from {path}: {reason}")]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Neither the system nor the configuration provides a root.
    #[error("no CA certificates: install ca-certificates, or name a file in [upstream] extra_ca_files")]
    NoRoots,
    /// rustls refused the roots.
    #[error("cannot set up TLS for upstreams: {0}")]
    Setup(String),
    /// The handshake failed.
    #[error("TLS with {authority} failed: {source}")]
    Handshake {
        /// The upstream.
        authority: Authority,
        /// The reason.
        source: TlsFailure,
    },
}

impl UpstreamTlsError {
    /// Returns the next step.
    pub fn hint(&self) -> &'static str {
        match self {
            UpstreamTlsError::Handshake { source, .. } => source.hint(),
            _ => "see the daemon's log",
        }
    }
}

/// Connects to upstreams over verified TLS. Sessions are never shared between agents.
pub struct UpstreamTls {
    verifier: Arc<UpstreamVerifier>,
    roots_pem: Arc<str>,
    no_certificate: Arc<dyn ResolvesClientCert>,
    configs: Mutex<LruCache<(AgentId, Alpn), Arc<ClientConfig>>>,
    sessions: Arc<SessionCache>,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpstreamTls(..)")
    }
}

impl UpstreamTls {
    /// Trusts the system's roots and those in `extra_ca_files` (PEM).
    ///
    /// # Errors
    /// [`UpstreamTlsError`], with the name of the file.
    pub fn new(extra_ca_files: &[PathBuf]) -> Result<UpstreamTls, UpstreamTlsError> {
        let mut roots = RootCertStore::empty();
        let mut roots_pem = String::new();
        let mut limits = PathLimits::default();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "cannot read some of the system's CA certificates");
        }
        for certificate in system.certs {
            push_pem(&mut roots_pem, &certificate);
            roots.add_parsable_certificates([certificate]);
        }
        for path in extra_ca_files {
            let bad = |reason: String| UpstreamTlsError::ExtraCa { path: path.clone(), reason };
            for certificate in read_pem(path)? {
                limits.read(&certificate).map_err(|error| bad(error.to_string()))?;
                roots.add(certificate).map_err(|error| bad(error.to_string()))?;
            }
        }
        if roots.is_empty() {
            return Err(UpstreamTlsError::NoRoots);
        }
        let verifier = UpstreamVerifier::new(roots, limits)
            .map_err(|error| UpstreamTlsError::Setup(error.to_string()))?;
        Ok(UpstreamTls::with(Arc::new(verifier), roots_pem.into()))
    }

    fn with(verifier: Arc<UpstreamVerifier>, roots_pem: Arc<str>) -> UpstreamTls {
        UpstreamTls {
            verifier,
            roots_pem,
            no_certificate: Arc::new(NoCertificate),
            configs: Mutex::new(LruCache::new(CACHED_CONFIGS)),
            sessions: Arc::new(SessionCache::new()),
        }
    }

    /// Returns an instance that trusts the same roots but shares no sessions with this one.
    #[must_use]
    pub fn apart(&self) -> UpstreamTls {
        UpstreamTls::with(Arc::clone(&self.verifier), Arc::clone(&self.roots_pem))
    }

    /// Returns the system's roots in PEM: the first part of the bundle that agents trust.
    pub fn system_roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// Performs the handshake on `stream` as a client of `authority`'s host. The stream may pass through an upstream
    /// proxy, which sees no more than any router would.
    ///
    /// # Errors
    /// [`UpstreamTlsError::Handshake`], also if the certificate is not valid for the host.
    pub async fn connect<S>(
        &self,
        agent: AgentId,
        authority: &Authority,
        alpn: Alpn,
        stream: S,
    ) -> Result<VerifiedStream<S>, UpstreamTlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let failed = |source| UpstreamTlsError::Handshake { authority: authority.clone(), source };
        let name = match authority.host() {
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|error| failed(TlsFailure::of_name(error)))?
            }
            Host::V4(ip) => ServerName::from(std::net::IpAddr::V4(*ip)),
            Host::V6(ip) => ServerName::from(std::net::IpAddr::V6(*ip)),
        };
        let config = self.config(agent, alpn)?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let requested = CertificateRequested::default();
        let limited =
            |session: &mut rustls::ClientConnection| session.set_buffer_limit(Some(super::SEND_BUFFER));
        let shaken = requested.observe(connector.connect_with(name.clone(), stream, limited)).await;
        let stream = shaken.map_err(|error| failed(TlsFailure::of_handshake(&error, &requested)))?;
        if stream.get_ref().1.peer_certificates().is_some_and(|chain| chain.len() > MOST_CERTIFICATES) {
            self.sessions.forget(agent, alpn, name);
            return Err(failed(TlsFailure::of_chain(MOST_CERTIFICATES)));
        }
        Ok(VerifiedStream { stream, requested, alert: Arc::default() })
    }

    fn config(&self, agent: AgentId, alpn: Alpn) -> Result<Arc<ClientConfig>, UpstreamTlsError> {
        let mut configs = self.configs.lock();
        if let Some(config) = configs.get(&(agent, alpn)) {
            return Ok(Arc::clone(config));
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| UpstreamTlsError::Setup(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier) as Arc<_>)
            .with_client_cert_resolver(Arc::clone(&self.no_certificate));
        config.alpn_protocols = match alpn {
            Alpn::Any => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
        };
        config.resumption =
            Resumption::store(Arc::new(AgentSessions { all: Arc::clone(&self.sessions), agent, alpn }));
        let config = Arc::new(config);
        configs.put((agent, alpn), Arc::clone(&config));
        Ok(config)
    }
}

pub(super) fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamTlsError> {
    let bad = |reason: String| UpstreamTlsError::ExtraCa { path: path.to_owned(), reason };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| bad(error.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("it contains no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

fn push_pem(out: &mut String, certificate: &CertificateDer<'_>) {
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let body = data_encoding::BASE64.encode(certificate);
    for line in body.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
}

/// A connection whose peer proved by certificate to be the requested host. Only [`UpstreamTls::connect`] creates one.
#[derive(Debug)]
pub struct VerifiedStream<S> {
    stream: tokio_rustls::client::TlsStream<S>,
    requested: CertificateRequested,
    alert: LateAlert,
}

/// The alert by which an upstream ended a connection after the handshake, if it sent one.
pub type LateAlert = Arc<OnceLock<TlsFailure>>;

impl<S> VerifiedStream<S> {
    /// Returns whether the upstream chose HTTP/2.
    pub fn is_h2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// Returns the place in which a later alert is stored.
    pub fn late_alert(&self) -> LateAlert {
        Arc::clone(&self.alert)
    }

    /// Returns the protocol version in the form of audit records.
    pub fn version(&self) -> &'static str {
        match self.stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for VerifiedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(failure) = TlsFailure::of_alert(error, &self.requested)
        {
            // Only the first alert is stored.
            let _ = self.alert.set(failure);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for VerifiedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
