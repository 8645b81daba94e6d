//! A client that sends its ClientHello late is still judged by its TLS server name.

use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::time::Duration;

use onecli_tests::daemon::Daemon;

use crate::raw_tls;
use crate::scene::read_head;

/// An address used only by this test, because its port is fixed.
const ADDRESS: &str = "127.83.71.5";
/// A port at which the client speaks first.
const PORT: u16 = 8443;
/// Longer than the daemon waits for a client if the server may speak first.
const SLOW: Duration = Duration::from_secs(1);

#[test]
fn slow_client_is_not_forwarded_before_its_server_name_is_read() {
    let upstream = TcpListener::bind((ADDRESS, PORT)).unwrap();
    upstream.set_nonblocking(true).unwrap();
    let egress = format!("[egress]\nallow_addresses = [\"{ADDRESS}/32\"]");
    let daemon = Daemon::builder().no_ebpf().host("open.test", &[ADDRESS]).config(&egress).start();
    let agent = daemon.add_agent("outside", &["--factors", "token"]);
    let rule = ["rule", "add", "allow", "--host", "open.test", "--port", &PORT.to_string()];
    let _ = daemon.onecli(&rule).ok("rule add");

    let socket = raw_tls::tunnel(&daemon, &agent.token, &format!("open.test:{PORT}"));
    std::thread::sleep(SLOW);
    let mut tls = raw_tls::tls_to(&daemon, "closed.test", "http/1.1", socket);
    tls.write_all(b"GET / HTTP/1.1\r\nHost: closed.test\r\n\r\n").unwrap();
    let head = read_head(&mut tls);

    assert!(head.contains("x-onecli-error: misdirected"), "{head}");
    let refused = daemon.audit_until("the refusal", |record| record["verdict"] == "deny");
    assert_eq!(refused["code"], "misdirected", "{refused}");
    assert_eq!(upstream.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nothing reaches the upstream");
}
