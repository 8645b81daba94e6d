//! One client cannot use up what the others need (invariant 9). The daemon has few file descriptors here, so that few
//! connections are many.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use onecli_tests::client::{Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;

use crate::scene::{API, VALUE};

/// What the daemon may have.
const DESCRIPTORS: u32 = 1024;

struct Crowded {
    daemon: Daemon,
    upstream: Upstream,
}

impl Crowded {
    fn new(ebpf: bool) -> Self {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let upstream = Upstream::start(&[API]);
        let builder = Daemon::builder().upstream(&upstream).descriptors(DESCRIPTORS);
        let daemon = if ebpf { builder } else { builder.no_ebpf() }.start();
        let host = format!("{API}:{}", upstream.https_addr().port());
        daemon.add_secret("api", VALUE, &["--host", &host, "--bearer"]);
        Self { daemon, upstream }
    }

    fn agent(&self, name: &str, options: &[&str]) -> Agent {
        let agent = self.daemon.add_agent(name, options);
        let _ = self.daemon.grant(&agent, "api");
        agent
    }

    /// Somebody with a token is served, and so is the operator.
    fn serves(&self, agent: &Agent) {
        let run = curl(&self.upstream.https_url(API, "/echo")).timeout(Duration::from_secs(20));
        let reply = self.daemon.explicit(&agent.token, run).outcome().reply();
        assert_eq!(reply.verdict(), 200, "{reply:?}");
        let _ = self.daemon.onecli_json(&["status"]);
    }
}

fn hold(address: SocketAddr, count: u32) -> Vec<Socket> {
    (0..count).map(|_| Socket::connect(address).unwrap()).collect()
}

#[test]
fn silent_connections_to_the_proxy_keep_nobody_out() {
    let crowded = Crowded::new(false);
    let agent = crowded.agent("agent", &["--factors", "token"]);
    let held = hold(crowded.daemon.explicit_addr(), 2 * DESCRIPTORS);
    crowded.serves(&agent);
    drop(held);
}

#[test]
fn one_agents_connections_to_the_proxy_keep_nobody_out() {
    if !need::bpf("everything") {
        return;
    }
    let crowded = Crowded::new(true);
    let greedy = crowded.agent("greedy", &["--user", "nobody"]);
    let other = crowded.agent("other", &["--factors", "token"]);
    let script = r#"
        hold() {
            i=0; while [ $i -lt 1000 ]; do
                eval "exec {fd}<>/dev/tcp/127.0.0.1/$1" || break
                i=$((i + 1))
            done 2>/dev/null
            sleep 15
        }
        hold "$1" & hold "$1" & wait"#;
    let run =
        Run::new("bash").args(["-c", script, "bash"]).arg(crowded.daemon.explicit_addr().port().to_string());
    let holder = crowded.daemon.managed(&greedy, &run.timeout(Duration::from_mins(1))).start();
    std::thread::sleep(Duration::from_secs(5));
    crowded.serves(&other);
    let _ = holder.finish();
}

#[test]
fn an_agent_has_so_many_requests_under_way() {
    let crowded = Crowded::new(false);
    let greedy = crowded.agent("greedy", &["--factors", "token"]);
    let other = crowded.agent("other", &["--factors", "token"]);
    let url = crowded.upstream.https_url(API, "/slow/3000?[1-100]");
    let run = curl(&url)
        .args(["--http2", "--parallel", "--parallel-max", "100", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code} %header{x-onecli-error}\n"]);
    let flood = crowded.daemon.explicit(&greedy.token, run).start();
    std::thread::sleep(Duration::from_secs(1));
    crowded.serves(&other);
    let outcome = flood.finish();
    let lines = outcome.out();
    let refused = lines.lines().filter(|line| line.contains("429 limit_reached")).count();
    let served = lines.lines().filter(|line| line.contains("200")).count();
    assert!(served > 0 && refused > 0 && served < 64, "{outcome:?}");
}
