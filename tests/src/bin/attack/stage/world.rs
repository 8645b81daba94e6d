//! The environment of a technique: a daemon, an upstream with the behaviour that the technique needs, and an agent with
//! a token.

pub(crate) use onecli_tests::scripted::{Conn, server_config};

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use onecli_tests::daemon::{Agent, Builder, Daemon, Granted};
use onecli_tests::scripted::{ScriptedUpstream, read_http1};
use onecli_tests::upstream::TestCa;
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};

use crate::wire::http1::read_rest;
use crate::wire::http2::Http2;
use crate::wire::tunnel::trusting;
use crate::wire::{Answer, Tunnel};

/// The host that the first secret is for.
pub(crate) const A: &str = "a.test";
/// Another host at the same address.
pub(crate) const B: &str = "b.test";
/// The value of the first secret: letters and digits, like most API keys.
pub(crate) const VALUE: &str = "sk7Qx2mZt9Lr4WbN8cYp3VdK6hJf1GsT";

/// A large quota, because one agent makes all requests.
const QUOTA: &str = "[audit]\nagent_rate = 1000000\nagent_bytes = \"1TiB\"";

/// A request as the upstream received it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The path's last segment, without the query.
    pub(crate) fn last_segment(&self) -> &str {
        let path = self.target().split('?').next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// Returns whether head or body contains `text`.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.head.contains(text) || memchr::memmem::find(&self.body, text.as_bytes()).is_some()
    }
}

/// Responds to one request. An error closes the connection.
pub(crate) type Handler = dyn Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync;

/// An HTTP/1.1 TLS server whose handler writes its responses byte by byte.
pub(crate) struct Script {
    upstream: ScriptedUpstream,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Script {
    /// Serves `names` with a certificate of its own CA.
    pub(crate) fn start(
        names: &[&str],
        handler: impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let ca = TestCa::new("attack upstream CA");
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let (chain, key) = ca.leaf(&names);
        let config = server_config().with_single_cert(chain, key).expect("the leaf fits its key");
        Self::with(config, ca.pem(), Arc::new(handler))
    }

    /// Serves with this configuration. A client must trust `ca_pem`.
    pub(crate) fn with(config: ServerConfig, ca_pem: &str, handler: Arc<Handler>) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let log = Arc::clone(&seen);
        let serve = move |_, conn: &mut Conn| serve(conn, &*handler, &log);
        Self { upstream: ScriptedUpstream::with(Ipv4Addr::LOCALHOST, A, config, ca_pem, serve), seen }
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Deletes the recorded requests.
    pub(crate) fn clear(&self) {
        self.seen.lock().clear();
    }

    /// Returns whether any request contained `text`.
    pub(crate) fn saw(&self, text: &str) -> bool {
        self.seen().iter().any(|seen| seen.has(text))
    }
}

fn serve(conn: &mut Conn, handler: &Handler, log: &Mutex<Vec<Seen>>) -> io::Result<()> {
    loop {
        let (head, body) = read_http1(conn)?;
        let seen = Seen { head, body };
        log.lock().push(seen.clone());
        handler(&seen, conn)?;
        conn.flush()?;
    }
}

/// Responds with 200 and a Content-Length.
pub(crate) fn reply(conn: &mut Conn, body: impl AsRef<[u8]>) -> io::Result<()> {
    reply_with(conn, "", body)
}

/// Responds with 200, a Content-Length and additional header lines.
pub(crate) fn reply_with(conn: &mut Conn, fields: &str, body: impl AsRef<[u8]>) -> io::Result<()> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
    conn.write_all(&[head.as_bytes(), body].concat())
}

/// A daemon without kernel programs, an upstream, and an agent.
pub(crate) struct World {
    // Fields are dropped in this order: the daemon first, so that its log reports no missing upstream.
    pub(crate) daemon: Daemon,
    pub(crate) script: Script,
    pub(crate) agent: Agent,
}

impl World {
    /// A world without a secret; the agent is named `bot`.
    pub(crate) fn new(handler: impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::of(Script::start(&[A, B], handler), &[A, B])
    }

