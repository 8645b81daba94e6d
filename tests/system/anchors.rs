//! Certificates that an operator configures as roots, and the restrictions of their extensions.

use std::time::Duration;

use onecli_tests::client;
use onecli_tests::daemon::Daemon;
use onecli_tests::need;

use crate::openssl::{certificates, serve};

const HOST: &str = "api.test";

/// Creates the roots `short` (path length 0) and `mute` (no keyCertSign), an intermediate `below`, and two servers.
const MAKE: &str = r"
set -e
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1.key 2>/dev/null; }
root() { key $1; openssl req -x509 -new -key $1.key -subj /CN=$1 -days 30 -out $1.pem -addext $2 -addext $3; }
certificate() {
  key $1
  openssl req -new -key $1.key -subj /CN=$1 -out $1.csr
  printf '%s\n' $3 $4 > $1.ext
  openssl x509 -req -in $1.csr -CA $2.pem -CAkey $2.key -days 30 -extfile $1.ext -out $1.pem -CAcreateserial 2>/dev/null
}
root short basicConstraints=critical,CA:TRUE,pathlen:0 keyUsage=critical,keyCertSign
root mute basicConstraints=critical,CA:TRUE keyUsage=critical,digitalSignature
certificate below short basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign
certificate direct short subjectAltName=DNS:api.test
certificate deep below subjectAltName=DNS:api.test
";

#[test]
fn path_length_of_a_configured_root_is_enforced() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let dir = certificates(MAKE);
    let root = dir.path().join("short.pem");
    let config = format!("[upstream]\nextra_ca_files = [{root:?}]\n");
    let daemon = Daemon::builder().host(HOST, &["127.0.0.1"]).config(&config).no_ebpf().start();
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let check = |name: &str, issuer: &str, expected: Option<&str>| {
        let (_server, port) = serve(dir.path(), name, &["-cert_chain", &format!("{issuer}.pem")]);
        let secret = format!("for-{name}");
        daemon.add_secret(
            &secret,
            "real-credential-0123456789",
            &["--host", &format!("{HOST}:{port}"), "--bearer"],
        );
        let key = format!("Authorization: Bearer {}", daemon.grant(&agent, &secret).placeholder);
        let run = client::curl(&format!("https://{HOST}:{port}/")).args(["-H", &key]);
        let reply = daemon.explicit(&agent.token, run).outcome().reply();
        assert_eq!(reply.header("x-onecli-error"), expected, "{name}: {reply:?}");
        if expected.is_some() {
            assert!(reply.text().contains("the path length of its root allows 0"), "{reply:?}");
        }
    };
    check("direct", "short", None);
    check("deep", "below", Some("upstream_tls"));
}

#[test]
fn root_without_key_cert_sign_is_refused_at_start() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let dir = certificates(MAKE);
    let root = dir.path().join("mute.pem");
    let config = format!("[upstream]\nextra_ca_files = [{root:?}]\n");
    let home = Daemon::builder().config(&config).no_ebpf().prepare();
    let outcome = home.daemon(&["--no-ebpf"]).timeout(Duration::from_secs(15)).outcome();
    assert!(!outcome.timed_out && outcome.code() != Some(0), "{outcome:?}");
    let text = format!("{}{}", outcome.err(), home.log());
    assert!(text.contains("mute.pem") && text.contains("'CN=mute' lacks keyCertSign"), "{text}");
}
