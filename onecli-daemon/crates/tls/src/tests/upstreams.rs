//! Certificates of upstreams: chains made by openssl(1), and a test server that staples a given response.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

/// Creates keys, certificates and the responder's index in the working directory.
const MAKE: &str = r#"
set -e
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1.key 2>/dev/null; }
# NAME ISSUER EXTENSIONS...
certificate() {
  name=$1 issuer=$2; shift 2
  key $name
  openssl req -new -key $name.key -subj "/CN=$name" -out $name.csr
  printf '%s\n' "$@" > $name.ext
  openssl x509 -req -in $name.csr -CA $issuer.pem -CAkey $issuer.key -days 30 -extfile $name.ext -out $name.pem \
    -set_serial 0x$(openssl rand -hex 8 | sed 's/^../7f/') 2>/dev/null
}
key root
openssl req -x509 -new -key root.key -subj /CN=root -days 30 -out root.pem \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
certificate signer root basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign
certificate unsaid root basicConstraints=critical,CA:TRUE
certificate nosigner root basicConstraints=critical,CA:TRUE keyUsage=critical,digitalSignature
certificate responder signer extendedKeyUsage=OCSPSigning
certificate impostor signer extendedKeyUsage=serverAuth
certificate elsewhere root extendedKeyUsage=OCSPSigning
certificate plain signer subjectAltName=DNS:api.test
certificate other signer subjectAltName=DNS:api.test
certificate must signer subjectAltName=DNS:api.test tlsfeature=status_request
certificate of-root root subjectAltName=DNS:api.test
certificate of-unsaid unsaid subjectAltName=DNS:api.test
certificate of-nosigner nosigner subjectAltName=DNS:api.test
key short
openssl req -x509 -new -key short.key -subj /CN=short -days 30 -out short.pem \
  -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign
key mute
openssl req -x509 -new -key mute.key -subj /CN=mute -days 30 -out mute.pem \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature
certificate below short basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign
certificate of-short short subjectAltName=DNS:api.test
certificate of-below below subjectAltName=DNS:api.test
# NAME ISSUER SIGNER STATUS OUT OPTIONS...
staple() {
  name=$1 issuer=$2 by=$3 status=$4 out=$5; shift 5
  serial=$(openssl x509 -in $name.pem -noout -serial | cut -d= -f2)
  case $status in
    good) printf 'V\t490101000000Z\t\t%s\tunknown\t/CN=%s\n' $serial $name ;;
    revoked) printf 'R\t490101000000Z\t200101000000Z\t%s\tunknown\t/CN=%s\n' $serial $name ;;
    *) printf 'V\t490101000000Z\t\t01\tunknown\t/CN=else\n' ;;
  esac > $out.index
  openssl ocsp -issuer $issuer.pem -cert $name.pem -reqout $out.req >/dev/null 2>&1
  openssl ocsp -index $out.index -CA $issuer.pem -rsigner $by.pem -rkey $by.key -reqin $out.req -respout $out \
    "$@" >/dev/null 2>&1
}
for name in plain must; do
  staple $name signer signer good $name.good -ndays 1
  staple $name signer signer revoked $name.revoked -ndays 1
  staple $name signer signer unknown $name.unknown -ndays 1
  staple $name signer responder good $name.delegated -ndays 1
  staple $name signer responder revoked $name.delegated-revoked -ndays 1
  staple $name signer impostor revoked $name.impostor -ndays 1
  staple $name signer impostor good $name.impostor-good -ndays 1
  staple $name signer elsewhere good $name.elsewhere -ndays 1
  staple $name signer signer good $name.endless
done
staple other signer signer revoked other.revoked -ndays 1
staple of-root root root revoked of-root.revoked -ndays 1
head -c 200 /dev/urandom > garbage
printf '\060\003\012\001\003' > try-later
"#;

