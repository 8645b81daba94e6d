//! Certificates that an operator names as roots, and what their extensions allow.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use onecli_tests::client;
use onecli_tests::daemon::Daemon;
use onecli_tests::need;

const HOST: &str = "api.test";

/// Roots `short` (path length 0) and `mute` (no keyCertSign), an intermediate `below`, and two servers.
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

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn certificates() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("sh").args(["-c", MAKE]).current_dir(dir.path()).stderr(Stdio::null()).status();
    assert!(made.unwrap().success());
    dir
}

/// openssl's server with the certificate `name`, and its port.
fn serve(dir: &tempfile::TempDir, name: &str, issuer: &str) -> (Server, u16) {
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", &format!("{name}.pem")])
        .args(["-key", &format!("{name}.key"), "-cert_chain", &format!("{issuer}.pem")])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(server.stdout.take().unwrap());
    let line = out.lines().map_while(Result::ok).find(|line| line.starts_with("ACCEPT ")).unwrap();
    (Server(server), line.rsplit(':').next().unwrap().parse().unwrap())
}

#[test]
fn the_path_length_of_a_configured_root_holds() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let dir = certificates();
    let root = dir.path().join("short.pem");
    let config = format!("[upstream]\nextra_ca_files = [{root:?}]\n");
    let daemon = Daemon::builder().host(HOST, &["127.0.0.1"]).config(&config).no_ebpf().start();
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let check = |name: &str, issuer: &str, expected: Option<&str>| {
        let (_server, port) = serve(&dir, name, issuer);
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
fn a_root_that_must_not_sign_is_refused_at_start() {
    if !need::program("everything", "openssl", "openssl") {
        return;
    }
    let dir = certificates();
    let root = dir.path().join("mute.pem");
    let config = format!("[upstream]\nextra_ca_files = [{root:?}]\n");
    let home = Daemon::builder().config(&config).no_ebpf().prepare();
    let outcome = home.daemon(&["--no-ebpf"]).timeout(Duration::from_secs(15)).outcome();
    assert!(!outcome.timed_out && outcome.code() != Some(0), "{outcome:?}");
    let text = format!("{}{}", outcome.err(), home.log());
    assert!(text.contains("mute.pem") && text.contains("'CN=mute' lacks keyCertSign"), "{text}");
}
