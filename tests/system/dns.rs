//! Names: a managed process resolves only the names that its agent may reach, whatever servers its resolv.conf lists.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use onecli_tests::client::{Outcome, Run, curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::upstream::Upstream;
use onecli_tests::{need, wait_for};
use serde_json::{Value, json};

use crate::scene::{API, VALUE};

/// An allowed name with an address of each family.
pub(crate) const BOTH: &str = "both.test";
/// An allowed name with only an IPv6 address.
const SIX: &str = "six.test";
/// A name that only the other agent may resolve.
const OTHERS: &str = "others.test";

/// TEST-NET-1 (RFC 5737): no server answers there, so every answer comes from the daemon.
pub(crate) const RESOLV: &str = "nameserver 192.0.2.1\noptions timeout:2 attempts:1\n";

/// Sends a query over TCP or UDP with plain sockets, and prints the response code and addresses.
const ASK: &str = r#"
import socket, struct, sys
way, server, name, kind = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
query = struct.pack(">HHHHHH", 0x4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
def exactly(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more: sys.exit("closed")
        data += more
    return data
if way == "tcp":
    s = socket.create_connection((server, 53), timeout=10)
    for _ in range(2):
        s.sendall(struct.pack(">H", len(query)) + query)
        answer = exactly(s, struct.unpack(">H", exactly(s, 2))[0])
elif way == "udp":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.sendto(query, (server, 53))
    answer, sender = s.recvfrom(4096)
    assert sender == (server, 53), sender
ident, flags, _, count, _, _ = struct.unpack(">HHHHHH", answer[:12])
assert ident == 0x4711 and flags & 0x8000, answer
at, found = len(query), []
for _ in range(count):
    kind, _, ttl, length = struct.unpack(">HHIH", answer[at + 2:at + 12])
    family = socket.AF_INET if kind == 1 else socket.AF_INET6
    found.append(socket.inet_ntop(family, answer[at + 12:at + 12 + length]))
    assert ttl <= 60, ttl
    at += 12 + length
print("rcode", flags & 15, *found)
"#;

/// An upstream, a daemon that is the only source of the names, and two agents.
pub(crate) struct Stage {
    pub(crate) daemon: Daemon,
    pub(crate) upstream: Upstream,
    pub(crate) one: Agent,
    pub(crate) other: Agent,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let upstream = Upstream::start(&[API]);
        // `Builder::host` is not used, because agents would find those names in their /etc/hosts.
        let config = format!(
            "[resolver.hosts]\n\"{API}\" = [\"127.0.0.1\"]\n\"{BOTH}\" = [\"192.0.2.7\", \"2001:db8::7\"]\n\
             \"{SIX}\" = [\"2001:db8::6\"]\n\"{OTHERS}\" = [\"192.0.2.9\"]\n\"single\" = [\"192.0.2.5\"]\n\
             [upstream]\nextra_ca_files = ['{}']\n",
            upstream.ca_file().display()
        );
        let daemon = Daemon::builder().config(&config).start();
        let one = daemon.add_agent("one", &["--factors", "token,cgroup", "--user", "nobody"]);
        let other = daemon.add_agent("other", &["--factors", "token,cgroup", "--user", "games"]);
        let port = upstream.https_addr().port();
        for (name, host) in [("api", format!("{API}:{port}")), ("both", BOTH.into()), ("six", SIX.into())] {
            daemon.add_secret(
                name,
                VALUE,
                &["--host", &host, "--bearer", "--env", &format!("KEY_{}", name.to_uppercase())],
            );
            let _ = daemon.grant(&one, name);
        }
        daemon.add_secret("single", VALUE, &["--host", "single", "--bearer"]);
        let _ = daemon.grant(&one, "single");
        daemon.add_secret("others", VALUE, &["--host", OTHERS, "--bearer"]);
        let _ = daemon.grant(&other, "others");
        Self { daemon, upstream, one, other }
    }

    /// `run` as `agent`, with `resolv` as its resolv.conf(5).
    pub(crate) fn with_resolv(&self, agent: &Agent, resolv: &str, run: &Run) -> Run {
        const INSIDE: &str = r#"mount --bind "$1" /etc/resolv.conf || exit 120; shift; exec "$@""#;
        let file = self.resolv_file(resolv);
        let inner = self.daemon.managed(agent, run);
        let mut wrapped = Run::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh"])
            .arg(file)
            .arg(inner.program())
            .args(inner.arguments());
        for (name, value) in inner.variables() {
            wrapped = wrapped.env(name, value);
        }
        wrapped
    }

    fn resolv_file(&self, text: &str) -> PathBuf {
        let file = self.daemon.home().dir().join(format!("resolv-{}", onecli_tests::unique()));
        std::fs::write(&file, text).unwrap();
        file
    }

    pub(crate) fn run(&self, agent: &Agent, run: &Run) -> Outcome {
        self.with_resolv(agent, RESOLV, run).outcome()
    }

    fn ask(&self, agent: &Agent, way: &str, name: &str, kind: u16) -> String {
        let run = Run::new("python3").args(["-c", ASK, way, "192.0.2.1", name, &kind.to_string()]);
        let out = self.run(agent, &run).ok(name);
        // An address of `dns.refused_range`.
        let words =
            out.split_whitespace().map(|word| if word.starts_with("198.1") { "synthetic" } else { word });
        words.collect::<Vec<_>>().join(" ")
    }

    fn refused(&self, agent: &Agent, name: &str) -> Value {
        self.daemon.audit_until(name, |r| r["host"] == name && r["agent"] == agent.name.as_str())
    }
}

/// The addresses that `getent ahosts` printed, each once.
fn addresses(outcome: &Outcome) -> Vec<String> {
    let out = outcome.out();
    let mut all: Vec<_> = out.lines().filter_map(|l| l.split_whitespace().next()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(str::to_owned).collect()
}

fn getent(name: &str) -> Run {
    Run::new("getent").args(["ahosts", name])
}

#[test]
fn programs_find_a_name_that_only_the_daemon_knows() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    // An IPv6 server is unreachable: the launcher configures another one.
    for server in ["192.0.2.1", "127.0.0.53", "127.0.0.1", "2001:db8::53"] {
        let resolv = RESOLV.replace("192.0.2.1", server);
        let outcome = stage.with_resolv(&stage.one, &resolv, &getent(API)).outcome();
        outcome.ok(server);
        assert_eq!(addresses(&outcome), ["127.0.0.1"], "{server}: {outcome:?}");
    }
    let run = Run::new("python3")
        .args(["-c", "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 443)[0][4][0])"]);
    assert_eq!(stage.run(&stage.one, &run.arg(API)).ok("python"), "127.0.0.1\n");
    if need::program("node", "node", "nodejs") {
        let script = "require('dns').lookup(process.argv[1], (e, a) => { if (e) throw e; console.log(a) })";
        let run = Run::new("node").args(["-e", script, API]);
        assert_eq!(stage.run(&stage.one, &run).ok("node"), "127.0.0.1\n");
        // c-ares uses its own sockets.
        let script =
            "require('dns').resolve4(process.argv[1], (e, a) => { if (e) throw e; console.log(a[0]) })";
        let run = Run::new("node").args(["-e", script, API]);
        assert_eq!(stage.run(&stage.one, &run).ok("node, c-ares"), "127.0.0.1\n");
    }
    let run = crate::scene::in_shell(
        &curl(&stage.upstream.https_url(API, "/echo")),
        r#"exec "$@" -H "Authorization: Bearer $KEY_API""#,
    );
    let reply = stage.run(&stage.one, &run).reply();
    assert_eq!(reply.verdict(), 200, "{reply:?}");
    let seen = stage.upstream.only_request();
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {VALUE}").as_str()), "{seen:#?}");
}

#[test]
fn queries_work_for_all_families_types_and_transports() {
    const A: u16 = 1;
    const AAAA: u16 = 28;
    const MX: u16 = 15;
    const HTTPS: u16 = 65;
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    for way in ["udp", "tcp"] {
        for (name, kind, expected) in [
            (BOTH, A, "rcode 0 192.0.2.7"),
            (BOTH, AAAA, "rcode 0 2001:db8::7"),
            (BOTH, HTTPS, "rcode 0"),
            (BOTH, MX, "rcode 0"),
            (SIX, A, "rcode 0"),
            (SIX, AAAA, "rcode 0 2001:db8::6"),
            (API, AAAA, "rcode 0"),
            ("localhost", A, "rcode 0 127.0.0.1"),
            (OTHERS, A, "rcode 0 synthetic"),
            (OTHERS, AAAA, "rcode 0"),
            (OTHERS, HTTPS, "rcode 5"),
            ("api.test.corp.example", A, "rcode 3"),
            ("unknown", A, "rcode 5"),
            ("wpad.corp.example", A, "rcode 5"),
            ("metadata.google.internal", A, "rcode 5"),
            ("1.2.0.192.in-addr.arpa", A, "rcode 5"),
        ] {
            assert_eq!(stage.ask(&stage.one, way, name, kind), expected, "{way} {name} {kind}");
        }
    }
    let outcome = stage.run(&stage.one, &getent(BOTH));
    assert_eq!(addresses(&outcome), ["192.0.2.7", "2001:db8::7"], "{outcome:?}");
}

#[test]
fn refused_name_resolves_to_the_daemon() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    let outcome = stage.run(&stage.one, &getent("evil.test"));
    let found = addresses(&outcome);
    assert!(
        found.len() == 1 && found[0].starts_with("198.1"),
        "the name resolves only to the daemon: {outcome:?}"
    );
    let record = stage.refused(&stage.one, "evil.test");
    assert_eq!(record["verdict"], "deny", "{record}");
    assert_eq!(record["code"], "egress_denied", "{record}");
    assert_eq!((&record["event"], &record["mode"]), (&"decision".into(), &"transparent".into()), "{record}");
    assert!(record["method"].is_null() && record["factors"] == "cgroup", "{record}");
    // The second address family and the second program add no records: they are folded.
    let _ = stage.run(&stage.one, &getent("evil.test"));
    let records = stage.daemon.audit();
    let of_it: Vec<_> = records.iter().filter(|r| r["host"] == "evil.test" && r["count"].is_null()).collect();
    assert_eq!(of_it.len(), 1, "{of_it:#?}");

    // Each agent gets its own answers, over UDP and TCP.
    for way in ["udp", "tcp"] {
        assert_eq!(stage.ask(&stage.one, way, OTHERS, 1), "rcode 0 synthetic");
        assert_eq!(stage.ask(&stage.other, way, OTHERS, 1), "rcode 0 192.0.2.9");
        assert_eq!(stage.ask(&stage.other, way, API, 1), "rcode 0 synthetic");
    }
    let _ = stage.refused(&stage.one, OTHERS);
    let _ = stage.refused(&stage.other, API);

    // A policy change applies from the next query.
    let _ = stage.daemon.onecli(&["ungrant", "other", "others"]).ok("ungrant");
    assert_eq!(stage.ask(&stage.other, "udp", OTHERS, 1), "rcode 0 synthetic");
    let _ = stage.daemon.grant(&stage.other, "api");
    assert_eq!(stage.ask(&stage.other, "udp", API, 1), "rcode 0 127.0.0.1");
}

/// The search list of resolv.conf(5) finds a name, before or after its domains are tried.
#[test]
fn search_domains_find_allowed_names() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    for (resolv, name, expected) in [
        ("search corp.example\n", API, "127.0.0.1"),
        ("search a.example b.example\noptions ndots:5\n", API, "127.0.0.1"),
        ("search corp.example\n", "single", "192.0.2.5"),
        // The name is allowed only with the search domain appended.
        ("search test\n", "api", "127.0.0.1"),
        ("search corp.example\n", "api.test.", "127.0.0.1"),
        // The kernel programs refuse IPv6 servers, so the client asks the next one.
        ("nameserver 2001:db8::53\n", API, "127.0.0.1"),
    ] {
        let resolv = if resolv.contains("nameserver") {
            format!("{resolv}{RESOLV}")
        } else {
            format!("{RESOLV}{resolv}")
        };
        let outcome = stage.with_resolv(&stage.one, &resolv, &getent(name)).outcome();
        assert_eq!(addresses(&outcome), [expected], "{name} with {resolv}: {outcome:?}");
    }
}

