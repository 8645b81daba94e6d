//! Upstreams behind the proxy of the operator's network: TLS is verified through it, end to end.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onecli_tests::client::Run;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::{TestCa, Upstream};
use onecli_tests::{need, wait_for};
use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::scene::{API, VALUE, curl_with_key};

/// `user:p@ss` as Basic credentials.
const AUTHORIZATION: &str = "proxy-authorization: Basic dXNlcjpwQHNz";

/// A proxy that records the received heads, and forwards all connections to one of two ports of loopback.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Answers CONNECT with `status`; over TLS if `tls` is set.
    fn start(status: &'static str, upstream: &Upstream, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (noted, https, http) = (Arc::clone(&heads), upstream.https_addr(), upstream.http_addr());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), noted, tls) = (stream, Arc::clone(&noted), tls.clone()) else { return };
                std::thread::spawn(move || serve(stream, tls, status, &noted, https, http));
            }
        });
        Self { address, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().clone()
    }
}

impl Drop for Proxy {
    /// The proxy must receive no header fields for the upstream.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for head in self.heads().iter().filter(|head| head.starts_with("CONNECT ")) {
                onecli_tests::canary::assert_clean("what the proxy reads", head.as_bytes());
            }
        }
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    status: &str,
    heads: &Mutex<Vec<String>>,
    https: SocketAddr,
    http: SocketAddr,
) {
    stream.set_nodelay(true).unwrap();
    let Some(tls) = tls else { return relay(stream, status, heads, https, http) };
    // Bytes are forwarded by polling: rustls' stream cannot be split between two threads.
    let mut secure = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
    let Some(head) = read_head(&mut secure) else { return };
    heads.lock().push(head);
    if secure.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).is_err() || !status.starts_with('2')
    {
        return;
    }
    let mut upstream = TcpStream::connect(https).unwrap();
    secure.flush().unwrap();
    secure.sock.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    upstream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut pending = VecDeque::new();
    loop {
        let mut buffer = [0; 16 * 1024];
        match secure.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => upstream.write_all(&buffer[..read]).unwrap(),
            Err(error) if would_block(&error) => {}
            Err(_) => return,
        }
        match upstream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => pending.extend(buffer[..read].to_vec()),
            Err(error) if would_block(&error) => {}
            Err(_) => return,
        }
        let bytes: Vec<u8> = pending.drain(..).collect();
        if secure.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn relay(
    mut stream: TcpStream,
    status: &str,
    heads: &Mutex<Vec<String>>,
    https: SocketAddr,
    http: SocketAddr,
) {
    let Some(head) = read_head(&mut stream) else { return };
    heads.lock().push(head.clone());
    let connect = head.starts_with("CONNECT ");
    if connect || !status.starts_with('2') {
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    }
    if !status.starts_with('2') {
        return;
    }
    let mut upstream = TcpStream::connect(if connect { https } else { http }).unwrap();
    if !connect {
        upstream.write_all(head.as_bytes()).unwrap();
    }
    let (mut from, mut to) = (stream.try_clone().unwrap(), upstream.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut upstream, &mut stream);
}

/// A daemon that knows only the proxy's address, not the upstream's.
struct Behind {
    daemon: Daemon,
    upstream: Upstream,
    agent: Agent,
}

impl Behind {
    fn new(upstream: Upstream, name: &str, config: &str) -> Self {
        let mut config: String = config.to_owned();
        if !config.contains("extra_ca_files") {
            config = format!("{config}\nextra_ca_files = [\"{}\"]", upstream.ca_file().display());
        }
        let daemon = Daemon::builder().no_ebpf().config(&format!("[upstream]\n{config}\n")).start();
        let agent = daemon.add_agent("outside", &["--factors", "token"]);
        for (secret, port, extra) in [
            ("api", upstream.https_addr().port(), &["--bearer"][..]),
            ("plain", upstream.http_addr().port(), &["--bearer", "--allow-plaintext"]),
        ] {
            let host = format!("{name}:{port}");
            daemon.add_secret(secret, VALUE, &[&["--host", &host], extra].concat());
            let _ = daemon.grant(&agent, secret);
        }
        Self { daemon, upstream, agent }
    }

    fn fetch(&self, url: &str, args: &[&str]) -> onecli_tests::client::Reply {
        self.daemon.explicit(&self.agent.token, curl_with_key(url, args)).outcome().reply()
    }

