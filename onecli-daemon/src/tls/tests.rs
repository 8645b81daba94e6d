//! Handshakes between our two sides, with real bytes.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;
use crate::model::{AgentId, Authority, SystemClock};

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
async fn a_leaf_is_good_for_its_host_alone() {
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
fn hello_is_read_in_pieces() {
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

#[test]
fn refusals_in_tls_are_bounded() {
    let material = CertAuthority::generate("test", Timestamp::UNIX_EPOCH).unwrap();
    let tls = AgentTls::new(CertAuthority::load(&material).unwrap(), Arc::new(SystemClock)).unwrap();
    let agent = AgentId(Uuid::nil());
    let granted = (0..100).filter(|_| tls.may_refuse_readably(agent)).count();
    assert_eq!(granted, 16);
    assert!(tls.may_refuse_readably(AgentId(Uuid::max())));
}

#[tokio::test]
async fn certificates_for_new_hosts_are_bounded() {
    let material =
        CertAuthority::generate("test", Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000));
    let tls = AgentTls::new(CertAuthority::load(&material.unwrap()).unwrap(), Arc::new(SystemClock)).unwrap();
    let agent = AgentId(Uuid::nil());
    let known = "known.test".parse().unwrap();
    // What is made once is at hand, whoever asks, however often.
    let _ = tls.accept(&known, tokio::io::empty()).await;
    assert!((0..1000).all(|_| tls.may_accept(agent, &known)));
    let allowed = (0..1000).filter(|n| tls.may_accept(agent, &format!("h{n}.test").parse().unwrap())).count();
    assert_eq!(allowed, 128);
    assert!(tls.may_accept(agent, &known));
    assert!(tls.may_accept(AgentId(Uuid::max()), &"other.test".parse().unwrap()));
}

/// Whoever can write to the database has the certificate before him, and none of these may get into a bundle.
#[test]
fn an_authority_whose_certificate_was_exchanged_is_refused() {
    let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(490_000);
    let made = || CertAuthority::generate("test", now).unwrap();
    let (good, foreign) = (made(), made());
    let with = |pem: String| CaMaterial { certificate_pem: pem, key_der: good.key_der.clone() };
    CertAuthority::load(&good).unwrap();
    let (ours, theirs) = (&good.certificate_pem, &foreign.certificate_pem);
    for (edited, hint) in [
        (theirs.clone(), "not that of the stored CA key"),
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
        // Sealed with the key, it is refused before that.
        let error = CaMaterial::unsealed(edited, &good.to_seal().unwrap()).unwrap_err();
        assert!(error.to_string().contains("sealed with its key"), "{error}");
    }
}

#[test]
fn what_is_sealed_of_an_authority() {
    let good = CertAuthority::generate("test", Timestamp::UNIX_EPOCH).unwrap();
    let sealed = good.to_seal().unwrap();
    let (again, key_alone) = CaMaterial::unsealed(good.certificate_pem.clone(), &sealed).unwrap();
    assert!(again.certificate_pem == good.certificate_pem && again.key_der == good.key_der && !key_alone);
    // As older versions sealed it.
    let (old, key_alone) = CaMaterial::unsealed(good.certificate_pem.clone(), &good.key_der).unwrap();
    assert!(old.key_der == good.key_der && key_alone);
    for length in 1..good.certificate_pem.len() + 5 {
        assert!(CaMaterial::unsealed(good.certificate_pem.clone(), &sealed[..length]).is_err(), "{length}");
    }
}
