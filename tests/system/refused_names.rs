//! A name that an agent may not resolve gets an address of the daemon, which explains the refusal.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use onecli_tests::client::{Outcome, Run, curl};
use onecli_tests::daemon::Agent;
use onecli_tests::netns::Netns;
use onecli_tests::{need, wait_for};
use serde_json::Value;

use crate::dns::{BOTH, RESOLV, Stage, wait_for_file};
use crate::scene::API;

/// Longer than a query waits for its connection.
const ALONE: Duration = Duration::from_secs(4);
/// Prints the address of a name, and the response to a plain request, with getaddrinfo(3) alone.
const RESOLVE_AND_ASK: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int code = getaddrinfo(argv[1], argv[2], &hints, &found);
    if (code) return printf("getaddrinfo %d\n", code), 1;
    char text[64] = "?", request[512], answer[4096];
    getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
    printf("%s\n", text);
    if (argc > 3) return 0;
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(fd, found->ai_addr, found->ai_addrlen)) return perror("connect"), 2;
    snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", argv[1]);
    if (write(fd, request, strlen(request)) < 0) return 3;
    for (int n; (n = read(fd, answer, sizeof answer)) > 0;) fwrite(answer, 1, n, stdout);
    return 0;
}
"#;

/// The records about a name, in the order in which they were written.
fn about(stage: &Stage, name: &str) -> Vec<Value> {
    stage.daemon.audit().into_iter().filter(|record| record["host"] == name).collect()
}

fn error(outcome: &Outcome, what: &str) -> Value {
    let reply = outcome.reply();
    assert_eq!(reply.verdict(), 403, "{what}: {reply:?}");
    reply.json()["error"].clone()
}

fn python(script: &str, args: &[&str]) -> Run {
    Run::new("python3").args(["-c", script]).args(args)
}

/// A command that waits for `go` in the agent's directory before it continues.
struct Paused {
    dir: PathBuf,
    running: onecli_tests::client::Running,
}

impl Paused {
    /// Starts `script`, which gets the agent's directory as `$1` and calls `pause`.
    fn start(stage: &Stage, agent: &Agent, script: &str, args: &[&str]) -> Paused {
        const PAUSE: &str = r#"pause() { : > "$dir/ready"; while [ ! -e "$dir/go" ]; do sleep 0.05; done; }; dir=$1; shift; "#;
        let dir = stage.daemon.agent_dir(agent);
        let run = Run::new("sh").args(["-c", &format!("{PAUSE}{script}"), "sh"]).arg(&dir).args(args);
        let running = stage.with_resolv(agent, RESOLV, &run).timeout(Duration::from_mins(2)).start();
        wait_for_file(&dir.join("ready"));
        Paused { dir, running }
    }

    fn go_on(self) -> Outcome {
        std::fs::write(self.dir.join("go"), "").unwrap();
        self.running.finish()
    }
}

#[test]
fn denied_host_answers_with_the_reason_and_one_record() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    for (url, port) in
        [("https://evil.test/", 443), ("http://evil.test/", 80), ("http://evil.test:8080/", 8080)]
    {
        let error = error(&stage.run(&stage.one, &curl(url)), url);
        assert_eq!(error["code"], "egress_denied", "{url}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("may not reach evil.test:{port}")), "{error}");
        assert!(error["hint"].as_str().unwrap().contains("onecli rule add allow --agent one"), "{error}");
    }
    std::thread::sleep(ALONE);
    let records = about(&stage, "evil.test");
    let ports: Vec<_> = records.iter().map(|record| record["port"].as_u64()).collect();
    assert_eq!(ports, [Some(443), Some(80), Some(8080)], "{records:#?}");
    assert!(
        records.iter().all(|record| record["address"].as_str().unwrap().starts_with("198.1")),
        "{records:#?}"
    );
    // A query without a connection is recorded too.
    let _ = stage.run(&stage.one, &Run::new("getent").args(["ahosts", "alone.test"])).ok("getent");
    let record = stage.daemon.audit_until("the query", |record| record["host"] == "alone.test");
    assert_eq!((&record["port"], &record["code"]), (&53.into(), &"egress_denied".into()), "{record}");
}