#[test]
fn other_datagrams_are_refused() {
    if !need::bpf("everything") {
        return;
    }
    let script = r#"
import socket, sys
for server, port in [("192.0.2.1", 443), ("127.0.0.1", int(sys.argv[1])), ("192.0.2.1", 5353)]:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"out", (server, port))
        print("sent to", server, port)
    except PermissionError:
        pass
try:
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"out", ("::1", 53))
    print("sent to ::1")
except PermissionError:
    pass
"#;
    let stage = Stage::new();
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    receiver.set_nonblocking(true).unwrap();
    let port = receiver.local_addr().unwrap().port().to_string();
    let out = stage.run(&stage.one, &Run::new("python3").args(["-c", script, &port])).ok("python");
    assert_eq!(out, "");
    assert!(receiver.recv_from(&mut [0; 8]).is_err(), "a datagram arrived");
    let refused = stage.daemon.audit_until("QUIC refused by the kernel", |r| r["port"] == 443);
    assert_eq!(
        (&refused["code"], &refused["verdict"]),
        (&json!("kernel_denied"), &json!("deny")),
        "{refused}"
    );
    assert_eq!((&refused["agent"], &refused["host"]), (&json!("one"), &json!("192.0.2.1")), "{refused}");
    assert_eq!(refused["rule"], "kernel sendmsg4 udp", "{refused}");
    // A query to another agent's resolver, by its address: the kernel redirects it to the sender's own resolver.
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let own = format!(":{:04X}", stage.daemon.transparent_addr().port());
    let resolvers = table.lines().filter(|l| l.split_whitespace().nth(1).is_some_and(|a| a.ends_with(&own)));
    assert_eq!(resolvers.count(), 2, "one socket for each agent:\n{table}");
}

