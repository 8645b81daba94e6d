//! Managed processes in separate network namespaces are redirected, identified and refused like those of the host.
//!
//! The daemon and the upstream are on the host. A namespace has a route to a second one, the "target", whose counters
//! show any direct traffic.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Reply, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::netns::Netns;
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, unique, wait_for};

use crate::scene::{API, Scene, VALUE, in_shell};

/// The namespace's gateway to the target.
const GATEWAY: &str = "192.0.2.2";
/// A namespace, and the target that it would reach if permitted.
struct Island {
    inside: Netns,
    target: Netns,
}

impl Island {
    fn new() -> Self {
        let (inside, target) = (Netns::new(), Netns::new());
        inside.join("192.0.2.1/30", &target, &format!("{GATEWAY}/30"));
        inside.ip(&format!("route add default via {GATEWAY}"));
        Self { inside, target }
    }

    /// The number of segments and datagrams that reached the target.
    fn reached(&self) -> u64 {
        self.target.counter("Tcp", "InSegs")
            + self.target.counter("Udp", "InDatagrams")
            + self.target.counter("Udp", "NoPorts")
    }
}

fn possible() -> bool {
    need::bpf("everything")
        && need::program("everything", "ip", "iproute2")
        && need::program("everything", "nsenter", "util-linux")
}