/// These looked like broken DNS too.
#[test]
fn disabled_agent_and_revoked_grant_are_reported_as_reasons() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    let _ = stage.daemon.onecli(&["ungrant", "one", "both"]).ok("ungrant");
    let revoked = error(&stage.run(&stage.one, &curl(&format!("https://{BOTH}/"))), "revoked");
    assert!(
        revoked["message"].as_str().unwrap().contains("its grant of secret 'both' was revoked"),
        "{revoked}"
    );
    assert!(revoked["hint"].as_str().unwrap().contains("onecli grant one both"), "{revoked}");
    let _ = stage.daemon.onecli(&["secret", "disable", "six"]).ok("disable");
    let off = error(&stage.run(&stage.one, &curl("https://six.test/")), "a disabled secret");
    assert!(off["message"].as_str().unwrap().contains("secret 'six' is disabled"), "{off}");

    let asks = curl(&format!("https://{API}/"));
    let args: Vec<_> = asks.arguments().iter().map(|arg| arg.to_str().unwrap()).collect();
    let paused = Paused::start(&stage, &stage.one, r#"pause; exec curl "$@""#, &args);
    let _ = stage.daemon.onecli(&["agent", "disable", "one"]).ok("disable");
    let disabled = error(&paused.go_on(), "disabled");
    assert_eq!(disabled["code"], "agent_disabled", "{disabled}");
    std::thread::sleep(ALONE);
    let records = about(&stage, API);
    assert!(records.iter().all(|record| record["port"] == 443), "{records:#?}");
}

/// The daemon decides by server name or `Host`, so an address that a program cached works after a rule allows the name.
#[test]
fn cached_address_works_once_a_rule_allows_the_name() {
    if !need::bpf("everything") {
        return;
    }
    let stage = Stage::new();
    let port = stage.upstream.https_addr().port().to_string();
    let script = r#"
        name=$1 port=$2; shift 2
        address=$(getent ahostsv4 $name | head -n 1 | cut -d ' ' -f 1)
        echo $address
        pause
        exec curl "$@" --resolve $name:$port:$address"#;
    let asks = curl(&stage.upstream.https_url(API, "/echo"));
    let mut args = vec![API, &port];
    args.extend(asks.arguments().iter().map(|arg| arg.to_str().unwrap()));
    let paused = Paused::start(&stage, &stage.other, script, &args);
    let rule = ["rule", "add", "allow", "--agent", "other", "--host", API, "--port", &port];
    let _ = stage.daemon.onecli(&rule).ok("rule");
    let outcome = paused.go_on();
    assert!(outcome.out().starts_with("198.1"), "{outcome:?}");
    assert_eq!(stage.upstream.only_request().path, "/echo", "{outcome:?}");
}

#[test]
fn jvm_with_a_cached_address_works_once_a_rule_allows_the_name() {
    if !need::bpf("everything") || !need::program("everything", "java", "default-jre-headless") {
        return;
    }
    const SOURCE: &str = r#"
import java.net.*;
import java.nio.file.*;
public class Ask {
    static void ask(String url) {
        try {
            HttpURLConnection c = (HttpURLConnection) new URI(url).toURL().openConnection();
            System.out.println(c.getResponseCode());
        } catch (Exception error) { System.out.println(error); }
    }
    public static void main(String[] args) throws Exception {
        ask(args[0]);
        ask(args[1]);
        Files.createFile(Path.of(args[2], "ready"));
        while (!Files.exists(Path.of(args[2], "go"))) Thread.sleep(50);
        ask(args[1]);
        System.out.println(InetAddress.getByName(args[3]).getHostAddress());
    }
}"#;
    let stage = Stage::new();
    let dir = stage.daemon.agent_dir(&stage.other);
    let file = dir.join("Ask.java");
    std::fs::write(&file, SOURCE).unwrap();
    let port = stage.upstream.https_addr().port().to_string();
    let run = Run::new("java")
        .args(["-Dsun.net.inetaddr.ttl=-1".as_ref(), file.as_os_str()])
        .args([&format!("https://{API}/"), &stage.upstream.https_url(API, "/echo")])
        .arg(&dir)
        .arg(API);
    let running = stage.with_resolv(&stage.other, RESOLV, &run).timeout(Duration::from_mins(2)).start();
    wait_for_file(&dir.join("ready"));
    let rule = ["rule", "add", "allow", "--agent", "other", "--host", API, "--port", &port];
    let _ = stage.daemon.onecli(&rule).ok("rule");
    std::fs::write(dir.join("go"), "").unwrap();
    let outcome = running.finish();
    let lines: Vec<_> = outcome.out().lines().map(str::to_owned).collect();
    let [first, reset, allowed, address] = lines.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((first.as_str(), allowed.as_str()), ("403", "200"), "{outcome:?}");
    assert!(
        reset.contains("SocketException"),
        "the port is not one where the daemon can answer: {outcome:?}"
    );
    assert!(address.starts_with("198.1"), "{outcome:?}");
}

