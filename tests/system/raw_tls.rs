//! TLS connections through the explicit proxy for which a test writes every byte.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use onecli_tests::daemon::Daemon;
use onecli_tests::socket::Socket;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::scene::read_head;

pub(crate) type Tls = StreamOwned<ClientConnection, Socket>;

/// A connection to the explicit proxy.
pub(crate) fn connect(daemon: &Daemon) -> Socket {
    let socket = Socket::connect(daemon.explicit_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// A CONNECT to `authority`, from an agent with `token`.
pub(crate) fn tunnel(daemon: &Daemon, token: &str, authority: &str) -> Socket {
    let mut socket = connect(daemon);
    write!(
        socket,
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let head = read_head(&mut socket);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    socket
}

/// TLS through such a CONNECT with this protocol, from an agent that trusts the daemon's CA.
pub(crate) fn tls(daemon: &Daemon, token: &str, authority: &str, alpn: &str) -> Tls {
    let (name, _port) = authority.split_once(':').unwrap();
    tls_to(daemon, name, alpn, tunnel(daemon, token, authority))
}

/// TLS on an open connection, with this TLS server name.
pub(crate) fn tls_to(daemon: &Daemon, name: &str, alpn: &str, socket: Socket) -> Tls {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(daemon.ca_file()).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(session, socket)
}