/// curl for `path` of the upstream at `address`, with the placeholder of `API_KEY`.
fn request(upstream: &Upstream, path: &str, address: &str) -> Run {
    let port = upstream.https_addr().port();
    let run = curl(&upstream.https_url(API, path)).args(["--resolve", &format!("{API}:{port}:{address}")]);
    in_shell(&run, r#"exec "$@" -H "Authorization: Bearer $API_KEY""#)
}

/// `run` as a container runtime starts it: placed in a cgroup below the agent's, then in a network namespace whose
/// loopback comes up some time later. The program starts after that.
fn contained(scene: &Scene, agent: &Agent, run: &Run) -> Run {
    const RUNTIME: &str = r#"
        set -e
        mkdir "$1"
        echo $$ > "$1/cgroup.procs"
        shift
        exec unshare --net sh -ec 'sleep 0.1; ip link set lo up; ip route add default dev lo; sleep 0.3; exec "$@"' sh "$@""#;
    let nested = scene.daemon.agent_cgroup(agent).join(format!("container-{}", unique()));
    let mut wrapped =
        Run::new("sh").args(["-c", RUNTIME, "sh"]).arg(nested).arg(run.program()).args(run.arguments());
    for (name, value) in run.variables() {
        wrapped = wrapped.env(name, value);
    }
    wrapped.trusting(&scene.daemon.ca_file()).env("API_KEY", &scene.inside_grant.placeholder)
}

/// The number of sockets of a process.
fn sockets(pid: u32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Calls `try_it` until it succeeds: a process that changes its namespace while it runs is refused for a moment.
fn soon(what: &str, mut try_it: impl FnMut() -> Reply) -> Reply {
    let mut last = None;
    let served = wait_for(Duration::from_secs(10), || {
        let reply = try_it();
        let served = reply.exit == Some(0);
        last = Some(reply.clone());
        served.then_some(reply)
    });
    served.unwrap_or_else(|| panic!("{what}: {last:?}"))
}

#[test]
fn process_in_another_namespace_is_redirected_with_its_identity() {
    if !possible() {
        return;
    }
    let scene = Scene::new();
    let island = Island::new();
    for address in [GATEWAY, "[2001:db8::7]"] {
        let run = request(&scene.upstream, "/echo", address);
        let run = island.inside.wrap(&scene.daemon.managed(&scene.inside, &run));
        let reply = soon(address, || run.clone().outcome().reply());
        assert_eq!(reply.verdict(), 200, "{address}: {reply:?}");
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
    let decision = scene.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!(
        (&decision["agent"], &decision["mode"]),
        (&"inside".into(), &"transparent".into()),
        "{decision}"
    );
    let at_home =
        scene.run(crate::scene::Way::Transparent, request(&scene.upstream, "/echo", "127.0.0.1")).reply();
    assert_eq!(at_home.verdict(), 200);
    let netns = |r: &serde_json::Value| r["netns"].as_u64();
    let home =
        scene.daemon.audit_until("another", |r| r["verdict"] == "inject" && netns(r) != netns(&decision));
    assert!(netns(&home).is_some() && netns(&decision).is_some(), "{home} {decision}");
    // Other attempts of a process to reach the target.
    let udp = format!("echo out > /dev/udp/{GATEWAY}/443");
    let tries = [
        Run::new("bash").args(["-c", &udp]),
        curl(&format!("http://{GATEWAY}:{}/", scene.upstream.http_addr().port())).args(["--max-time", "3"]),
    ];
    for run in tries {
        let _ = island.inside.wrap(&scene.daemon.managed(&scene.inside, &run)).outcome();
    }
    assert_eq!(island.reached(), 0, "a packet reached the target directly");
}

/// A container's cgroup and namespace exist before its program. The listener exists by then too, even before loopback
/// is up.
#[test]
fn first_connection_of_a_container_is_served() {
    if !possible() {
        return;
    }
    let scene = Scene::new();
    for round in 0..3 {
        let run = request(&scene.upstream, "/echo", "192.0.2.99");
        let reply = contained(&scene, &scene.inside, &run).outcome().reply();
        assert_eq!(reply.verdict(), 200, "round {round}: {reply:?}");
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
}

#[test]
fn names_resolve_in_another_namespace_as_on_the_host() {
    if !possible() {
        return;
    }
    let scene = Scene::new();
    let port = scene.upstream.https_addr().port();
    // No --resolve, and a hosts file without the name: only DNS can resolve it.
    let resolv = scene.daemon.home().dir().join("resolv.conf");
    fs::write(&resolv, "nameserver 192.0.2.53\noptions timeout:2 attempts:1\n").unwrap();
    let hosts = scene.daemon.home().dir().join("empty-hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let inside = format!(
        "mount --bind {} /etc/resolv.conf && mount --bind {} /etc/hosts && exec \"$@\"",
        resolv.display(),
        hosts.display()
    );
    let ask = |name: &str| {
        let run = curl(&format!("https://{name}:{port}/echo"));
        let run = in_shell(&run, r#"exec "$@" -H "Authorization: Bearer $API_KEY""#);
        let shell = in_shell(&run, &inside);
        let mut wrapped = Run::new("unshare").args(["--mount", "--propagation", "private"]);
        wrapped = wrapped.arg(shell.program()).args(shell.arguments());
        contained(&scene, &scene.inside, &wrapped).outcome().reply()
    };
    let reply = ask(API);
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    scene.injected_once(&format!("Bearer {VALUE}"));
    // On this port, the server may send first.
    assert_eq!(ask("elsewhere.test").exit, Some(35), "a name that the agent may not reach");
    let refused = scene.daemon.audit_until("the refused name", |r| r["host"] == "elsewhere.test");
    assert_eq!(refused["verdict"], "deny", "{refused}");
}

/// Two namespaces may use the same 4-tuple at the same time: each connection has its own identity, or none.
#[test]
fn same_tuple_in_another_namespace_has_no_identity() {
    if !possible() {
        return;
    }
    let scene = Scene::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let local = listener.local_addr().unwrap().port();
    drop(listener);
    let port = scene.upstream.https_addr().port();
    let url = scene.upstream.https_url(API, "/slow/3");
    let run = curl(&url).args(["--resolve", &format!("{API}:{port}:192.0.2.99")]);
    let run = run.args(["--interface", "127.0.0.1", "--local-port", &local.to_string()]);
    let run = in_shell(&run, r#"exec "$@" -H "Authorization: Bearer $API_KEY""#);
    let managed = contained(&scene, &scene.inside, &run).start();
    let under_way =
        wait_for(Duration::from_secs(10), || (scene.upstream.connection_count() > 0).then_some(()));
    assert!(under_way.is_some(), "the managed request does not arrive");

    let same: SocketAddr = (Ipv4Addr::LOCALHOST, local).into();
    let mut stranger = connect_from(same, scene.daemon.transparent_addr());
    stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stranger, "GET / HTTP/1.1\r\nHost: {API}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // A reset after the response is equivalent to an end.
    let _ = stranger.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let record = scene.daemon.audit_until("the unmanaged process", |r| r["verdict"] == "deny");
    assert!(record["agent"].is_null() || record["agent"] == "", "{record}");
    assert_eq!(managed.finish().reply().verdict(), 200);
    scene.injected_once(&format!("Bearer {VALUE}"));
}

fn connect_from(local: SocketAddr, to: SocketAddr) -> Socket {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd as _;
    let (SocketAddr::V4(local), SocketAddr::V4(to)) = (local, to) else { panic!("IPv4") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(local)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket).into()
}

/// A bridge with the proxy at the host's address, and a namespace behind it.
struct Bridge {
    daemon: Daemon,
    upstream: Upstream,
    inside: Netns,
    proxy: SocketAddr,
}

impl Bridge {
    fn new() -> Self {
        let inside = Netns::new();
        // One of 64 pairs of TEST-NET-3, so that tests of other processes do not collide.
        let net = std::process::id() % 64 * 4;
        let (own, host) =
            (format!("203.0.113.{}/30", net + 2), Ipv4Addr::new(203, 0, 113, u8::try_from(net + 1).unwrap()));
        inside.join_host(&own, &format!("{host}/30"));
        let port = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port();
        let proxy = SocketAddr::from((host, port));
        let upstream = Upstream::start(&[API]);
        let config = format!("[listen]\nexplicit = [\"127.0.0.1:{port}\", \"{proxy}\"]\n");
        let daemon = Daemon::builder().upstream(&upstream).config(&config).start();
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer", "--env", "API_KEY"]);
        Self { daemon, upstream, inside, proxy }
    }

    fn agent(&self, name: &str, factors: &[&str]) -> Agent {
        let agent = self.daemon.add_agent(name, &[&["--factors"], factors].concat());
        let _ = self.daemon.grant(&agent, "api");
        agent
    }

    /// curl through the proxy, by its address on the bridge.
    fn request(&self, token: &str) -> Run {
        let proxy = format!("http://x:{token}@{}", self.proxy);
        curl(&self.upstream.https_url(API, "/echo")).args(["--proxy", &proxy])
    }

    fn injected(&self) -> usize {
        let injected = self.upstream.requests().iter().map(|r| r.count(VALUE)).sum();
        self.upstream.clear();
        injected
    }
}

/// A managed process that configures the proxy is redirected to the listener of its own namespace and retains both
/// factors.
#[test]
fn managed_process_that_uses_the_proxy_over_a_bridge_has_both_factors() {
    if !possible() {
        return;
    }
    let bridge = Bridge::new();
    let both = bridge.agent("both", &["token,cgroup", "--user", "nobody"]);
    let other = bridge.agent("other", &["token,cgroup", "--user", "games"]);
    let run = |agent: &Agent, token: &str| {
        bridge.inside.wrap(&bridge.daemon.managed(agent, &bridge.request(token)))
    };
    let reply = soon("both factors", || run(&both, &both.token).outcome().reply());
    assert_eq!((reply.verdict(), bridge.injected()), (200, 1), "{reply:?}");
    let record = bridge.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["mode"]), (&"both".into(), &"explicit".into()), "{record}");
    let factors = record["factors"].to_string();
    assert!(factors.contains("token") && factors.contains("cgroup"), "{record}");
    // Another agent's token, from this agent's cgroup. 56 is curl's exit code for a refused CONNECT.
    let foreign = run(&both, &other.token).outcome().reply();
    assert_eq!(foreign.exit, Some(56), "{foreign:?}");
    assert_eq!(bridge.injected(), 0, "{foreign:?}");
    let _ = bridge.daemon.audit_until("the alert", |r| r["event"] == "alert");
}

/// A client outside the managed cgroups has no second factor. A token suffices if it is the only required one.
#[test]
fn unmanaged_process_that_uses_the_proxy_over_a_bridge_has_only_the_token() {
    if !possible() {
        return;
    }
    let bridge = Bridge::new();
    let token = bridge.agent("by-token", &["token"]);
    let both = bridge.agent("both", &["token,cgroup", "--user", "nobody"]);
    let run = |agent: &Agent| {
        let run = bridge.request(&agent.token).trusting(&bridge.daemon.ca_file());
        bridge.inside.wrap(&run).outcome().reply()
    };
    let reply = run(&token);
    assert_eq!((reply.verdict(), bridge.injected()), (200, 1), "{reply:?}");
    let record = bridge.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["mode"]), (&"by-token".into(), &"explicit".into()), "{record}");
    let reply = run(&both);
    assert!([403, 407].contains(&reply.verdict()), "{reply:?}");
    assert_eq!(bridge.injected(), 0, "{reply:?}");
}

/// A listener keeps its namespace alive, so listeners of namespaces without processes are closed.
#[test]
fn listeners_close_after_the_last_process() {
    if !possible() {
        return;
    }
    let scene = Scene::new();
    let before = sockets(scene.daemon.pid());
    let sleeper = contained(&scene, &scene.inside, &Run::new("sleep").arg("60")).start();
    let opened = wait_for(Duration::from_secs(5), || {
        // Two listeners and the resolver.
        (sockets(scene.daemon.pid()) >= before + 3).then_some(())
    });
    assert!(opened.is_some(), "{before} sockets, now {}", sockets(scene.daemon.pid()));
    drop(sleeper);
    let closed = wait_for(Duration::from_secs(20), || (sockets(scene.daemon.pid()) <= before).then_some(()));
    assert!(closed.is_some(), "{before} sockets, now {}", sockets(scene.daemon.pid()));
}

/// A process changes its namespace long after its cgroup was scanned: its connection waits for the listener there.
#[test]
fn process_that_changes_its_namespace_is_served_at_its_first_connect() {
    // After the scans that followed the start of the process.
    const LATER: &str = r#"
        echo $$ > "$1/cgroup.procs"
        shift
        sleep 3
        exec unshare --net sh -ec 'ip link set lo up; ip route add default dev lo; exec "$@"' sh "$@""#;
    if !possible() {
        return;
    }
    let scene = Scene::new();
    let cgroup = scene.daemon.agent_cgroup(&scene.inside);
    for address in [GATEWAY, "[2001:db8::7]"] {
        let request = request(&scene.upstream, "/echo", address);
        let run = Run::new("sh").args(["-c", LATER, "sh"]).arg(&cgroup).arg(request.program());
        let run = run.args(request.arguments()).trusting(&scene.daemon.ca_file());
        let reply = run.env("API_KEY", &scene.inside_grant.placeholder).outcome().reply();
        assert_eq!((reply.exit, reply.verdict()), (Some(0), 200), "{address}: {reply:?}");
        scene.injected_once(&format!("Bearer {VALUE}"));
    }
}

/// The maximum number of namespaces of one agent.
const ALLOWED: usize = 64;

/// An agent's use of resources is bounded: it has 64 namespaces, and its processes in others are refused.
#[test]
fn agent_is_limited_to_64_namespaces() {
    if !possible() {
        return;
    }
    let scene = Scene::new();
    let before = sockets(scene.daemon.pid());
    let cgroup = scene.daemon.agent_cgroup(&scene.inside);
    let many = r#"echo $$ > "$1/cgroup.procs"; for i in $(seq 80); do unshare --net sleep 60 & done; wait"#;
    let many = Run::new("sh").args(["-c", many, "sh"]).arg(&cgroup).timeout(Duration::from_mins(1)).start();
    let all = wait_for(Duration::from_secs(20), || {
        (sockets(scene.daemon.pid()) >= before + 3 * ALLOWED).then_some(())
    });
    assert!(all.is_some(), "{} more sockets", sockets(scene.daemon.pid()) - before);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sockets(scene.daemon.pid()), before + 3 * ALLOWED);
    assert!(scene.daemon.home().log().contains("more processes or network namespaces"), "the log reports it");
    // The other agents are still served.
    let reply =
        scene.run(crate::scene::Way::Explicit, request(&scene.upstream, "/echo", "127.0.0.1")).reply();
    assert_eq!(reply.verdict(), 200);
    drop(many);
    wait_until_empty(&cgroup);
}

fn wait_until_empty(cgroup: &Path) {
    let events: PathBuf = cgroup.join("cgroup.events");
    let empty = || fs::read_to_string(&events).unwrap_or_default().contains("populated 0").then_some(());
    assert!(wait_for(Duration::from_secs(5), empty).is_some(), "{} still has processes", cgroup.display());
}