    /// A world with the secret `key` for [`A`], granted to the agent.
    pub(crate) fn with_key(
        options: &[&str],
        handler: impl Fn(&Seen, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> (Self, Granted) {
        let world = Self::new(handler);
        let granted = world.give("key", A, VALUE, options);
        (world, granted)
    }

    /// A daemon that trusts `script` and resolves `names` to it.
    pub(crate) fn of(script: Script, names: &[&str]) -> Self {
        Self::built(Daemon::builder().no_ebpf(), script, names)
    }

    /// Like [`World::of`], with a builder from the row.
    pub(crate) fn built(builder: Builder, script: Script, names: &[&str]) -> Self {
        let trust = format!("[upstream]\nextra_ca_files = ['{}']\n", script.upstream.ca_file().display());
        let builder = builder.config(&trust).config(QUOTA);
        let builder = names.iter().fold(builder, |b, name| b.host(name, &["127.0.0.1"]));
        let daemon = builder.start();
        let agent = daemon.add_agent("bot", &["--factors", "token"]);
        Self { daemon, script, agent }
    }

    /// `host:port` of the upstream.
    pub(crate) fn at(&self, host: &str) -> String {
        format!("{host}:{}", self.script.upstream.address().port())
    }

    /// Stores a secret for `host` and grants it to the agent.
    pub(crate) fn give(&self, name: &str, host: &str, value: &str, options: &[&str]) -> Granted {
        self.secret(name, host, value, options);
        self.daemon.grant(&self.agent, name)
    }

    /// Stores a secret for `host`.
    pub(crate) fn secret(&self, name: &str, host: &str, value: &str, options: &[&str]) {
        self.daemon.add_secret(name, value, &[&["--host", &self.at(host)], options].concat());
    }

    /// Lets the agent reach `path` of `host` without a credential. The daemon inspects the requests.
    pub(crate) fn allow(&self, host: &str, path: &str) {
        let port = self.script.upstream.address().port().to_string();
        self.daemon
            .onecli(&["rule", "add", "allow", "--host", host, "--port", &port, "--path", path])
            .ok("rule add allow");
    }

    /// Lets the agent reach `host` without a credential, for all paths.
    pub(crate) fn allow_all(&self, host: &str) {
        let port = self.script.upstream.address().port().to_string();
        self.daemon.onecli(&["rule", "add", "allow", "--host", host, "--port", &port]).ok("rule add allow");
    }

    /// A client that trusts the CAs that an agent trusts, and the upstream's own CA.
    fn trust(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let file = self.daemon.home().dir().join("both-ca.pem");
        if !file.exists() {
            let both = [self.daemon.ca_file(), self.script.upstream.ca_file().to_owned()]
                .map(|f| std::fs::read(f).expect("PEM"));
            std::fs::write(&file, both.concat()).expect("write the CAs");
        }
        trusting(&file, alpn)
    }

    /// TLS for `host` through a CONNECT of `agent`.
    pub(crate) fn tunnel_of(
        &self,
        agent: &Agent,
        host: &str,
        alpn: &[u8],
    ) -> io::Result<Result<Tunnel, Answer>> {
        let trust = self.trust(&[alpn]);
        Tunnel::through(self.daemon.explicit_addr(), &agent.token, &self.at(host), host, &trust)
    }

    /// TLS for `host` through a CONNECT of the world's agent, which must succeed.
    pub(crate) fn tunnel(&self, host: &str) -> Tunnel {
        let tunnel = self.tunnel_of(&self.agent, host, b"http/1.1").expect("the proxy responds");
        tunnel.unwrap_or_else(|refused| panic!("CONNECT {host} is refused: {refused:?}"))
    }

    /// TLS for `name` through a CONNECT to `host`.
    pub(crate) fn tunnel_named(&self, host: &str, name: &str) -> Option<Tunnel> {
        let (trust, address) = (self.trust(&[b"http/1.1"]), self.daemon.explicit_addr());
        Tunnel::through(address, &self.agent.token, &self.at(host), name, &trust).ok()?.ok()
    }

    /// HTTP/2 for `host`.
    pub(crate) fn http2(&self, host: &str) -> Http2 {
        let tunnel = self.tunnel_of(&self.agent, host, b"h2").expect("the proxy responds");
        let tunnel = tunnel.unwrap_or_else(|refused| panic!("CONNECT {host} is refused: {refused:?}"));
        Http2::new(tunnel).expect("HTTP/2 begins")
    }

    /// Sends `request` to `host` on a new connection. If the CONNECT is refused, its response is returned.
    pub(crate) fn send_as(&self, agent: &Agent, host: &str, request: &[u8]) -> Answer {
        match self.tunnel_of(agent, host, b"http/1.1") {
            Ok(Ok(mut tunnel)) => tunnel.ask(request),
            Ok(Err(refused)) => refused,
            Err(_) => Answer::default(),
        }
    }

    /// Sends `request` as the world's agent.
    pub(crate) fn send(&self, host: &str, request: &[u8]) -> Answer {
        self.send_as(&self.agent, host, request)
    }

    /// Sends a GET with additional header lines, each of which ends with CR LF.
    pub(crate) fn get(&self, host: &str, path: &str, fields: &str) -> Answer {
        self.send(host, &self.request("GET", host, path, fields))
    }

    /// The bytes of a request without a body.
    pub(crate) fn request(&self, method: &str, host: &str, path: &str, fields: &str) -> Vec<u8> {
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", self.at(host)).into_bytes()
    }

    /// Sends `request` directly to the upstream.
    pub(crate) fn direct(&self, host: &str, request: &[u8]) -> Answer {
        let trust = self.trust(&[b"http/1.1"]);
        let tunnel = Tunnel::direct(self.script.upstream.address(), host, &trust);
        tunnel.map_or_else(|_| Answer::default(), |mut tunnel| tunnel.ask(request))
    }

    /// Sends raw bytes to the explicit listener, and reads until the end of the stream.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let Ok(mut stream) = crate::wire::tunnel::connect(self.daemon.explicit_addr()) else {
            return Vec::new();
        };
        let _ = stream.write_all(bytes);
        read_rest(&mut stream)
    }

    /// Sends raw bytes to the explicit listener, and returns the first bytes of the response.
    pub(crate) fn raw_head(&self, bytes: &[u8]) -> Vec<u8> {
        let mut head = vec![0; 1024];
        let read = crate::wire::tunnel::connect(self.daemon.explicit_addr()).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(bytes)?;
            stream.read(&mut head)
        });
        head.truncate(read.unwrap_or_default());
        head
    }
}
