//! Upstream connections that stay open between requests: which requests share one, and when they are closed.

use std::time::Duration;

use onecli_tests::client;
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;
use onecli_tests::wait_for;

const HOST: &str = "api.test";
const VALUE: &str = "real-credential-0123456789";

struct World {
    upstream: Upstream,
    daemon: Daemon,
    agent: Agent,
}

impl World {
    /// An agent that may use `one` below `/one` and `two` below `/two`, and reach everything without a credential.
    fn new(protocols: &[&str]) -> World {
        let upstream = Upstream::builder(&[HOST]).alpn(protocols).start();
        let daemon = Daemon::for_upstream(&upstream);
        let agent = daemon.add_agent("agent", &["--factors", "token"]);
        let port = upstream.https_addr().port().to_string();
        let host = format!("{HOST}:{port}");
        for name in ["one", "two"] {
            let path = format!("/{name}/**");
            daemon.add_secret(name, VALUE, &["--host", &host, "--bearer", "--path", &path]);
        }
        let rule =
            ["rule", "add", "allow", "--agent", "agent", "--host", HOST, "--port", &port, "--path", "/**"];
        daemon.onecli(&rule).ok("rule add");
        World { upstream, daemon, agent }
    }

    fn grant(&self, name: &str) -> String {
        format!("Authorization: Bearer {}", self.daemon.grant(&self.agent, name).placeholder)
    }

    /// The upstream's number of the connection on which a request arrives, and whether it has the credential.
    fn ask(&self, path: &str, field: Option<&str>) -> (usize, bool) {
        self.ask_as(&self.agent, path, field)
    }

    fn ask_as(&self, agent: &Agent, path: &str, field: Option<&str>) -> (usize, bool) {
        let fields = field.iter().flat_map(|field| ["-H", *field]);
        let run = client::curl(&self.upstream.https_url(HOST, path)).args(fields);
        self.daemon.explicit(&agent.token, run).outcome().ok(path);
        let seen = self.upstream.requests().pop().unwrap();
        // The daemon returns the connection to its pool after it has sent the end of the response.
        std::thread::sleep(Duration::from_millis(100));
        (seen.connection, seen.count(VALUE) > 0)
    }

    /// The number of established connections to the upstream, counted at the daemon's end.
    fn open(&self) -> usize {
        // The remote address, then the state: 01 is TCP_ESTABLISHED.
        let port = format!(":{:04X} 01 ", self.upstream.https_addr().port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().filter(|line| line.contains(&port)).count()
    }

    fn has_open(&self, expected: usize) -> bool {
        wait_for(Duration::from_secs(1), || (self.open() == expected).then_some(())).is_some()
    }
}

#[test]
fn connections_are_shared_by_requests_with_the_same_credentials() {
    for protocols in [&["http/1.1"][..], &["h2"]] {
        let world = World::new(protocols);
        let (one, two) = (world.grant("one"), world.grant("two"));
        let (plain, injected) = (world.ask("/out", None), world.ask("/one/a", Some(&one)));
        assert_eq!((plain.1, injected.1), (false, true), "{protocols:?}");
        assert_ne!(
            plain.0, injected.0,
            "{protocols:?}: requests without and with a credential use separate connections"
        );
        assert_eq!(
            world.ask("/out", None),
            plain,
            "{protocols:?}: requests without a credential share a connection"
        );
        assert_eq!(
            world.ask("/one/b", Some(&one)),
            injected,
            "{protocols:?}: requests with the same credential share a connection"
        );
        let other = world.ask("/two/a", Some(&two));
        assert!(
            other.0 != plain.0 && other.0 != injected.0 && other.1,
            "{protocols:?}: another credential uses another connection"
        );
        assert!(world.has_open(3), "{protocols:?}: {} connections are open", world.open());
    }
}

/// Invariant 8: an upstream may authenticate a connection, so a connection belongs to one agent.
#[test]
fn agents_share_no_upstream_connection() {
    for protocols in [&["http/1.1"][..], &["h2"]] {
        let world = World::new(protocols);
        let other = world.daemon.add_agent("other", &["--factors", "token", "--egress", "allow"]);
        let placeholder = world.grant("one");
        let others = format!("Authorization: Bearer {}", world.daemon.grant(&other, "one").placeholder);
        for (path, own, others) in [("/out", None, None), ("/one/a", Some(&*placeholder), Some(&*others))] {
            let first = world.ask(path, own);
            assert_eq!(world.ask(path, own), first, "{protocols:?} {path}: an agent reuses its connection");
            let second = world.ask_as(&other, path, others);
            assert_eq!(first.1, second.1, "{protocols:?} {path}: both requests are treated alike");
            assert_ne!(first.0, second.0, "{protocols:?} {path}: another agent has another connection");
        }
    }
}

#[test]
fn connections_of_a_revoked_grant_are_closed() {
    let takes: [(&[&str], &[&str]); 4] = [
        (&["ungrant", "agent", "one"], &["grant", "agent", "one"]),
        (&["secret", "disable", "one"], &["secret", "enable", "one"]),
        (&["secret", "rotate", "one", "--value-file"], &["status"]),
        (&["secret", "remove", "one"], &["status"]),
    ];
    let world = World::new(&["http/1.1"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    // For root, the same value is reported as unchanged.
    std::fs::write(&file, format!("{VALUE}-next")).unwrap();
    let one = world.grant("one");
    for (take, give) in takes {
        let plain = world.ask("/out", None);
        let injected = world.ask("/one/a", Some(&one));
        assert!(injected.1 && world.has_open(2), "{take:?}: {} connections are open", world.open());
        let path = file.path().to_str().unwrap();
        let take: Vec<&str> = take.iter().copied().chain((take[1] == "rotate").then_some(path)).collect();
        world.daemon.onecli(&take).ok("take");
        assert!(world.has_open(1), "{take:?}: {} connections are open", world.open());
        assert_eq!(world.ask("/out", None), plain, "{take:?}: the connection without a credential stays");
        world.daemon.onecli(give).ok("give");
    }
}
