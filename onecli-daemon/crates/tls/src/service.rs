//! Verified TLS for the daemon's own requests: to a vault, not on behalf of an agent.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use onecli_model::Host;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::client::{UpstreamTlsError, read_pem};
use super::provider;

/// A connection whose peer proved by certificate to be the requested host.
pub type ServiceStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects over verified TLS, HTTP/1.1.
#[derive(Clone)]
pub struct ServiceTls {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ServiceTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceTls(..)")
    }
}

impl ServiceTls {
    /// Trusts only `ca_file` (PEM) if it is set, else the system's roots.
    ///
    /// # Errors
    /// [`UpstreamTlsError`], with the name of the file.
    pub fn new(ca_file: Option<&Path>) -> Result<ServiceTls, UpstreamTlsError> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                for certificate in read_pem(path)? {
                    roots.add(certificate).map_err(|error| UpstreamTlsError::ExtraCa {
                        path: path.to_owned(),
                        reason: error.to_string(),
                    })?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(UpstreamTlsError::NoRoots);
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| UpstreamTlsError::Setup(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(ServiceTls { config: Arc::new(config) })
    }

    /// Performs the handshake on `tcp` as a client of `host`.
    ///
    /// # Errors
    /// rustls' reason, also if the certificate is not valid for the host.
    pub async fn connect(&self, host: &Host, tcp: TcpStream) -> io::Result<ServiceStream> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            Host::V4(ip) => ServerName::from(std::net::IpAddr::V4(*ip)),
            Host::V6(ip) => ServerName::from(std::net::IpAddr::V6(*ip)),
        };
        tokio_rustls::TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await
    }
}