    /// Checks that both versions over TLS, and plain HTTP, arrive with the credential.
    fn works(&self, name: &str) {
        for (url, version) in [
            (self.upstream.https_url(name, "/echo"), "--http1.1"),
            (self.upstream.https_url(name, "/echo"), "--http2"),
            (self.upstream.http_url(name, "/echo"), "--http1.1"),
        ] {
            self.upstream.clear();
            let reply = self.fetch(&url, &[version]);
            assert_eq!(reply.verdict(), 200, "{url}: {reply:?}");
            let seen = self.upstream.only_request();
            assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {VALUE}")), "{seen:#?}");
        }
    }
}

fn password_file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400)).unwrap();
    let path = file.display().to_string();
    (dir, path)
}

#[test]
fn proxy_is_used_by_connect_and_in_absolute_form() {
    let upstream = Upstream::start(&[API]);
    let proxy = Proxy::start("200 OK", &upstream, None);
    let (_dir, file) = password_file("p@ss\n");
    let config = format!(
        "proxy = \"http://user@{}\"\nproxy_password_file = \"{file}\"\nno_proxy = [\"direct.test\"]",
        proxy.address
    );
    let behind = Behind::new(upstream, API, &config);
    behind.works(API);
    let (https, http) = (behind.upstream.https_addr().port(), behind.upstream.http_addr().port());
    for head in proxy.heads() {
        let lower = head.replace("Proxy-Authorization", "proxy-authorization");
        assert!(lower.contains(AUTHORIZATION), "{head}");
        let connect = head.starts_with(&format!("CONNECT {API}:{https} HTTP/1.1\r\n"));
        let absolute = head.starts_with(&format!("GET http://{API}:{http}/echo HTTP/1.1\r\n"));
        assert!(connect || absolute, "{head}");
        // No process on the network can read TLS; plain HTTP was explicitly allowed.
        assert!(absolute || !head.contains("Bearer"), "{head}");
    }
    // The password is nowhere that an agent or a log reader looks.
    assert!(!behind.daemon.home().log().contains("p@ss"));
    let record = behind.daemon.audit_until("the proxy's address", |r| r["verdict"] == "inject");
    assert_eq!(record["address"], proxy.address.to_string(), "{record}");

    // Hosts that bypass the proxy are resolved here, and cannot be resolved.
    let before = proxy.heads().len();
    let host = format!("direct.test:{https}");
    behind.daemon.add_secret("direct", VALUE, &["--host", &host, "--bearer"]);
    let _ = behind.daemon.grant(&behind.agent, "direct");
    let reply = behind.fetch(&format!("https://{host}/echo"), &[]);
    assert_eq!(reply.header("x-onecli-error"), Some("upstream_resolve"), "{reply:?}");
    // The daemon does not request an address that it would not dial itself.
    let blocked = format!("10.0.0.1:{https}");
    behind.daemon.add_secret("blocked", VALUE, &["--host", &blocked, "--bearer"]);
    let _ = behind.daemon.grant(&behind.agent, "blocked");
    let reply = behind.fetch(&format!("https://{blocked}/echo"), &[]);
    assert_eq!(reply.header("x-onecli-error"), Some("address_blocked"), "{reply:?}");
    assert_eq!(proxy.heads().len(), before);
}

#[test]
fn proxy_is_used_over_tls() {
    let upstream = Upstream::start(&[API]);
    let ca = TestCa::new("the proxy's CA");
    let (chain, key) = ca.leaf(&["127.0.0.1".to_owned()]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let proxy = Proxy::start("200 OK", &upstream, Some(Arc::new(tls)));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy-ca.pem");
    std::fs::write(&file, ca.pem()).unwrap();
    let trusted = |files: &[&Path]| format!("extra_ca_files = {files:?}");
    let address = format!("proxy = \"https://user:p%40ss@{}\"", proxy.address);
    let config = format!("{address}\n{}", trusted(&[upstream.ca_file(), &file]));
    let behind = Behind::new(upstream, API, &config);
    let reply = behind.fetch(&behind.upstream.https_url(API, "/echo"), &["--http2"]);
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    assert_eq!(behind.upstream.request_count(), 1);
    assert!(proxy.heads()[0].contains("CONNECT api.test:"), "{:?}", proxy.heads());

    // A proxy without a valid certificate receives nothing.
    let strange = Behind::new(Upstream::start(&[API]), API, &address);
    let seen = proxy.heads().len();
    let reply = strange.fetch(&strange.upstream.https_url(API, "/echo"), &[]);
    assert_eq!(reply.header("x-onecli-error"), Some("upstream_tls"), "{reply:?}");
    assert_eq!(proxy.heads().len(), seen);
}

/// A proxy that refuses, or connects elsewhere, receives no credential.
#[test]
fn proxy_that_refuses_or_misroutes_receives_no_credential() {
    for (status, words) in
        [("407 Proxy Authentication Required", "other credentials"), ("403 Forbidden", "status 403")]
    {
        let upstream = Upstream::start(&[API]);
        let proxy = Proxy::start(status, &upstream, None);
        let behind = Behind::new(upstream, API, &format!("proxy = \"http://{}\"", proxy.address));
        let reply = behind.fetch(&behind.upstream.https_url(API, "/echo"), &[]);
        assert_eq!(
            (reply.verdict(), reply.header("x-onecli-error")),
            (502, Some("upstream_connect")),
            "{reply:?}"
        );
        let error = reply.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("[upstream] proxy"), "{error}");
        assert_eq!(behind.upstream.request_count(), 0);
    }
    // It connects to a server whose certificate is for another name.
    let (other, elsewhere) = (Upstream::start(&["other.test"]), Upstream::start(&[API]));
    let proxy = Proxy::start("200 OK", &other, None);
    let config = format!("proxy = \"http://{}\"\nextra_ca_files = [{:?}]", proxy.address, other.ca_file());
    let behind = Behind::new(elsewhere, API, &config);
    let reply = behind.fetch(&behind.upstream.https_url(API, "/echo"), &[]);
    assert_eq!(reply.header("x-onecli-error"), Some("upstream_tls"), "{reply:?}");
    assert_eq!(other.request_count() + behind.upstream.request_count(), 0);
}

