//! The message for an agent when TLS with an upstream fails: the reason, and a matching next step.

use std::net::TcpListener;

use onecli_tests::client;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use serde_json::Value;

use crate::openssl::{certificates, serve};

const HOST: &str = "api.test";

/// A root, a server, one signed with SHA-1, one that has expired, and one of an untrusted authority.
const MAKE: &str = r"
set -e
key() { openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out $1.key 2>/dev/null; }
root() {
  key $1
  openssl req -x509 -new -key $1.key -subj /CN=$1 -days 30 -out $1.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}
certificate() {
  name=$1 issuer=$2 host=$3; shift 3
  key $name
  openssl req -new -key $name.key -subj /CN=$name -out $name.csr
  printf 'subjectAltName=DNS:%s\n' $host > $name.ext
  openssl x509 -req -in $name.csr -CA $issuer.pem -CAkey $issuer.key -CAcreateserial -extfile $name.ext \
    -out $name.pem $@ 2>/dev/null
}
root trusted
root stranger
certificate good trusted api.test -days 30
certificate weak trusted api.test -days 30 -sha1
certificate old trusted api.test -days -1
certificate other trusted other.test -days 30
certificate unknown stranger api.test -days 30
";

struct Stage {
    dir: tempfile::TempDir,
    daemon: Daemon,
    agent: Agent,
}

impl Stage {
    fn new() -> Self {
        let dir = certificates(MAKE);
        let root = dir.path().join("trusted.pem");
        let config = format!("[upstream]\nextra_ca_files = [\"{}\"]\n", root.display());
        let daemon = Daemon::builder().host(HOST, &["127.0.0.1"]).config(&config).no_ebpf().start();
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        Self { dir, daemon, agent }
    }

    /// Message and hint; `None` if the request succeeds.
    fn refusal(&self, port: u16) -> Option<(String, String)> {
        let authority = format!("{HOST}:{port}");
        let secret = format!("port-{port}");
        self.daemon.add_secret(&secret, "real-credential-0123456789", &["--host", &authority, "--bearer"]);
        let key = format!("Authorization: Bearer {}", self.daemon.grant(&self.agent, &secret).placeholder);
        let run = client::curl(&format!("https://{authority}/")).args(["--header", &key]);
        let reply = self.daemon.explicit(&self.agent.token, run).outcome().reply();
        if reply.verdict() == 200 {
            return None;
        }
        assert_eq!(reply.header("x-onecli-error"), Some("upstream_tls"), "{reply:?}");
        let error: Value = reply.json();
        let text = |key: &str| error["error"][key].as_str().unwrap_or_default().to_owned();
        Some((text("message"), text("hint")))
    }
}

#[test]
fn tls_failures_have_distinct_messages() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    const CERTIFICATE: &str = "extra_ca_files";
    const CLIENT: &str = "cannot present client certificates";
    let stage = Stage::new();
    let check = |name: &str, options: &[&str], message: &str, hint: &str| {
        let (_server, port) = serve(stage.dir.path(), name, options);
        let (explanation, next) =
            stage.refusal(port).unwrap_or_else(|| panic!("{name} {options:?} answered"));
        assert!(
            explanation.contains(message) && next.contains(hint),
            "{name} {options:?}: {explanation:?}, {next:?}"
        );
        let dumped =
            explanation.contains('{') || explanation.contains("Context") || explanation.contains("[4");
        assert!(!dumped, "the message has a debug format: {explanation}");
    };
    let wanted = ["-Verify", "1", "-verify_return_error"];
    for version in ["-tls1_2", "-tls1_3"] {
        check("good", &[&wanted[..], &[version]].concat(), "client certificate", CLIENT);
    }
    check("good", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "neither TLS 1.2 nor TLS 1.3", "RFC 8996");
    check("good", &["-tls1_2", "-cipher", "AES128-SHA256"], "no cipher suite", "RFC 9325");
    check("weak", &["-cipher", "DEFAULT@SECLEVEL=0"], "SHA-1", "SHA-256");
    check("old", &[], "expired", CERTIFICATE);
    check("other", &[], "other.test", CERTIFICATE);
    check("unknown", &[], "unknown authority", CERTIFICATE);
    // A server that requests a client certificate and continues without one is not affected.
    let (_server, port) = serve(stage.dir.path(), "good", &["-verify", "1"]);
    assert_eq!(stage.refusal(port), None);
}

#[test]
fn port_without_tls_is_reported() {
    let stage = Stage::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let (explanation, next) = stage.refusal(port).unwrap();
    assert!(
        explanation.contains("answer is not TLS") && next.contains("plain HTTP"),
        "{explanation:?}, {next:?}"
    );
    server.join().unwrap();
}
