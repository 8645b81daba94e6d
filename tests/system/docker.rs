//! Real containers: in an agent's cgroup they are redirected and the cgroup is a factor; elsewhere they use their
//! token.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onecli_tests::client::{Reply, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::docker::Docker;
use onecli_tests::need;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, VALUE, in_shell};

/// The number in capabilities(7).
const CAP_NET_RAW: u32 = 13;

/// An engine, and a daemon whose proxy listens at the host's address on the engine's bridge.
struct Stage {
    daemon: Daemon,
    upstream: Upstream,
    docker: Docker,
    proxy: SocketAddr,
}

impl Stage {
    fn new() -> Option<Self> {
        if !need::bpf("everything") {
            return None;
        }
        let docker = Docker::start("everything")?;
        let free = TcpListener::bind((docker.address(), 0)).unwrap();
        let proxy = free.local_addr().unwrap();
        drop(free);
        let upstream = Upstream::start(&[API]);
        let config = format!("[listen]\nexplicit = [\"127.0.0.1:{}\", \"{proxy}\"]\n", proxy.port());
        let daemon = Daemon::builder().upstream(&upstream).config(&config).start();
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer", "--env", "API_KEY"]);
        Some(Self { daemon, upstream, docker, proxy })
    }

    /// An agent that may use the secret, and its placeholder.
    fn agent(&self, name: &str, options: &[&str]) -> (Agent, String) {
        let agent = self.daemon.add_agent(name, options);
        let placeholder = self.daemon.grant(&agent, "api").placeholder;
        (agent, placeholder)
    }

    /// Runs curl in a container that trusts the daemon's CA.
    fn container(&self, options: &[&str], run: &Run) -> Reply {
        let volume = format!("{}:/ca.pem:ro", self.daemon.ca_file().display());
        let options = [options, &["--volume", &volume, "--dns", "192.0.2.53"]].concat();
        self.docker.container(&options, &run.clone().trusting(Path::new("/ca.pem"))).outcome().reply()
    }

    /// curl through the proxy, by its address on the bridge.
    fn through_proxy(&self, token: &str) -> Run {
        curl(&self.upstream.https_url(API, "/echo"))
            .args(["--proxy", &format!("http://x:{token}@{}", self.proxy)])
    }

    fn injected(&self) -> usize {
        let injected = self.upstream.requests().iter().map(|r| r.count(VALUE)).sum();
        self.upstream.clear();
        injected
    }
}