/// A typical network proxy.
#[test]
fn tinyproxy_works_as_the_upstream_proxy() {
    if !need::program("everything", "tinyproxy", "tinyproxy") {
        return;
    }
    let upstream = Upstream::start(&["localhost"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tinyproxy.conf");
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nAllow 127.0.0.1\nBasicAuth user pass1\n\
         DisableViaHeader Yes\nLogLevel Error\nLogFile \"{}/log\"\n",
        dir.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let running = Run::new("tinyproxy").args(["-d", "-c"]).arg(&file).start();
    let up = wait_for(Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(up.is_some(), "tinyproxy listens");
    let behind =
        Behind::new(upstream, "localhost", &format!("proxy = \"http://user:pass1@127.0.0.1:{port}\""));
    behind.works("localhost");
    drop(running);
}

/// A name that only the proxy can resolve works without proxy variables too: inspected, as a tunnel, and for bytes that
/// are passed unread. A host that bypasses the proxy does not.
#[test]
fn transparent_agent_reaches_names_that_only_the_proxy_resolves() {
    if !need::bpf("everything") {
        return;
    }
    let names = [API, "tunnel.test", "direct.test"];
    let upstream = Upstream::start(&names);
    let proxy = Proxy::start("200 OK", &upstream, None);
    let config = format!(
        "[upstream]\nproxy = \"http://{}\"\nno_proxy = [\"direct.test\"]\nextra_ca_files = [{:?}]\n",
        proxy.address,
        upstream.ca_file()
    );
    let daemon = Daemon::builder().config(&config).start();
    let agent = daemon.add_agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
    let port = upstream.https_addr().port();
    let host = format!("{API}:{port}");
    daemon.add_secret("api", VALUE, &["--host", &host, "--bearer", "--env", crate::scene::KEY]);
    let _ = daemon.grant(&agent, "api");
    let other_port = port.to_string();
    for (name, port) in [("tunnel.test", &*other_port), ("direct.test", &other_port), ("raw.test", "2222")] {
        let rule = ["rule", "add", "allow", "--agent", "inside", "--host", name, "--port", port];
        let _ = daemon.onecli(&rule).ok("rule");
    }
    let run = |run: &Run| daemon.managed(&agent, run).outcome();
    for version in ["--http1.1", "--http2"] {
        let reply = run(&curl_with_key(&upstream.https_url(API, "/echo"), &[version])).reply();
        assert_eq!(reply.verdict(), 200, "{version}: {reply:?}");
        let seen = upstream.only_request();
        upstream.clear();
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {VALUE}")), "{seen:#?}");
    }
    let insecure = |name| onecli_tests::client::curl(&upstream.https_url(name, "/echo")).arg("--insecure");
    let reply = run(&insecure("tunnel.test")).reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    let reply = run(&insecure("direct.test")).reply();
    assert_eq!(reply.exit, Some(6), "the name does not exist: {reply:?}");
    let script = "import socket; s = socket.create_connection(('raw.test', 2222)); s.sendall(b'SSH-2.0-x\\r\\n'); s.recv(1)";
    let _ = run(&Run::new("python3").args(["-c", script]));
    let heads = proxy.heads();
    for target in [host, format!("tunnel.test:{port}"), "raw.test:2222".to_owned()] {
        assert!(
            heads.iter().any(|head| head.starts_with(&format!("CONNECT {target} "))),
            "{target}: {heads:?}"
        );
    }
    assert!(!heads.iter().any(|head| head.contains("direct.test")), "{heads:?}");
}
