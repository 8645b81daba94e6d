//! HTTP/1.1 and HTTP/2 on both sides in every combination, and the protocols on top of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use data_encoding::BASE64;
use onecli_tests::client::{self, Reply, Run, curl, patient_curl};
use onecli_tests::daemon::{Agent, Daemon};
use onecli_tests::need;
use onecli_tests::upstream::{TestCa, Upstream};
use serde_json::json;

use crate::scene::{API, Scene, VALUE, Way, in_shell};
use crate::streams::resident;

/// An upstream for each version, and one agent.
struct Both {
    daemon: Daemon,
    upstreams: [(Upstream, &'static str); 2],
    agent: Agent,
}

impl Both {
    fn new() -> Self {
        let one = Upstream::builder(&["one.test"]).alpn(&["http/1.1"]).start();
        let two = Upstream::builder(&["two.test"]).alpn(&["h2"]).start();
        let daemon = Daemon::builder().upstream(&one).upstream(&two).no_ebpf().start();
        let agent = daemon.add_agent("outside", &["--factors", "token"]);
        for (name, upstream) in [("one", &one), ("two", &two)] {
            let host = format!("{name}.test:{}", upstream.https_addr().port());
            daemon.add_secret(name, VALUE, &["--host", &host, "--bearer"]);
            let _ = daemon.grant(&agent, name);
        }
        Self { daemon, upstreams: [(one, "one.test"), (two, "two.test")], agent }
    }

    /// Calls `check` with a function that sends a request, for each of the four combinations.
    fn each(&self, check: impl Fn(&str, &Upstream, &dyn Fn(&str, &[&str]) -> Reply)) {
        for (upstream, name) in &self.upstreams {
            for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
                let fetch = |path: &str, args: &[&str]| {
                    let run = curl(&upstream.https_url(name, path)).arg(flag).args(args);
                    let outcome = self.daemon.explicit(&self.agent.token, run.arg("--verbose")).outcome();
                    let reply = outcome.reply();
                    assert_eq!(reply.version, version, "{path} {name} {args:?}: {outcome:?}");
                    reply
                };
                upstream.clear();
                check(&format!("{flag} to {name}"), upstream, &fetch);
                let alpn = if *name == "one.test" { "http/1.1" } else { "h2" };
                for seen in upstream.requests() {
                    assert_eq!(seen.alpn.as_deref(), Some(alpn), "{seen:#?}");
                    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {VALUE}")), "{seen:#?}");
                }
            }
        }
    }
}

#[test]
fn responses_of_every_form_arrive() {
    let both = Both::new();
    both.each(|what, upstream, fetch| {
        assert_eq!(fetch("/bytes/100000", &[]).body.len(), 100_000, "{what}");
        assert_eq!(fetch("/chunked/100000", &[]).body.len(), 100_000, "{what}");
        let head = fetch("/bytes/100000", &["--head"]);
        assert_eq!((head.status, head.header("content-length")), (200, Some("100000")), "{what}: {head:?}");
        for status in [204, 304] {
            let reply = fetch(&format!("/status/{status}"), &[]);
            assert_eq!(
                (reply.status, reply.body.len(), reply.exit),
                (status, 0, Some(0)),
                "{what}: {reply:?}"
            );
        }
        let expect = fetch("/upload", &["-H", "Expect: 100-continue", "--data-binary", "hello"]);
        assert_eq!(expect.json()["bytes"], 5, "{what}: {expect:?}");
        let empty = fetch("/upload", &["--request", "POST"]);
        assert_eq!(empty.json()["bytes"], 0, "{what}: {empty:?}");
        let trailers = fetch("/trailers", &["-H", "TE: trailers"]);
        assert_eq!(trailers.text(), "body\n", "{what}: {trailers:?}");
        // A range would cut a value in two, so the daemon requests the whole, as a server may answer (RFC 9110 section
        // 14.2).
        let range = fetch("/bytes/1000", &["--range", "0-9"]);
        assert_eq!((range.status, range.body.len()), (200, 1000), "{what}: {range:?}");
        assert!(upstream.requests().iter().all(|seen| seen.header("range").is_none()), "{what}");
    });
}

/// An event reaches the agent before the upstream sends the next.
#[test]
fn events_are_not_delayed() {
    let both = Both::new();
    for (upstream, name) in &both.upstreams {
        for flag in ["--http1.1", "--http2"] {
            let fetch = curl(&upstream.https_url(name, "/sse?n=2&ms=1500")).args(["--no-buffer", flag]);
            let timed = r#""$@" | while read -r line; do echo "$(date +%s%3N) $line"; done"#;
            let out = both.daemon.explicit(&both.agent.token, in_shell(&fetch, timed)).outcome().out();
            let at = |event: &str| -> u64 {
                let line = out.lines().find(|line| line.ends_with(event));
                let line = line.unwrap_or_else(|| panic!("{flag} to {name}: no {event} in {out}"));
                line.split(' ').next().unwrap().parse().unwrap()
            };
            let between = at("event 1") - at("event 0");
            assert!(between > 700, "{flag} to {name}: {between} ms between the events, of 1500");
        }
    }
}

/// Streams of one connection are judged one by one, independent of the streams beside them.
#[test]
fn each_stream_of_a_connection_is_judged_on_its_own() {
    let upstream = Upstream::builder(&[API]).alpn(&["h2"]).start();
    let scene = Scene::with(upstream, &["--bearer", "--path", "/slow/*", "--path", "/echo"]);
    // The first one holds the connection open while the others arrive.
    let paths = ["/slow/1500", "/echo", "/status/200", "/slow/800", "/echo/x", "/bytes/5", "/slow/700"];
    let mut run = curl(&scene.url(paths[0])).args(["--http2", "--parallel", "--output", "/dev/null"]);
    for path in &paths[1..] {
        run = run.arg(scene.url(path)).args(["--output", "/dev/null"]);
    }
    let run = run.args(["--write-out", "%{http_code} %{num_connects} %{url}\n"]);
    let out = scene.daemon.explicit(&scene.outside.token, run).outcome().out();
    let mut connections = 0;
    for path in paths {
        let line = out.lines().find(|line| line.ends_with(path)).unwrap_or_else(|| panic!("{path}: {out}"));
        let (status, rest) = line.split_once(' ').unwrap();
        connections += rest.split(' ').next().unwrap().parse::<u32>().unwrap();
        let good = path.starts_with("/slow") || path == "/echo";
        assert_eq!(status, if good { "200" } else { "403" }, "{path}: {out}");
    }
    assert_eq!(connections, 1, "{out}");
    let seen = scene.upstream.requests();
    assert_eq!(seen.len(), 4, "{seen:#?}");
    let bearer = format!("Bearer {VALUE}");
    assert!(seen.iter().all(|request| request.header("authorization") == Some(bearer.as_str())), "{seen:#?}");
}

/// The best latency of an event: the daemon waits neither for more bytes nor for a timer. Other load on the machine
/// affects the other events.
#[test]
fn event_arrives_within_50_ms() {
    let both = Both::new();
    let script = r"
import sys, time
for line in sys.stdin:
    if line.startswith(': sent at '):
        print(int(time.time() * 1000) - int(line.split()[-1]), flush=True)
";
    for (upstream, name) in &both.upstreams {
        for flag in ["--http1.1", "--http2"] {
            let fetch = curl(&upstream.https_url(name, "/sse?n=15&ms=70&at")).args(["--no-buffer", flag]);
            let timed = format!(r#""$@" | python3 -c "{script}""#);
            let out = both.daemon.explicit(&both.agent.token, in_shell(&fetch, &timed)).outcome().out();
            let delays: Vec<i64> = out.lines().map(|line| line.parse().unwrap()).collect();
            assert_eq!(delays.len(), 15, "{flag} to {name}: {out}");
            let best = delays.iter().min().unwrap();
            assert!(*best <= 50, "{flag} to {name}: {delays:?} ms");
        }
    }
}

/// gRPC with its own library: HTTP/2, trailers, streams in both directions.
#[test]
fn grpc_works_in_both_directions() {
    if !need::python("everything") {
        return;
    }
    let server = r#"
import grpc, sys, time
from concurrent import futures
same = lambda data: data
def say(request, context):
    context.set_trailing_metadata((("x-seen", dict(context.invocation_metadata()).get("authorization", "")),))
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    return request.upper()
def chat(requests, context):
    for request in requests:
        yield request.upper()
handlers = {
    "Say": grpc.unary_unary_rpc_method_handler(say, same, same),
    "Chat": grpc.stream_stream_rpc_method_handler(chat, same, same),
}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo.Echo", handlers),))
key, chain = (open(name, "rb").read() for name in sys.argv[1:3])
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(((key, chain),)))
server.start()
open(sys.argv[3] + ".new", "w").write(str(port))
import os
os.rename(sys.argv[3] + ".new", sys.argv[3])
time.sleep(60)
"#;
    let client_script = r#"
import grpc, sys
same = lambda data: data
roots = open(sys.argv[2], "rb").read()
channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(roots))
say = channel.unary_unary("/echo.Echo/Say", same, same)
answer, call = say.with_call(b"hello", timeout=20)
print(answer.decode(), dict(call.trailing_metadata())["x-seen"])
try:
    say(b"fail", timeout=20)
except grpc.RpcError as error:
    print(error.code().name, error.details())
try:
    channel.unary_unary("/echo.Echo/Denied", same, same)(b"hello", timeout=20)
except grpc.RpcError as error:
    print(error.code().name, error.details().split(":")[0])
import queue
sent = queue.Queue()
answers = channel.stream_stream("/echo.Echo/Chat", same, same)(iter(sent.get, None), timeout=20)
# Each message is answered before the next is sent.
for message in (b"one", b"two", b"three"):
    sent.put(message)
    print(next(answers).decode())
sent.put(None)
print(list(answers))
"#;
    let ca = TestCa::new("gRPC upstream");
    let (chain, key) = ca.leaf(&["grpc.test".to_owned()]);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let pem = |label: &str, der: &[u8]| {
        // Forks of OpenSSL read no longer lines.
        let body = BASE64.encode(der.as_ref());
        let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    std::fs::write(file("key"), pem("PRIVATE KEY", key.secret_der())).unwrap();
    std::fs::write(file("chain"), pem("CERTIFICATE", &chain[0])).unwrap();
    std::fs::write(file("ca"), ca.pem()).unwrap();
    let python = client::python().unwrap();
    let serving = Run::new(&python)
        .args(["-c", server])
        .args([file("key"), file("chain"), file("port")])
        .timeout(Duration::from_mins(1))
        .start();
    let port = onecli_tests::wait_for(Duration::from_secs(20), || std::fs::read_to_string(file("port")).ok());
    let port = port.expect("the gRPC server listens");
    let config = format!("[upstream]\nextra_ca_files = [{:?}]\n", file("ca"));
    let daemon = Daemon::builder().host("grpc.test", &["127.0.0.1"]).config(&config).no_ebpf().start();
    let agent = daemon.add_agent("outside", &["--factors", "token"]);
    daemon.add_secret("grpc", VALUE, &["--host", &format!("grpc.test:{port}"), "--bearer"]);
    let _ = daemon.grant(&agent, "grpc");
    let denied = ["rule", "add", "deny", "--host", "grpc.test", "--path", "/echo.Echo/Denied"];
    daemon.onecli(&denied).ok("rule add");
    let run =
        Run::new(&python).args(["-c", client_script, &format!("grpc.test:{port}")]).arg(daemon.ca_file());
    let out = daemon.explicit(&agent.token, run).outcome().ok("the gRPC client");
    let masked = "*".repeat(VALUE.len());
    let expected = format!(
        "HELLO Bearer {masked}\nNOT_FOUND no such thing\nPERMISSION_DENIED rule_denied\nONE\nTWO\nTHREE\n[]\n"
    );
    assert_eq!(out, expected);
    drop(serving);
}

/// Large bodies pass in constant memory.
#[test]
fn slow_gibibyte_each_way_uses_constant_memory() {
    const SIZE: u64 = 1 << 30;
    let scene = Scene::with(Upstream::builder(&[API]).unrecorded().start(), &["--bearer"]);
    let pid = scene.daemon.pid();
    let before = resident(pid);
    let (most, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let watching = {
        let (most, done) = (Arc::clone(&most), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(resident(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let down = patient_curl(&scene.url(&format!("/bytes/{SIZE}"))).args(["--output", "/dev/null"]);
    let down = down.args(["--write-out", "%{size_download}\n"]);
    let up = patient_curl(&scene.url("/discard")).args(["--http2", "--upload-file", "-"]);
    let up = in_shell(&up, &format!(r#"head -c {SIZE} /dev/zero | "$@""#)).timeout(Duration::from_mins(20));
    let down = scene.daemon.explicit(&scene.outside.token, down).start();
    let uploaded = scene.run(Way::Explicit, up);
    let downloaded = down.finish();
    done.store(true, Ordering::Relaxed);
    watching.join().unwrap();
    assert!(downloaded.out().contains(&SIZE.to_string()), "{downloaded:?}");
    assert_eq!(uploaded.json("the upload"), json!({ "bytes": SIZE }));
    let grown = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more than before", grown >> 20);
}