/// A client that names no host gets the decision for the name that its address represents.
#[test]
fn address_identifies_its_name_without_server_name_and_host() {
    if !need::bpf("everything") {
        return;
    }
    let script = r#"
import socket, ssl
def answer(s):
    data = b""
    while True:
        more = s.recv(65536)
        if not more: return data.decode()
        data += more
s = socket.create_connection(("evil.test", 80))
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
print(answer(s))
context = ssl.create_default_context()
context.check_hostname = False
s = context.wrap_socket(socket.create_connection(("worse.test", 443)))
print([name for _, name in s.getpeercert()["subjectAltName"]])
s.sendall(b"GET / HTTP/1.1\r\nHost: worse.test\r\nConnection: close\r\n\r\n")
print(answer(s))
"#;
    let stage = Stage::new();
    let out = stage.run(&stage.one, &python(script, &[])).ok("python");
    assert!(
        out.contains("may not reach evil.test:80") && out.contains("may not reach worse.test:443"),
        "{out}"
    );
    assert!(out.contains("['worse.test']"), "{out}");
}

/// If a server speaks first, a client would wait for the first bytes.
#[test]
fn other_ports_are_refused_at_once() {
    if !need::bpf("everything") {
        return;
    }
    let script = r#"
import socket, sys, time
for port in (22, 25, 5432):
    began = time.time()
    s = socket.socket()
    try:
        s.connect((sys.argv[1], port))
        print(port, "read", s.recv(1))
    except ConnectionError as error:
        print(port, "refused", time.time() - began < 2)
"#;
    let stage = Stage::new();
    // Unreadable data is refused by the name that its address represents.
    let unreadable =
        "import socket; s = socket.create_connection(('worse.test', 8443)); s.sendall(bytes(9)); s.recv(1)";
    let _ = stage.run(&stage.one, &python(unreadable, &[]));
    let refused = stage.daemon.audit_until("unreadable bytes", |record| record["host"] == "worse.test");
    assert_eq!((&refused["port"], &refused["code"]), (&8443.into(), &"egress_denied".into()), "{refused}");
    let run = || stage.run(&stage.one, &python(script, &["evil.test"])).ok("python");
    assert_eq!(run(), "22 refused True\n25 refused True\n5432 refused True\n");
    let refused = stage.daemon.audit_until("the refusal", |record| record["port"] == 22);
    assert_eq!(
        (&refused["host"], &refused["code"]),
        (&"evil.test".into(), &"egress_denied".into()),
        "{refused}"
    );
}

/// The two libraries differ in the condition that ends the search of resolv.conf's domains.
#[test]
fn musl_and_glibc_get_the_reason_with_search_domains() {
    if !need::bpf("everything") || !need::program("everything", "musl-gcc", "musl-tools") {
        return;
    }
    let stage = Stage::new();
    let source = stage.daemon.home().dir().join("ask.c");
    std::fs::write(&source, RESOLVE_AND_ASK).unwrap();
    let resolv = format!("search ns.corp.example corp.example\n{RESOLV}options ndots:5\n");
    for compiler in ["cc", "musl-gcc"] {
        let program = stage.daemon.agent_dir(&stage.one).join(compiler);
        let mut compile = Command::new(compiler);
        compile.arg("-o").arg(&program).arg(&source);
        if compiler == "musl-gcc" {
            compile.arg("-static");
        }
        assert!(compile.status().unwrap().success(), "{compiler}");
        let ask = |args: &[&str]| {
            let run = Run::new(&program).args(args);
            stage.with_resolv(&stage.one, &resolv, &run).outcome().ok(compiler)
        };
        let out = ask(&["evil.test", "80"]);
        assert!(out.starts_with("198.1"), "{compiler}: {out}");
        assert!(out.contains(" 403 ") && out.contains("may not reach evil.test:80"), "{compiler}: {out}");
        assert_eq!(ask(&[API, "443", "only"]), "127.0.0.1\n", "{compiler}: an allowed name");
        assert_eq!(ask(&["single", "443", "only"]), "192.0.2.5\n", "{compiler}: an allowed short name");
    }
    std::thread::sleep(ALONE);
    let queries: Vec<_> = stage.daemon.audit().into_iter().filter(|record| record["port"] == 53).collect();
    assert!(queries.is_empty(), "records of connections replace those of queries: {queries:#?}");
}

