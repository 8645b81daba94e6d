//! Handshakes between the agent side and the upstream side, with real bytes.

mod upstreams;

use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::{AgentId, Authority, Clock as _};
use onecli_sys::SystemClock;
use rustls::HandshakeKind::{Full, Resumed};
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;

async fn handshake(leaf_for: &str, asked_for: &str) -> Result<VerifiedStream<TcpStream>, String> {
    let material =
        CertAuthority::generate("test", Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000));
    let material = material.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &material.certificate_pem).unwrap();
    let server = AgentTls::new(CertAuthority::load(&material).unwrap(), Arc::new(SystemClock)).unwrap();
    let client = UpstreamTls::new(&[ca]).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = leaf_for.parse().unwrap();
    let accept = async {
        let (tcp, _) = listener.accept().await.unwrap();
        server.accept(&host, tcp).await
    };
    let authority = Authority::parse(asked_for, Some(443)).unwrap();
    let connect = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        client.connect(AgentId(Uuid::nil()), &authority, Alpn::Any, tcp).await
    };
    let (_accepted, connected) = tokio::join!(accept, connect);
    connected.map_err(|error| error.to_string())
}

#[tokio::test]
async fn leaf_is_valid_for_its_host_only() {
    for host in ["api.test", "127.0.0.1", "[2001:db8::1]"] {
        let stream = handshake(host, host).await.unwrap();
        assert!(stream.is_h2(), "{host}");
    }
    for (leaf, asked) in [("api.test", "other.test"), ("127.0.0.1", "127.0.0.2"), ("api.test", "127.0.0.1")] {
        let error = handshake(leaf, asked).await.unwrap_err();
        assert!(error.contains("certificate"), "{error}");
    }
}

#[test]
fn client_hello_is_parsed_from_fragments() {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), "api.test".try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    for cut in [0, 1, 5, 6, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(parse_client_hello(&bytes[..cut]), ClientHello::Incomplete, "{cut}");
    }
    assert_eq!(
        parse_client_hello(&bytes),
        ClientHello::Complete { server_name: Some("api.test".to_owned()) }
    );
    for garbage in
        [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xffhello", b"\x16HTTP/1.1 is not TLS"]
    {
        assert!(matches!(parse_client_hello(garbage), ClientHello::Malformed(_)), "{garbage:?}");
    }
}

/// The basis of the bound on cached leaves: the size of a leaf depends on its host only through the name.
#[test]
fn leaf_size_is_bounded_for_the_longest_name() {
    let material = CertAuthority::generate("test", Timestamp::UNIX_EPOCH).unwrap();
    let authority = CertAuthority::load(&material).unwrap();
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "x".repeat(61)).parse().unwrap();
    let leaf = authority.leaf(&[longest], Timestamp::UNIX_EPOCH).unwrap();
    let bytes: usize = leaf.chain.iter().map(|certificate| certificate.len()).sum();
    assert!(bytes + leaf.key.secret_der().len() < 2048, "{bytes}");
}

/// A TLS 1.2 client without ticket support (RFC 5077) cannot make the daemon store its sessions.
#[tokio::test]
async fn daemon_stores_no_sessions_of_agents() {
    let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000);
    let material = CertAuthority::generate("test", now).unwrap();
    let server = AgentTls::new(CertAuthority::load(&material).unwrap(), Arc::new(SystemClock)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let pem = material.certificate_pem.as_bytes();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let mut without = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut with = without.clone();
    without.resumption = rustls::client::Resumption::in_memory_sessions(8)
        .tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
    with.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let host = "api.test".parse().unwrap();
    for (config, resumed) in [(with, Resumed), (without, Full)] {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (near, far) = tokio::io::duplex(1 << 16);
            let connected = connector.connect("api.test".try_into().unwrap(), near);
            let (client, _server) = tokio::join!(connected, server.accept(&host, far));
            kinds.push(client.unwrap().get_ref().1.handshake_kind().unwrap());
        }
        assert_eq!(kinds, [Full, resumed]);
    }
}

/// Only the agent that opened a session can resume it.
#[tokio::test]
async fn upstream_sessions_are_not_shared_between_agents() {
    let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000);
    let material = CertAuthority::generate("test", now).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &material.certificate_pem).unwrap();
    let server = AgentTls::new(CertAuthority::load(&material).unwrap(), Arc::new(SystemClock)).unwrap();
    let client = UpstreamTls::new(&[ca]).unwrap();
    let (host, authority) = ("api.test".parse().unwrap(), Authority::parse("api.test", Some(443)).unwrap());
    let mut kinds = Vec::new();
    for agent in [1, 1, 2, 1, 2] {
        let (near, far) = tokio::io::duplex(1 << 16);
        let agent = AgentId(Uuid::from_u128(agent));
        let connected = client.connect(agent, &authority, Alpn::Any, near);
        let (connected, accepted) = tokio::join!(connected, server.accept(&host, far));
        let mut accepted = accepted.unwrap();
        // The ticket arrives with the next read.
        accepted.write_all(b"x").await.unwrap();
        connected.unwrap().read_u8().await.unwrap();
        kinds.push(accepted.get_ref().1.handshake_kind().unwrap());
    }
    assert!(matches!(kinds[..], [Full, Resumed, Full, Resumed, Resumed]), "{kinds:?}");
}

