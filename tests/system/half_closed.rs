//! Clients that close their side of the connection before they have the response, as `nc -N` and old scripts do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use onecli_tests::client::Run;
use onecli_tests::daemon::Daemon;
use onecli_tests::socket::Grepped;

use crate::raw_tls::{self, Tls, connect};
use crate::scene::{API, Scene, Way, ways};

/// TLS for the upstream's name, with an agent that trusts the daemon's CA.
fn tls(scene: &Scene) -> Tls {
    raw_tls::tls(&scene.daemon, &scene.outside.token, &https(scene), "http/1.1")
}

fn https(scene: &Scene) -> String {
    format!("{API}:{}", scene.upstream.https_addr().port())
}

fn http(scene: &Scene) -> String {
    format!("{API}:{}", scene.upstream.http_addr().port())
}

/// Lets both agents reach this port of the upstream's name.
fn allow(scene: &Scene, port: u16) {
    let _ = scene
        .daemon
        .onecli(&["rule", "add", "allow", "--host", API, "--port", &port.to_string()])
        .ok("rule add");
}

/// A script that sends its second argument to the port in its first, closes its side and prints the bytes it receives.
const CLIENT: &str = r#"
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
s.sendall(sys.argv[3].encode())
s.shutdown(socket.SHUT_WR)
while (piece := s.recv(65536)):
    sys.stdout.write(piece.decode("latin1"))
"#;

#[test]
fn response_reaches_a_client_that_closed_its_side() {
    let scene = Scene::new();
    allow(&scene, scene.upstream.http_addr().port());
    for path in ["/slow/700", "/slow/0", "/bytes/3000000", "/sse?n=3&ms=300"] {
        for version in ["1.0", "1.1"] {
            let (host, token) = (http(&scene), &scene.outside.token);
            let what = format!("{path} HTTP/{version}");
            let is_whole = |read: &str| {
                assert!(read.starts_with("HTTP/1."), "{what}: {read:.300}");
                assert!(read.contains(" 200 OK\r\n"), "{what}: {read:.300}");
                match path {
                    "/bytes/3000000" => assert!(read.len() > 3_000_000, "{what}: {} bytes", read.len()),
                    "/sse?n=3&ms=300" => assert!(read.contains("data: event 2"), "{what}: {read}"),
                    _ => assert!(read.contains("slow\n"), "{what}: {read}"),
                }
            };
            let mut plain = connect(&scene.daemon);
            write!(
                plain,
                "GET http://{host}{path} HTTP/{version}\r\nHost: {host}\r\nProxy-Authorization: Bearer {token}\r\n\r\n"
            )
            .unwrap();
            plain.shutdown(Shutdown::Write).unwrap();
            is_whole(&read_all(&mut plain));

            let mut stream = tls(&scene);
            write!(stream, "GET {path} HTTP/{version}\r\nHost: {}\r\n\r\n", https(&scene)).unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            is_whole(&read_all(&mut Grepped::new(stream)));

            // Each start of a command takes long.
            if path == "/slow/700" && ways().contains(&Way::Transparent) {
                let port = scene.upstream.http_addr().port().to_string();
                let request = format!("GET {path} HTTP/{version}\r\nHost: {host}\r\n\r\n");
                let run = Run::new("python3").args(["-c", CLIENT, API, &port, &request]);
                is_whole(&scene.run(Way::Transparent, run).ok("the script"));
            }
        }
    }
}

/// Over TLS, the end of the TCP connection after the closure alert shows that the client is gone.
#[test]
fn client_that_closes_both_directions_of_tls_is_detected() {
    let scene = Scene::new();
    let mut stream = tls(&scene);
    write!(stream, "GET /slow/30000 HTTP/1.1\r\nHost: {}\r\n\r\n", https(&scene)).unwrap();
    let _ =
        scene.daemon.audit_until("the decision", |r| r["event"] == "decision" && r["path"] == "/slow/30000");
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let started = Instant::now();
    drop(stream);
    let outcome = scene.daemon.audit_until("the outcome", |r| r["event"] == "outcome");
    assert_eq!(outcome["code"], "client_gone", "{outcome}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

/// A server without TLS or HTTP. `serve` receives each connection.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

/// A host without a secret, whose traffic need not be read.
const RAW: &str = "raw.test";

#[test]
fn unread_bytes_pass_after_either_side_closed() {
    let is_transparent = ways().contains(&Way::Transparent);
    let builder = Daemon::builder().host(RAW, &["127.0.0.1"]);
    let daemon = if is_transparent { builder } else { builder.no_ebpf() }.start();
    let outside = daemon.add_agent("outside", &["--factors", "token"]);
    // The agent closes first: the server reads to the end, and then responds.
    let counting = server(|mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            std::thread::sleep(Duration::from_millis(500));
            let _ = write!(stream, "got {}", all.len());
        }
    });
    // The server closes first, and continues to read.
    let (sender, read): (_, Receiver<Vec<u8>>) = channel();
    let greeting = server(move |mut stream| {
        let _ = stream.write_all(b"hello").and_then(|()| stream.shutdown(Shutdown::Write));
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).map(|_| sender.send(all));
    });
    for port in [counting, greeting] {
        let _ = daemon
            .onecli(&["rule", "add", "allow", "--host", RAW, "--port", &port.to_string()])
            .ok("rule add");
    }

    let mut agent = raw_tls::tunnel(&daemon, &outside.token, &format!("{RAW}:{counting}"));
    agent.write_all(b"\0binary").unwrap();
    agent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut agent), "got 7");

    let mut agent = raw_tls::tunnel(&daemon, &outside.token, &format!("{RAW}:{greeting}"));
    assert_eq!(read_all(&mut agent), "hello");
    agent.write_all(b"after the end").unwrap();
    agent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read.recv_timeout(Duration::from_secs(20)).unwrap(), b"after the end");

    if is_transparent {
        let inside = daemon.add_agent("inside", &["--factors", "cgroup", "--user", "nobody"]);
        let run = Run::new("python3").args(["-c", CLIENT, RAW, &counting.to_string(), "\u{1}binary"]);
        assert_eq!(daemon.managed(&inside, &run).outcome().ok("the script"), "got 7");
    }
}

fn read_all(stream: &mut impl Read) -> String {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all);
    let all = String::from_utf8_lossy(&all).into_owned();
    end.unwrap_or_else(|error| panic!("{error} after {all:.300}"));
    all
}