struct Authority {
    dir: tempfile::TempDir,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Authority {
    fn new() -> Authority {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("sh").args(["-c", MAKE]).current_dir(dir.path()).status().unwrap();
        assert!(made.success());
        Authority { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Runs openssl's own server with this certificate, chain and staple.
    fn serve(
        &self,
        name: &str,
        chain: &str,
        staple: Option<&str>,
        options: &[&str],
    ) -> (Server, std::net::SocketAddr) {
        let mut server = Command::new("openssl");
        server.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", &format!("{name}.pem")]);
        server.args(["-key", &format!("{name}.key"), "-cert_chain", &format!("{chain}.pem")]).args(options);
        if let Some(staple) = staple {
            assert!(self.path(staple).is_file(), "{staple}");
            server.args(["-status_file", staple]);
        }
        let mut server = server
            .current_dir(self.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(server.stdout.take().unwrap());
        let line = out.lines().map_while(Result::ok).find(|line| line.starts_with("ACCEPT ")).unwrap();
        (Server(server), line["ACCEPT ".len()..].parse().unwrap())
    }

    fn client(&self) -> UpstreamTls {
        UpstreamTls::new(&[self.path("root.pem")]).unwrap()
    }

    async fn connect(&self, name: &str, chain: &str, staple: Option<&str>) -> Result<(), String> {
        let mut outcomes = Vec::new();
        for version in ["-tls1_2", "-tls1_3"] {
            let (_server, address) = self.serve(name, chain, staple, &[version]);
            outcomes.push(shake(&self.client(), address).await.map(drop));
        }
        assert_eq!(outcomes[0], outcomes[1], "TLS 1.2 and 1.3: {name} {staple:?}");
        outcomes.remove(0)
    }
}

async fn shake(
    client: &UpstreamTls,
    address: std::net::SocketAddr,
) -> Result<VerifiedStream<TcpStream>, String> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let authority = onecli_model::Authority::parse("api.test", Some(443)).unwrap();
    let connected = client.connect(AgentId(Uuid::nil()), &authority, Alpn::Http1, tcp).await;
    connected.map_err(|error| error.to_string())
}

#[tokio::test]
async fn revoked_and_unknown_certificates_are_refused() {
    let all = Authority::new();
    for (staple, reason) in [
        ("plain.revoked", "the certificate is revoked"),
        ("plain.delegated-revoked", "the certificate is revoked"),
        ("plain.unknown", "the issuer does not know the certificate"),
    ] {
        let error = all.connect("plain", "signer", Some(staple)).await.unwrap_err();
        assert!(
            error.contains("TLS with api.test:443 failed") && error.contains(reason),
            "{staple}: {error}"
        );
    }
    let error = all.connect("of-root", "root", Some("of-root.revoked")).await.unwrap_err();
    assert!(error.contains("the certificate is revoked"), "{error}");
    for staple in [None, Some("plain.good"), Some("plain.delegated"), Some("plain.endless")] {
        assert_eq!(all.connect("plain", "signer", staple).await, Ok(()), "{staple:?}");
    }
    // An invalid staple counts as no staple.
    for staple in ["plain.impostor", "plain.elsewhere", "other.revoked", "try-later"] {
        assert_eq!(all.connect("plain", "signer", Some(staple)).await, Ok(()), "{staple}");
    }
}

#[tokio::test]
async fn a_certificate_that_requires_a_staple_is_refused_without_a_good_one() {
    let all = Authority::new();
    for staple in ["must.good", "must.delegated", "must.endless"] {
        assert_eq!(all.connect("must", "signer", Some(staple)).await, Ok(()), "{staple}");
    }
    let error = all.connect("must", "signer", None).await.unwrap_err();
    assert!(error.contains("requires a stapled OCSP response (RFC 7633), and none came"), "{error}");
    for (staple, reason) in [
        ("must.impostor-good", "neither the issuer nor a responder of the issuer signed it"),
        ("must.elsewhere", "neither the issuer nor a responder of the issuer signed it"),
        ("plain.good", "it is about another certificate"),
        ("try-later", "it is not a successful response"),
        ("must.revoked", "the certificate is revoked"),
    ] {
        let error = all.connect("must", "signer", Some(staple)).await.unwrap_err();
        assert!(error.contains(reason), "{staple}: {error}");
    }
}

#[tokio::test]
async fn an_intermediate_must_be_allowed_to_sign() {
    let all = Authority::new();
    let error = all.connect("of-nosigner", "nosigner", None).await.unwrap_err();
    assert!(error.contains("its key usage lacks keyCertSign"), "{error}");
    assert_eq!(all.connect("of-unsaid", "unsaid", None).await, Ok(()), "without a key usage");
    assert_eq!(all.connect("of-root", "root", None).await, Ok(()), "without an intermediate");
}

#[tokio::test]
async fn path_length_of_a_configured_root_is_enforced() {
    let all = Authority::new();
    let client = UpstreamTls::new(&[all.path("short.pem")]).unwrap();
    let (_server, address) = all.serve("of-short", "short", None, &["-tls1_3"]);
    assert!(shake(&client, address).await.is_ok(), "without an intermediate");
    let (_server, address) = all.serve("of-below", "below", None, &["-tls1_3"]);
    let error = shake(&client, address).await.unwrap_err();
    assert!(
        error.contains("1 intermediate certificates, and the path length of its root allows 0"),
        "{error}"
    );
    // The same chain may end at another root.
    let client = UpstreamTls::new(&[all.path("short.pem"), all.path("below.pem")]).unwrap();
    assert!(shake(&client, address).await.is_ok(), "with the intermediate as a root");
}

#[test]
fn a_configured_root_must_be_allowed_to_sign() {
    let all = Authority::new();
    let error = UpstreamTls::new(&[all.path("mute.pem")]).unwrap_err().to_string();
    assert!(error.contains("mute.pem") && error.contains("'CN=mute' lacks keyCertSign"), "{error}");
    assert!(UpstreamTls::new(&[all.path("unsaid.pem")]).is_ok(), "without a key usage");
}

/// A failed handshake stores no session, and a resumed session has the verdict of its handshake.
#[tokio::test]
async fn resumed_session_has_the_verdict_of_its_handshake() {
    let all = Authority::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let client = all.client();
        let (_server, address) = all.serve("plain", "signer", Some("plain.revoked"), &[version]);
        for _ in 0..3 {
            let error = shake(&client, address).await.unwrap_err();
            assert!(error.contains("the certificate is revoked"), "{version}: {error}");
        }
    }
}

/// A staple is valid only between its two dates, except for "revoked".
#[tokio::test]
async fn staples_are_valid_only_between_their_dates() {
    use super::super::ocsp::{CheckedCertificate, Status, Unusable, status};
    use rustls::pki_types::UnixTime;
    use webpki::EndEntityCert;

    let all = Authority::new();
    let read =
        |name: &Path| rustls::pki_types::CertificateDer::from_pem_file(all.path("").join(name)).unwrap();
    let (leaf, issuer) = (read(Path::new("plain.pem")), read(Path::new("signer.pem")));
    let leaf = EndEntityCert::try_from(&leaf).unwrap();
    let now = SystemClock.now().as_second();
    let at = |staple: &str, offset: i64| {
        let subject = CheckedCertificate {
            serial: leaf.serial(),
            issuer_name: leaf.issuer(),
            issuer: webpki::anchor_from_trusted_cert(&issuer).unwrap(),
        };
        let time = std::time::Duration::from_secs((now + offset).unsigned_abs());
        status(&std::fs::read(all.path(staple)).unwrap(), &subject, UnixTime::since_unix_epoch(time))
    };
    let day = 24 * 60 * 60;
    for staple in ["plain.good", "plain.endless"] {
        assert_eq!(at(staple, -60), Ok(Status::Good), "{staple}: clocks differ");
        assert_eq!(at(staple, day - 60), Ok(Status::Good), "{staple}");
        assert_eq!(at(staple, day + 400), Err(Unusable::Outdated), "{staple}");
        assert_eq!(at(staple, -600), Err(Unusable::Outdated), "{staple}: of the future");
    }
    assert_eq!(at("plain.revoked", 10 * day), Ok(Status::Revoked));
    assert_eq!(at("plain.revoked", -600), Err(Unusable::Outdated));
    assert_eq!(at("plain.unknown", 2 * day), Err(Unusable::Outdated));
    assert_eq!(at("garbage", 0), Err(Unusable::Malformed));
    assert_eq!(at("try-later", 0), Err(Unusable::Unsuccessful));
    // A changed byte never yields a status for another certificate, or another status.
    let good = std::fs::read(all.path("plain.revoked")).unwrap();
    for byte in 0..good.len() {
        let mut changed = good.clone();
        changed[byte] ^= 0x10;
        std::fs::write(all.path("changed"), &changed).unwrap();
        let status = at("changed", 0);
        let harmless = status == Ok(Status::Revoked);
        assert!(status.is_err() || harmless, "byte {byte}: {status:?}");
    }
}