/// The session stores the certificates that an upstream presents.
#[tokio::test]
async fn upstream_with_too_many_certificates_is_refused() {
    let now = SystemClock.now();
    let material = CertAuthority::generate("test", now).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &material.certificate_pem).unwrap();
    let client = UpstreamTls::new(&[ca]).unwrap();
    let authority = CertAuthority::load(&material).unwrap();
    let api = Authority::parse("api.test", Some(443)).unwrap();
    for (more, taken) in [(0, true), (31, true), (32, false)] {
        let mut leaf = authority.leaf(&["api.test".parse().unwrap()], now).unwrap();
        let extra = leaf.chain[0].clone();
        leaf.chain.extend(std::iter::repeat_n(extra, more));
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(leaf.chain, leaf.key)
            .unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let agent = AgentId(Uuid::from_u128(more as u128));
        let accepted = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(far);
        let (connected, _accepted) = tokio::join!(client.connect(agent, &api, Alpn::Any, near), accepted);
        let result = connected.map(drop).map_err(|error| error.to_string());
        assert_eq!(result.is_ok(), taken, "{more} more: {result:?}");
        assert!(taken || result.unwrap_err().contains("more than 32 certificates"));
    }
}

#[test]
fn certificates_for_refused_hosts_are_limited() {
    let material = CertAuthority::generate("test", Timestamp::UNIX_EPOCH).unwrap();
    let tls = AgentTls::new(CertAuthority::load(&material).unwrap(), Arc::new(SystemClock)).unwrap();
    let agent = AgentId(Uuid::nil());
    let host = |n: usize| format!("h{n}.test").parse().unwrap();
    let granted = (0..100).filter(|n| tls.may_refuse_readably(agent, &host(*n))).count();
    assert_eq!(granted, 16);
    assert!(tls.may_refuse_readably(AgentId(Uuid::max()), &host(200)));
}

#[tokio::test]
async fn certificates_for_new_hosts_are_limited() {
    let material =
        CertAuthority::generate("test", Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000));
    let tls = AgentTls::new(CertAuthority::load(&material.unwrap()).unwrap(), Arc::new(SystemClock)).unwrap();
    let agent = AgentId(Uuid::nil());
    let known = "known.test".parse().unwrap();
    // A cached leaf is returned to every agent without a limit.
    let _ = tls.accept(&known, tokio::io::empty()).await;
    assert!((0..1000).all(|_| tls.may_accept(agent, &known)));
    let allowed = (0..1000).filter(|n| tls.may_accept(agent, &format!("h{n}.test").parse().unwrap())).count();
    assert_eq!(allowed, 128);
    assert!(tls.may_accept(agent, &known));
    assert!(tls.may_accept(AgentId(Uuid::max()), &"other.test".parse().unwrap()));
}

/// An attacker who can write to the database can exchange the certificate. None of these may enter a bundle.
#[test]
fn authority_with_an_exchanged_certificate_is_refused() {
    let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000);
    let made = || CertAuthority::generate("test", now).unwrap();
    let (good, foreign) = (made(), made());
    let with = |pem: String| CaMaterial { certificate_pem: pem, key_der: good.key_der.clone() };
    CertAuthority::load(&good).unwrap();
    let (ours, theirs) = (&good.certificate_pem, &foreign.certificate_pem);
    for (edited, hint) in [
        (theirs.clone(), "does not match the stored CA key"),
        (format!("{ours}{theirs}"), "not one certificate"),
        (format!("{theirs}{ours}"), "not one certificate"),
        (format!("{ours}{}", theirs.replace("CERTIFICATE", "TRUSTED CERTIFICATE")), "not one certificate"),
        (format!("a comment\n{ours}"), "not one certificate"),
        (String::new(), "not one certificate"),
    ] {
        let error = CertAuthority::load(&with(edited.clone())).unwrap_err();
        assert!(
            matches!(error, CaError::Changed(_)) && error.to_string().contains(hint),
            "{edited}: {error}"
        );
        // If it was sealed with the key, it is refused earlier.
        let error = CaMaterial::unsealed(edited, &good.to_seal().unwrap()).unwrap_err();
        assert!(error.to_string().contains("sealed with its key"), "{error}");
    }
}

#[test]
fn sealed_authority_round_trips_in_both_formats() {
    let good = CertAuthority::generate("test", Timestamp::UNIX_EPOCH).unwrap();
    let sealed = good.to_seal().unwrap();
    let (again, key_alone) = CaMaterial::unsealed(good.certificate_pem.clone(), &sealed).unwrap();
    assert!(again.certificate_pem == good.certificate_pem && again.key_der == good.key_der && !key_alone);
    // The sealed form of older versions.
    let (old, key_alone) = CaMaterial::unsealed(good.certificate_pem.clone(), &good.key_der).unwrap();
    assert!(old.key_der == good.key_der && key_alone);
    for length in 1..good.certificate_pem.len() + 5 {
        assert!(CaMaterial::unsealed(good.certificate_pem.clone(), &sealed[..length]).is_err(), "{length}");
    }
}
