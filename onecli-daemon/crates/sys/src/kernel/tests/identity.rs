//! A redirected connection carries its destination and the identity of its process.

use std::net::SocketAddr;

use super::{
    child::{Client, answer},
    fixture::{Fixture, accept, listen},
};

/// Connects from agent `a` to `asked`. The flow must contain `original`, and the child see `asked` as its peer.
fn check(fixture: &Fixture, work: &str, asked: &str, original: &str, over_v6: bool) {
    let agent = fixture.agent("a.slice");
    let client = Client::start(fixture, &agent, &[work, asked]);
    let (stream, flow) = if over_v6 { fixture.accept6() } else { fixture.accept4() };
    answer(stream);
    let findings = client.finish();
    let flow = flow.unwrap_or_else(|| panic!("no flow for {work} {asked}"));
    assert_eq!(flow.original_destination, original.parse::<SocketAddr>().unwrap(), "{asked}");
    assert_eq!(flow.agent_cgroup_id, fixture.id_of(&agent), "{asked}");
    assert_eq!(flow.current_cgroup_id, fixture.id_of(&agent), "{asked}");
    assert_eq!((flow.uid, flow.gid), (0, 0));
    assert_ne!(flow.pid, std::process::id());
    assert!(flow.netns_cookie > 0 && flow.socket_cookie > 0);
    assert_eq!(findings.errno(), 0);
    assert_eq!(findings.get("peer"), asked, "getpeername");
    assert_eq!(findings.get("answer"), "HELLO");
    if work.starts_with("fastopen") {
        assert_eq!(findings.get("syn_data"), "true", "{work} sent its data after the handshake");
    }
}

#[test]
fn destinations_are_recorded_for_all_address_forms() {
    let Some(fixture) = Fixture::new("kernel::destinations_are_recorded_for_all_address_forms") else {
        return;
    };
    for work in ["connect", "fastopen_sendto", "fastopen_connect"] {
        check(&fixture, work, "192.0.2.7:443", "192.0.2.7:443", false);
        check(&fixture, work, "127.0.0.1:10255", "127.0.0.1:10255", false);
        check(&fixture, work, "[2001:db8::7]:8443", "[2001:db8::7]:8443", true);
        check(&fixture, work, "[::ffff:192.0.2.7]:443", "192.0.2.7:443", false);
    }
}

/// DNS over TCP is redirected like any other connection.
#[test]
fn tcp_port_53_is_redirected() {
    let Some(fixture) = Fixture::new("kernel::tcp_port_53_is_redirected") else {
        return;
    };
    check(&fixture, "connect", "192.0.2.53:53", "192.0.2.53:53", false);
}

#[test]
fn a_nested_cgroup_keeps_the_agents_identity() {
    let Some(fixture) = Fixture::new("kernel::a_nested_cgroup_keeps_the_agents_identity") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let nested = fixture.agent("a.slice/b/c");
    let client = Client::start(&fixture, &nested, &["connect", "192.0.2.7:80"]);
    let (stream, flow) = fixture.accept4();
    answer(stream);
    client.finish();
    let flow = flow.expect("a flow");
    assert_eq!(flow.agent_cgroup_id, fixture.id_of(&agent));
    assert_eq!(flow.current_cgroup_id, fixture.id_of(&nested));
}

#[test]
fn an_unmanaged_process_is_left_alone() {
    let Some(fixture) = Fixture::new("kernel::an_unmanaged_process_is_left_alone") else {
        return;
    };
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    let cgroup = fixture.unmanaged();
    let client = Client::start(&fixture, &cgroup, &["connect", "127.0.0.1:7777"]);
    answer(accept(&elsewhere).expect("it reaches its destination"));
    assert_eq!(client.finish().get("answer"), "HELLO");
    // On the transparent port it has no identity.
    let client = Client::start(&fixture, &cgroup, &["connect", "127.0.0.1:10256"]);
    let (stream, flow) = fixture.accept4();
    answer(stream);
    client.finish();
    assert_eq!(flow, None);
}

#[test]
fn connection_is_refused_while_the_daemon_is_down() {
    let Some(mut fixture) = Fixture::new("kernel::connection_is_refused_while_the_daemon_is_down") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let elsewhere = listen("127.0.0.1:7777".parse().unwrap());
    drop((fixture.listener4.take(), fixture.listener6.take()));
    for address in ["127.0.0.1:7777", "192.0.2.7:443", "[2001:db8::7]:443", "[::ffff:127.0.0.1]:7777"] {
        let findings = Client::run(&fixture, &agent, &["connect", address]);
        assert_eq!(findings.errno(), libc::ECONNREFUSED, "{address}");
    }
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "a connection went past the daemon");
}
