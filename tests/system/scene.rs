//! The scene of most tests: an upstream, a daemon that trusts it, a secret, and an agent for each way.

use std::io::{Read, Write as _};
use std::time::Duration;

use onecli_tests::client::{Outcome, Run};
use onecli_tests::daemon::{Agent, Builder, Daemon, Granted};
use onecli_tests::need;
use onecli_tests::socket::Socket;
use onecli_tests::upstream::{Recorded, Upstream};

/// The upstream's name.
pub(crate) const API: &str = "api.test";
/// The same upstream, under a name that agents and daemon resolve to `::1`.
pub(crate) const API_V6: &str = "six.test";
/// The credential. Its characters look different in every encoding.
pub(crate) const VALUE: &str = "sk-live/canary+0f3A~=9%Zq&7\"x";
/// The variable with the agents' placeholder.
pub(crate) const KEY: &str = "API_KEY";

/// How a client's connection reaches the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From a managed cgroup, with no proxy variable.
    Transparent,
    /// From outside, with `HTTPS_PROXY` and a token.
    Explicit,
}

/// The ways that this machine supports; the other is noted as skipped.
pub(crate) fn ways() -> Vec<Way> {
    let mut ways = vec![Way::Explicit];
    if need::bpf("the transparent half") {
        ways.push(Way::Transparent);
    }
    ways
}

/// An upstream, a daemon, one secret, and two agents with a grant for it.
pub(crate) struct Scene {
    // Fields are dropped in this order: the daemon first, so that its log reports no missing upstream.
    pub(crate) daemon: Daemon,
    pub(crate) upstream: Upstream,
    /// The agent with `token+cgroup`, which uses the transparent way.
    pub(crate) inside: Agent,
    /// The agent with `token`, which uses the explicit way.
    pub(crate) outside: Agent,
    pub(crate) inside_grant: Granted,
    pub(crate) outside_grant: Granted,
}

impl Scene {
    /// A scene with a bearer secret for every path of [`API`] and [`API_V6`].
    pub(crate) fn new() -> Self {
        Self::with(Upstream::start(&[API, API_V6]), &["--bearer"])
    }

    /// A scene for `upstream`, with a secret of this placement.
    pub(crate) fn with(upstream: Upstream, placement: &[&str]) -> Self {
        Self::of(Daemon::builder(), upstream, placement)
    }

    /// A scene with a daemon from the caller.
    pub(crate) fn of(daemon: Builder, upstream: Upstream, placement: &[&str]) -> Self {
        let daemon = daemon.upstream(&upstream).host(API_V6, &["::1"]).start();
        let inside = daemon.add_agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
        let outside = daemon.add_agent("outside", &["--factors", "token"]);
        let host = format!("{API}:{}", upstream.https_addr().port());
        let options = [&["--host", &host, "--env", KEY], placement].concat();
        daemon.add_secret("api", VALUE, &options);
        let (inside_grant, outside_grant) = (daemon.grant(&inside, "api"), daemon.grant(&outside, "api"));
        Self { daemon, upstream, inside, outside, inside_grant, outside_grant }
    }

    /// Adds a second secret with the same value for [`API_V6`], and returns the inside agent's placeholder.
    pub(crate) fn add_v6_secret(&self) -> Granted {
        let host = format!("{API_V6}:{}", self.upstream.https_addr().port());
        self.daemon.add_secret("api6", VALUE, &["--host", &host, "--bearer", "--env", "API6_KEY"]);
        self.daemon.grant(&self.inside, "api6")
    }

    /// `https://api.test:PORT` + `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        self.upstream.https_url(API, path)
    }

    /// The agent that uses this way.
    pub(crate) fn agent(&self, way: Way) -> &Agent {
        match way {
            Way::Transparent => &self.inside,
            Way::Explicit => &self.outside,
        }
    }

    /// The placeholder of that agent.
    pub(crate) fn placeholder(&self, way: Way) -> &str {
        match way {
            Way::Transparent => &self.inside_grant.placeholder,
            Way::Explicit => &self.outside_grant.placeholder,
        }
    }

    /// Runs a client this way, with the placeholder in [`KEY`]. Inside, `onecli run` sets it. Outside, the operator who
    /// starts a container would set it.
    pub(crate) fn run(&self, way: Way, run: Run) -> Outcome {
        match way {
            Way::Transparent => self.daemon.managed(&self.inside, &run).outcome(),
            Way::Explicit => {
                let run = run.env(KEY, &self.outside_grant.placeholder);
                self.daemon.explicit(&self.outside.token, run).outcome()
            }
        }
    }

    /// The only request that the upstream received since the last call, with the credential exactly once.
    pub(crate) fn injected_once(&self, value: &str) -> Recorded {
        let seen = self.upstream.only_request();
        self.upstream.clear();
        assert_eq!(seen.header("authorization"), Some(value), "{seen:#?}");
        seen
    }
}

/// curl that sends `Authorization: Bearer $API_KEY`, as a shell script of an agent would.
pub(crate) fn curl_with_key(url: &str, args: &[&str]) -> Run {
    let curl = onecli_tests::client::curl(url).args(args);
    in_shell(&curl, &format!(r#"exec "$@" -H "Authorization: Bearer ${KEY}""#))
}

/// `run` as the arguments of a shell `script`.
pub(crate) fn in_shell(run: &Run, script: &str) -> Run {
    let mut shell = Run::new("sh").args(["-c", script, "sh"]).arg(run.program()).args(run.arguments());
    for (name, value) in run.variables() {
        shell = shell.env(name, value);
    }
    shell
}

/// Opens a WebSocket to `http://HOST/ws` through the explicit proxy, and reads its 101.
pub(crate) fn plain_websocket(daemon: &Daemon, token: &str, host: &str) -> Socket {
    let mut socket = Socket::connect(daemon.explicit_addr()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        socket,
        "GET http://{host}/ws HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Bearer {token}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let head = read_head(&mut socket);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    socket
}

/// Reads the head of an HTTP/1 response, and no byte after it.
pub(crate) fn read_head(socket: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}