pub(crate) fn wait_for_file(path: &Path) {
    let there = wait_for(Duration::from_secs(30), || path.exists().then_some(()));
    assert!(there.is_some(), "{} was not created", path.display());
}

/// Resolver sockets are created and removed with the agents, and with the daemon.
#[test]
fn no_query_is_answered_without_the_daemon_or_the_agent() {
    const PROBE: &str = r#"
        dir=$1
        for phase in 1 2 3 4; do
            while [ ! -e "$dir/go$phase" ]; do sleep 0.05; done
            case $(getent ahostsv4 api.test) in
            127.*) echo "$phase found";;
            198.1*) echo "$phase synthetic";;
            *) echo "$phase nothing";;
            esac
            : > "$dir/done$phase"
        done
    "#;
    if !need::bpf("everything") {
        return;
    }
    let mut stage = Stage::new();
    let dir = stage.daemon.agent_dir(&stage.one);
    let probe = Run::new("sh").args(["-c", PROBE, "sh"]).arg(&dir).timeout(Duration::from_mins(2));
    // The time limit applies to the outer program.
    let probe = stage.with_resolv(&stage.one, RESOLV, &probe).timeout(Duration::from_mins(2)).start();
    let step = |n: u8| {
        std::fs::write(dir.join(format!("go{n}")), "").unwrap();
        wait_for_file(&dir.join(format!("done{n}")));
    };
    step(1);
    stage.daemon.kill();
    step(2);
    stage.daemon.restart();
    step(3);
    let _ = stage.daemon.onecli(&["agent", "disable", "one"]).ok("disable");
    step(4);
    assert_eq!(probe.finish().ok("the probe"), "1 found\n2 nothing\n3 found\n4 synthetic\n");
}
