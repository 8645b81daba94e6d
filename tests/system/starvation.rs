//! One client cannot exhaust resources that others need (invariant 9). The daemon has few file descriptors here, so
//! that a few connections suffice.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use onecli_tests::client::{Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::socket::Socket;
use onecli_tests::upstream::Upstream;
use onecli_tests::wait_for;

use crate::scene::{API, VALUE};

/// The limit of the daemon's descriptors.
const DESCRIPTORS: u32 = 1024;

/// The number of waiting connections that one address may have with this limit: half of an eighth of the unreserved
/// descriptors.
const WAITING: usize = 32;
/// The number of descriptors at which one address has the maximum of waiting connections, and nearly that maximum.
const MANY_DESCRIPTORS: u32 = 17_000;
const MOST_WAITING: usize = 1000;

struct Crowded {
    daemon: Daemon,
    upstream: Upstream,
}

impl Crowded {
    fn new(ebpf: bool) -> Self {
        Self::with_descriptors(ebpf, DESCRIPTORS)
    }

    fn with_descriptors(ebpf: bool, descriptors: u32) -> Self {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let upstream = Upstream::start(&[API]);
        let builder = Daemon::builder().upstream(&upstream).descriptors(descriptors);
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

    /// Checks that a client with a token is served, and so is the operator.
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
fn silent_connections_to_the_proxy_do_not_block_others() {
    let crowded = Crowded::new(false);
    let agent = crowded.agent("agent", &["--factors", "token"]);
    let held = hold(crowded.daemon.explicit_addr(), 2 * DESCRIPTORS);
    crowded.serves(&agent);
    drop(held);
}

/// The beginning of a proxy's response; empty if it closed without one.
fn said(socket: &mut Socket) -> String {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = [0; 1024];
    let read = socket.read(&mut bytes).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[test]
fn a_burst_of_new_clients_is_served() {
    let crowded = Crowded::with_descriptors(false, MANY_DESCRIPTORS);
    let agent = crowded.agent("agent", &["--factors", "token"]);
    let host = format!("{API}:{}", crowded.upstream.https_addr().port());
    let connect = format!(
        "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Bearer {}\r\n\r\n",
        agent.token
    );
    let mut clients = hold(crowded.daemon.explicit_addr(), u32::try_from(MOST_WAITING).unwrap());
    for client in &mut clients {
        client.write_all(connect.as_bytes()).unwrap();
        assert!(said(client).starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn evicted_connection_gets_a_reason() {
    let crowded = Crowded::new(false);
    let beyond = WAITING / 4;
    let mut clients = hold(crowded.daemon.explicit_addr(), u32::try_from(WAITING + beyond).unwrap());
    // Connections that were accepted at about the same time may be in another order.
    let has_answer = |client: &Socket| client.peek(&mut [0]).is_ok_and(|length| length > 0);
    for client in &clients {
        client.set_nonblocking(true).unwrap();
    }
    let all_answered =
        || (clients.iter().filter(|client| has_answer(client)).count() == beyond).then_some(());
    assert_eq!(wait_for(Duration::from_secs(20), all_answered), Some(()));
    let (displaced, waiting): (Vec<Socket>, Vec<Socket>) = clients.drain(..).partition(has_answer);
    for mut client in displaced {
        let text = said(&mut client);
        let is_refusal =
            text.starts_with("HTTP/1.1 503") && text.contains("x-onecli-error: too_many_connections");
        assert!(is_refusal, "{text}");
    }
    for mut client in waiting {
        client.write_all(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        assert!(said(&mut client).starts_with("HTTP/1.1 407"), "the connection was not evicted");
    }
    // The first has its own record. The others share one that is written after ten seconds.
    let counted = wait_for(Duration::from_secs(30), || {
        let log = crowded.daemon.audit_log();
        let of_them = log.iter().filter(|record| record["code"] == "too_many_connections");
        let count: u64 = of_them.map(|record| record["count"].as_u64().unwrap_or(1)).sum();
        (count >= beyond as u64).then_some(count)
    });
    assert_eq!(counted, Some(beyond as u64));
}

#[test]
fn connections_of_one_agent_do_not_block_others() {
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
fn concurrent_requests_of_an_agent_are_limited() {
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