#[test]
fn ipv6_only_client_gets_no_address_and_is_recorded() {
    if !need::bpf("everything") {
        return;
    }
    let script = r#"
import socket
def ask(**options):
    try: return socket.getaddrinfo("evil.test", 80, socket.AF_INET6, socket.SOCK_STREAM, **options)[0][4][0]
    except socket.gaierror as error: return "none"
print(ask())
address = ask(flags=socket.AI_V4MAPPED)
print(address)
s = socket.socket(socket.AF_INET6)
s.connect((address, 80))
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
print(s.recv(65536).decode())
"#;
    let stage = Stage::new();
    let only = "import socket\ntry: socket.getaddrinfo('six-only.test', 80, socket.AF_INET6)\nexcept socket.gaierror: print('none')";
    assert_eq!(stage.run(&stage.one, &python(only, &[])).ok("python"), "none\n");
    let _ = stage.daemon.audit_until("the query", |record| record["host"] == "six-only.test");
    let out = stage.run(&stage.one, &python(script, &[])).ok("python");
    assert!(out.starts_with("none\n::ffff:198.1") && out.contains("may not reach evil.test:80"), "{out}");
}

/// In a network namespace with only a default route, and in one without any route.
#[test]
fn no_packet_leaves_for_a_denied_name() {
    if !need::bpf("everything") || !need::program("everything", "ip", "iproute2") {
        return;
    }
    let stage = Stage::new();
    let (inside, gateway) = (Netns::new(), Netns::new());
    inside.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    gateway.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let (link, _) = inside.join("192.0.2.1/30", &gateway, "192.0.2.2/30");
    inside.ip("route add default via 192.0.2.2");
    let sent = || {
        let show = format!("cat /sys/class/net/{link}/statistics/tx_packets");
        let output = inside.command("sh").args(["-c", &show]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u64>().unwrap()
    };
    let before = sent();
    let bare = Netns::new();
    for (netns, what) in [(&inside, "a default route"), (&bare, "no route")] {
        let run = netns.wrap(&stage.with_resolv(&stage.one, RESOLV, &curl("http://evil.test/")));
        // A process that changes its namespace while it runs is refused for a moment.
        let reply = wait_for(Duration::from_secs(20), || {
            let reply = run.clone().outcome().reply();
            (reply.exit == Some(0)).then_some(reply)
        });
        let reply = reply.unwrap_or_else(|| panic!("{what}: {:?}", run.clone().outcome()));
        assert_eq!(reply.verdict(), 403, "{what}: {reply:?}");
        assert!(reply.text().contains("may not reach evil.test:80"), "{what}: {reply:?}");
    }
    assert_eq!(sent(), before, "packets left by {link}");
}

/// Invariant 9: the records and memory that names use are bounded, and other agents can resolve names during a flood.
#[test]
fn flood_of_names_is_bounded() {
    if !need::bpf("everything") {
        return;
    }
    let script = r#"
import socket
for n in range(3000):
    try: socket.getaddrinfo(f"data{n}.evil.test", 443, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror: pass
"#;
    let stage = Stage::new();
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", stage.daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let before = memory();
    let flood =
        stage.with_resolv(&stage.one, RESOLV, &python(script, &[])).timeout(Duration::from_mins(2)).start();
    let found =
        stage.run(&stage.other, &Run::new("getent").args(["ahosts", "others.test"])).ok("another agent");
    assert!(found.contains("192.0.2.9"), "{found}");
    let _ = flood.finish().ok("the flood");
    assert!(memory() < before + 16 * 1024, "{before} kB, then {}", memory());
    std::thread::sleep(Duration::from_secs(13));
    let records = stage.daemon.audit().into_iter().filter(|record| record["port"] == 53);
    let counts: Vec<u64> = records.map(|record| record["count"].as_u64().unwrap_or(1)).collect();
    assert!(counts.len() < 300, "{}", counts.len());
    assert_eq!(counts.iter().sum::<u64>(), 3_000, "{counts:?}");
}