/// Replaces the program by its path inside the image.
fn with_container_path(run: &Run) -> Run {
    let mut shell =
        Run::new("/bin/sh").args(["-c", r#"exec "$@""#, "sh", "/usr/bin/curl"]).args(run.arguments());
    for (name, value) in run.variables() {
        shell = shell.env(name, value);
    }
    shell
}

#[test]
fn slow_container_in_an_agents_cgroup_is_redirected() {
    let Some(stage) = Stage::new() else { return };
    let (agent, placeholder) = stage.agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
    let (other, _) = stage.agent("other", &["--factors", "token,cgroup", "--user", "games"]);
    let below = Docker::below(&stage.daemon.agent_cgroup(&agent));
    // The agent's resolver answers by name, whatever server the container configures, and its first connection works at
    // once.
    for network in ["--network=bridge", "--network=none"] {
        let run = with_container_path(&curl(&stage.upstream.https_url(API, "/echo")));
        let run =
            in_shell(&run, r#"exec "$@" -H "Authorization: Bearer $API_KEY""#).env("API_KEY", &placeholder);
        let reply = stage.container(&[&below, network], &run);
        assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{network}: {reply:?}");
    }
    let record = stage.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["mode"]), (&"inside".into(), &"transparent".into()), "{record}");

    // The proxy's address on the bridge: the connection is redirected too, with both factors.
    let reply = stage.container(&[&below], &with_container_path(&stage.through_proxy(&agent.token)));
    assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{reply:?}");
    let record =
        stage.daemon.audit_until("the explicit one", |r| r["verdict"] == "inject" && r["mode"] == "explicit");
    let factors = record["factors"].to_string();
    assert!(factors.contains("token") && factors.contains("cgroup"), "{record}");
    let reply = stage.container(&[&below], &with_container_path(&stage.through_proxy(&other.token)));
    assert!([403, 407].contains(&reply.verdict()), "another agent's token: {reply:?}");
    assert_eq!(stage.injected(), 0);

    // A service of the host at the same address is not reached, even by root in the container.
    let host = TcpListener::bind((stage.docker.address(), 0)).unwrap();
    host.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", host.local_addr().unwrap());
    let reply = stage.container(&[&below], &with_container_path(&curl(&url).args(["--max-time", "5"])));
    assert!(reply.header("x-onecli-error").is_some(), "{reply:?}");
    assert_eq!(host.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the container connected directly");
}

#[test]
fn slow_container_outside_a_cgroup_uses_the_proxy_with_a_token() {
    let Some(stage) = Stage::new() else { return };
    let (by_token, _) = stage.agent("crawler", &["--factors", "token"]);
    let (both, _) = stage.agent("both", &["--factors", "token,cgroup", "--user", "nobody"]);
    // As the README describes: with variables alone.
    let run = |token: &str| {
        let run = with_container_path(&curl(&stage.upstream.https_url(API, "/echo")));
        run.proxied(&format!("http://x:{token}@{}", stage.proxy))
    };
    let reply = stage.container(&[], &run(&by_token.token));
    assert_eq!((reply.verdict(), stage.injected()), (200, 1), "{reply:?}");
    let record = stage.daemon.audit_until("the injection", |r| r["verdict"] == "inject");
    assert_eq!((&record["agent"], &record["mode"]), (&"crawler".into(), &"explicit".into()), "{record}");
    let reply = stage.container(&[], &run(&both.token));
    assert!([403, 407].contains(&reply.verdict()), "{reply:?}");
    assert_eq!(stage.injected(), 0, "a request with a token without its cgroup was injected");
    // The container is not redirected, so it reaches whatever its network reaches.
    let host = TcpListener::bind((stage.docker.address(), 0)).unwrap();
    assert_ne!(host.local_addr().unwrap().ip(), Ipv4Addr::LOCALHOST);
    let url = format!("http://{}/", host.local_addr().unwrap());
    let _ = stage.container(&[], &with_container_path(&curl(&url).args(["--max-time", "1"])));
    host.set_nonblocking(true).unwrap();
    assert!(host.accept().is_ok(), "an unmanaged container is not redirected");
}

/// A container needs only the output of `agent env`.
#[test]
fn slow_agent_env_configures_a_container() {
    let Some(stage) = Stage::new() else { return };
    let (_, _) = stage.agent("crawler", &["--factors", "token"]);
    let (_, _) = stage.agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
    let script = format!(
        r#"exec /usr/bin/curl -sSf -H "Authorization: Bearer $API_KEY" {}"#,
        stage.upstream.https_url(API, "/echo")
    );
    let dir = stage.daemon.home().dir().join("env");
    let dir = dir.to_str().unwrap();
    for (agent, has_cgroup, mode) in [("crawler", false, "explicit"), ("inside", true, "explicit")] {
        let printed =
            stage.daemon.onecli(&["agent", "env", agent, "--for", "docker", "--out", dir]).ok("agent env");
        let options: Vec<&str> = printed.split_whitespace().collect();
        assert_eq!(options.iter().any(|o| o.starts_with("--cgroup-parent=/")), has_cgroup, "{printed}");
        // Packets from raw sockets would pass no hook.
        let status = Run::new("/bin/cat").arg("/proc/self/status");
        let status = stage.docker.container(&options, &status).outcome().ok("status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
        let effective = u64::from_str_radix(effective.trim(), 16).expect("a mask");
        assert_eq!(effective & 1 << CAP_NET_RAW == 0, has_cgroup, "{effective:x}");
        assert!(
            !printed.contains("onecli_st_") && !printed.contains("onecli_ph_"),
            "a token on a command line: {printed}"
        );
        let mode_of =
            |file: &str| std::fs::metadata(Path::new(dir).join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode_of("env"), mode_of("ca-bundle.pem")), (0o600, 0o644));
        let run = Run::new("/bin/sh").args(["-c", &script]);
        let outcome = stage.docker.container(&options, &run).outcome();
        outcome.ok(&format!("a container of {agent}"));
        assert_eq!(stage.injected(), 1, "{agent}");
        let record = stage.daemon.audit_until("it", |r| r["verdict"] == "inject" && r["agent"] == agent);
        let factors = record["factors"].to_string();
        assert_eq!(record["mode"], mode, "{record}");
        assert!(factors.contains("token") && factors.contains("cgroup") == has_cgroup, "{record}");
    }
    // With Compose and the unchanged example.
    if need::program("Compose", "docker-compose", "docker-compose") {
        let over = stage.daemon.onecli(&[
            "agent",
            "env",
            "crawler",
            "--for",
            "compose",
            "--service",
            "crawler",
            "--out",
            dir,
        ]);
        let over_file = stage.daemon.home().dir().join("onecli.yaml");
        std::fs::write(&over_file, over.ok("agent env")).unwrap();
        let example = onecli_tests::bins::workspace().join("tests/containers/compose.yaml");
        let compose = |args: &[&str]| {
            let socket = stage.docker.docker(&[]).arguments()[1].clone();
            Run::new("docker-compose")
                .arg("-f")
                .arg(&example)
                .arg("-f")
                .arg(&over_file)
                .args(args)
                .env("DOCKER_HOST", socket)
                .env("URL", stage.upstream.https_url(API, "/echo"))
                .env("COMPOSE_PROJECT_NAME", "onecli-test")
                .outcome()
        };
        let up = compose(&["up", "--no-color", "--abort-on-container-exit", "--exit-code-from", "crawler"]);
        up.ok("docker-compose up");
        compose(&["down"]).ok("docker-compose down");
        assert_eq!(stage.injected(), 1);
    }
    // A shell also works, and the disk holds no other copy of the token.
    let printed = stage.daemon.onecli(&["agent", "env", "crawler", "--for", "shell"]).ok("agent env");
    let shell = format!(r#"eval "$1"; {}"#, script.replace("/usr/bin/curl", "curl"));
    Run::new("sh").args(["-c", &shell, "sh", &printed]).outcome().ok("a shell");
    assert_eq!(stage.injected(), 1);
    // The container stops working when its token ends.
    stage.daemon.onecli(&["agent", "rotate", "crawler"]).ok("rotate");
    assert!(!Run::new("sh").args(["-c", &shell, "sh", &printed]).outcome().status.success());
    assert_eq!(stage.injected(), 0);
}
