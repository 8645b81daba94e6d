//! The explicit proxy over TLS: the token is not visible on the network, and all else works as in plain text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use onecli_tests::client::{Run, curl, python};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::upstream::Upstream;
use parking_lot::Mutex;

use crate::scene::{API, KEY, VALUE};

/// A name in the proxy's certificate.
const PROXY: &str = "proxy.test";

struct Stage {
    daemon: Daemon,
    upstream: Upstream,
    proxy: SocketAddr,
    outside: Agent,
}

impl Stage {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = free.local_addr().unwrap();
        drop(free);
        let upstream = Upstream::start(&[API]);
        let config = format!("[listen]\nexplicit_tls = [\"{proxy}\"]\nexplicit_tls_names = [\"{PROXY}\"]\n");
        let daemon = Daemon::builder().upstream(&upstream).config(&config).start();
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer", "--env", KEY]);
        let outside = daemon.add_agent("outside", &["--factors", "token"]);
        let _ = daemon.grant(&outside, "api");
        Self { daemon, upstream, proxy, outside }
    }

    /// curl through the proxy by this name, which resolves to `address`.
    fn through(&self, scheme: &str, name: &str, address: SocketAddr, token: &str) -> Run {
        let port = address.port();
        curl(&self.upstream.https_url(API, "/echo"))
            .args(["--proxy", &format!("{scheme}://x:{token}@{name}:{port}")])
            .args(["--resolve", &format!("{name}:{port}:{}", address.ip())])
            .trusting(&self.daemon.ca_file())
    }

    fn injected(&self) -> usize {
        let injected = self.upstream.requests().iter().map(|request| request.count(VALUE)).sum();
        self.upstream.clear();
        injected
    }
}

/// Forwards one connection to `target`, and returns the client's bytes.
fn overheard(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let hearing = Arc::clone(&heard);
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        let (mut back, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut back, &mut to_client));
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            hearing.lock().extend_from_slice(&buffer[..n]);
            server.write_all(&buffer[..n]).unwrap();
        }
    });
    (address, heard)
}

fn holds(heard: &Mutex<Vec<u8>>, text: &str) -> bool {
    heard.lock().windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn curl_uses_the_proxy_over_tls() {
    let stage = Stage::new();
    let token = &stage.outside.token;
    let ca = stage.daemon.ca_file();
    let trusting = |run: Run| run.arg("--proxy-cacert").arg(&ca);
    for name in ["127.0.0.1", PROXY] {
        let reply = trusting(stage.through("https", name, stage.proxy, token)).outcome().reply();
        assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{name}: {reply:?}");
    }
    let record = stage.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["mode"]), (&"outside".into(), &"explicit".into()), "{record}");

    // The bytes that an eavesdropper reads, with TLS and in plain text.
    let field = data_encoding::BASE64.encode(format!("x:{token}").as_bytes());
    let (address, heard) = overheard(stage.proxy);
    let reply = trusting(stage.through("https", PROXY, address, token)).outcome().reply();
    assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{reply:?}");
    assert!(holds(&heard, PROXY), "the server name is in the ClientHello");
    assert!(!holds(&heard, &field) && !holds(&heard, "CONNECT"), "the token is readable on the network");
    let (address, heard) = overheard(stage.daemon.explicit_addr());
    let reply = stage.through("http", PROXY, address, token).outcome().reply();
    assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{reply:?}");
    assert!(holds(&heard, &field), "in plain text it is readable");

    let reply = trusting(stage.through("https", PROXY, stage.proxy, "onecli_at_wrong")).outcome().reply();
    assert_eq!((reply.verdict(), stage.injected()), (407, 0), "{reply:?}");
}

/// A client that does not trust the proxy's certificate sends it no token. A client that speaks plain text gets no
/// response.
#[test]
fn token_is_sent_only_over_tls_with_the_proxys_name() {
    let stage = Stage::new();
    let token = &stage.outside.token;
    let ca = stage.daemon.ca_file();
    let (address, heard) = overheard(stage.proxy);
    // 60: the peer's certificate cannot be verified.
    let other = stage.through("https", "other.test", address, token).arg("--proxy-cacert").arg(&ca);
    assert_eq!(other.outcome().reply().exit, Some(60));
    let roots = stage.through("https", PROXY, stage.proxy, token).arg("--proxy-cacert");
    let untrusting = roots.arg(stage.upstream.ca_file());
    assert_eq!(untrusting.outcome().reply().exit, Some(60));
    let reply = stage.through("http", PROXY, stage.proxy, token).outcome().reply();
    assert_eq!(reply.verdict(), 0, "{reply:?}");
    assert_eq!(stage.injected(), 0);
    assert!(!holds(&heard, "CONNECT"));
    let record = stage.daemon.audit_until("the refusal", |r| r["code"] == "client_tls");
    assert_eq!((&record["event"], &record["mode"]), (&"decision".into(), &"explicit".into()), "{record}");
}

/// A managed process that configures the proxy over TLS is also redirected into it, with both factors.
#[test]
fn managed_process_has_both_factors_over_tls() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    let inside = stage.daemon.add_agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
    let _ = stage.daemon.grant(&inside, "api");
    let ca = stage.daemon.home().dir().join("ca-bundle.pem");
    let curl = |token: &str| {
        let run = curl(&stage.upstream.https_url(API, "/echo"))
            .args(["--proxy", &format!("https://x:{token}@{}", stage.proxy)])
            .arg("--proxy-cacert")
            .arg(&ca);
        stage.daemon.managed(&inside, &run).outcome().reply()
    };
    let reply = curl(&inside.token);
    assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{reply:?}");
    let record = stage.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    let factors = record["factors"].to_string();
    assert!(factors.contains("token") && factors.contains("cgroup"), "{record}");
    assert_eq!(record["mode"], "explicit", "{record}");
    let reply = curl(&stage.outside.token);
    assert!([403, 407].contains(&reply.verdict()), "another agent's token: {reply:?}");
    assert_eq!(stage.injected(), 0);
}

/// A client needs only the output of `agent env` for the TLS address.
#[test]
fn agent_env_names_the_proxy_over_tls() {
    let stage = Stage::new();
    let proxy = stage.proxy.to_string();
    let args = ["agent", "env", "outside", "--for", "shell", "--proxy", &proxy];
    let printed = stage.daemon.onecli(&args).ok("agent env");
    assert!(printed.contains(&format!("@{proxy}")) && printed.contains("HTTPS_PROXY='https://"), "{printed}");
    let url = stage.upstream.https_url(API, "/echo");
    let curl = format!(
        r#"eval "$1"; exec curl --proxy-cacert "$CURL_CA_BUNDLE" -sSf -H "Authorization: Bearer $API_KEY" {url}"#
    );
    Run::new("sh").args(["-c", &curl, "sh", &printed]).outcome().ok("curl");
    assert_eq!(stage.injected(), 1);
    if need::python("requests through TLS to the proxy")
        && let Some(python) = python()
    {
        let script = format!(
            "import os, requests\nprint(requests.get('{url}', headers={{'Authorization': 'Bearer ' + os.environ['API_KEY']}}, timeout=20).status_code)"
        );
        let run = Run::new("sh")
            .args(["-c", r#"eval "$1"; exec "$2" -c "$3""#, "sh", &printed])
            .arg(python)
            .arg(&script);
        assert_eq!(run.outcome().ok("requests"), "200\n");
        assert_eq!(stage.injected(), 1);
    }
}
