//! Redirects go only to the daemon's listeners, and an agent reaches its own listeners.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use onecli_common::Stat;
use socket2::{Domain, Socket, Type};

use super::{
    child::{Client, answer},
    fixture::{DNS_PORT, EXPLICIT_PORT, Fixture, PATIENCE, TRANSPARENT_PORT, accept, listen},
    neighbour::ip,
};
use crate::kernel::{Hook, KernelError, Reason, Redirect};

/// A process that takes the transparent port while the daemon is down gets no connection of a managed process.
#[test]
fn a_squatter_on_the_transparent_port_gets_nothing() {
    let Some(mut fixture) = Fixture::new("kernel::a_squatter_on_the_transparent_port_gets_nothing") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut denials = {
        let _context = runtime.enter();
        fixture.redirect.take_denials().unwrap().expect("the only reader")
    };
    drop((fixture.listener4.take(), fixture.listener6.take()));
    let asked = ["192.0.2.7:443", "[2001:db8::7]:443", "[::ffff:192.0.2.7]:443"];
    let mut refused = 0;
    for squats in [["127.0.0.1", "[::1]"], ["0.0.0.0", "[::]"]] {
        let squatters =
            squats.map(|address| listen(format!("{address}:{TRANSPARENT_PORT}").parse().unwrap()));
        for address in asked {
            for work in ["connect", "fastopen_sendto", "fastopen_connect"] {
                let findings = Client::run(&fixture, &agent, &[work, address]);
                assert_eq!(findings.errno(), libc::EPERM, "{work} {address} and {squats:?}");
                let denial = runtime.block_on(denials.next()).unwrap();
                assert_eq!(denial.reason, Reason::ForeignListener);
                refused += 1;
            }
        }
        for squatter in squatters {
            squatter.set_nonblocking(true).unwrap();
            assert_eq!(squatter.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "{squats:?}");
        }
    }
    assert_eq!(fixture.redirect.stat(Stat::ForeignListener).unwrap(), refused);
    // The daemon restarts.
    fixture.listen();
    let client = Client::start(&fixture, &agent, &["connect", asked[0]]);
    let (stream, flow) = fixture.accept4();
    answer(stream);
    assert_eq!(client.finish().get("answer"), "HELLO");
    assert!(flow.is_some());
}

/// A SYN that waits for the daemon is not delivered to its successor on the port.
#[test]
fn a_retransmitted_syn_does_not_reach_a_squatter() {
    let Some(mut fixture) = Fixture::new("kernel::a_retransmitted_syn_does_not_reach_a_squatter") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let address: SocketAddr = ([127, 0, 0, 1], TRANSPARENT_PORT).into();
    drop(fixture.listener4.take());
    // A daemon that does not accept: its queue holds one connection, and further SYNs are dropped.
    let busy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    busy.set_reuse_address(true).unwrap();
    busy.bind(&address.into()).unwrap();
    busy.listen(0).unwrap();
    fixture.redirect.stamp(&busy).unwrap();
    let fill = TcpStream::connect(address).unwrap();
    let client = Client::start(&fixture, &agent, &["connect", "192.0.2.7:443"]);
    let deadline = Instant::now() + PATIENCE;
    while fixture.redirect.stat(Stat::Announced).unwrap() == 0 {
        assert!(Instant::now() < deadline, "the client does not connect");
        thread::sleep(Duration::from_millis(5));
    }
    drop((busy, fill));
    let squatter = listen(address);
    // The first retransmissions come after one second and three.
    while fixture.redirect.stat(Stat::PacketsDropped).unwrap() < 2 {
        assert!(Instant::now() < deadline, "no SYN was dropped");
        thread::sleep(Duration::from_millis(20));
    }
    squatter.set_nonblocking(true).unwrap();
    assert_eq!(squatter.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    // The daemon is back, and the client is served after all.
    drop(squatter);
    fixture.listener4 = Some(listen(address));
    fixture.redirect.stamp(fixture.listener4.as_ref().unwrap()).unwrap();
    let (stream, flow) = fixture.accept4();
    answer(stream);
    assert!(flow.is_some());
    assert_eq!(client.finish().get("answer"), "HELLO");
}

/// A stamp belongs to its socket and not to the port.
#[test]
fn a_closed_listeners_stamp_is_not_inherited_by_the_port() {
    let Some(mut fixture) = Fixture::new("kernel::a_closed_listeners_stamp_is_not_inherited_by_the_port")
    else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let first = fixture.listener4.take().unwrap();
    let second = first.try_clone().unwrap();
    drop(first);
    fixture.listener4 = Some(second);
    let client = Client::start(&fixture, &agent, &["connect", "192.0.2.7:443"]);
    answer(fixture.accept4().0);
    assert_eq!(client.finish().errno(), 0, "a descriptor of the same socket");
    let address = fixture.listener4.take().unwrap().local_addr().unwrap();
    fixture.listener4 = Some(listen(address));
    let findings = Client::run(&fixture, &agent, &["connect", "192.0.2.7:443"]);
    assert_eq!(findings.errno(), libc::EPERM, "a new socket");
}

/// An agent's own servers are reached directly, over every spelling of the loopback, and by no other agent.
#[test]
fn own_listeners_are_reached_directly() {
    let Some(fixture) = Fixture::new("kernel::own_listeners_are_reached_directly") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let nested = fixture.agent("a.slice/nested");
    let other = fixture.agent("b.slice");
    for (at, asked) in [
        ("127.0.0.1:7100", vec!["127.0.0.1:7100", "[::ffff:127.0.0.1]:7100", "0.0.0.0:7100"]),
        ("0.0.0.0:7200", vec!["127.0.0.1:7200", "127.9.9.9:7200", "[::ffff:0.0.0.0]:7200"]),
        ("[::1]:7300", vec!["[::1]:7300", "[::]:7300"]),
        ("[::]:7400", vec!["[::1]:7400"]),
    ] {
        let server = Client::start_ready(&fixture, &agent, &["serve", at]);
        for asked in asked {
            let before = fixture.redirect.stat(Stat::Own).unwrap();
            for (cgroup, work) in [(&agent, "connect"), (&nested, "connect"), (&agent, "fastopen_sendto")] {
                let findings = Client::run(&fixture, cgroup, &[work, asked]);
                assert_eq!(findings.errno(), 0, "{work} {asked} at {at}");
                assert_eq!(findings.get("answer"), "HELLO", "{work} {asked} at {at}");
            }
            assert_eq!(fixture.redirect.stat(Stat::Own).unwrap(), before + 3, "{asked} at {at}");
            // The other agent's connection goes to the daemon, with the requested address.
            let client = Client::start(&fixture, &other, &["connect", asked]);
            let v6 = asked.starts_with('[') && !asked.contains("ffff");
            let (stream, flow) = if v6 { fixture.accept6() } else { fixture.accept4() };
            drop(stream);
            let flow = flow.expect("a flow");
            let destination: SocketAddr = asked.parse().unwrap();
            assert_eq!(flow.original_destination.ip(), destination.ip().to_canonical());
            assert_eq!(flow.agent_cgroup_id, fixture.id_of(&other));
            drop(client);
        }
        server.finish();
    }
}

/// A listener on the unspecified address is found under every address. Only the loopback may count as own.
#[test]
fn an_own_listener_opens_no_address_outside() {
    let Some(fixture) = Fixture::new("kernel::an_own_listener_opens_no_address_outside") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let _server = Client::start_ready(&fixture, &agent, &["serve", "0.0.0.0:443"]);
    let _server6 = Client::start_ready(&fixture, &agent, &["serve", "[::]:8443"]);
    for (asked, v6) in
        [("192.0.2.7:443", false), ("[::ffff:192.0.2.7]:443", false), ("[2001:db8::7]:8443", true)]
    {
        let client = Client::start(&fixture, &agent, &["connect", asked]);
        let (stream, flow) = if v6 { fixture.accept6() } else { fixture.accept4() };
        answer(stream);
        assert_eq!(client.finish().errno(), 0);
        assert!(flow.is_some(), "{asked}");
    }
    assert_eq!(fixture.redirect.stat(Stat::Own).unwrap(), 0);
}

/// `localhost` is two addresses. A server has one of them, and clients try the other first.
#[test]
fn slow_a_python_server_is_reached_as_localhost() {
    let Some(mut fixture) = Fixture::new("kernel::slow_a_python_server_is_reached_as_localhost") else {
        return;
    };
    let missing = ["python3", "curl"].into_iter().find(|program| {
        !std::process::Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
    });
    if let Some(program) = missing {
        eprintln!("NOT RUN: kernel::slow_a_python_server_is_reached_as_localhost needs {program}");
        return;
    }
    let agent = fixture.agent("a.slice");
    // With and without the daemon, which has no part in this.
    for _ in 0..2 {
        for bind in ["127.0.0.1", "::1"] {
            let script = format!(
                "cd /proc/self/fdinfo && python3 -m http.server 8000 --bind {bind} >/dev/null 2>&1 & \
                 for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do \
                 curl -sS --noproxy '*' --max-time 10 -o /dev/null -w '%{{http_code}}' http://localhost:8000/ && break; \
                 sleep 0.2; done; kill $!"
            );
            let findings = Client::run(&fixture, &agent, &["shell", &script]);
            assert!(findings.get("output").ends_with("200"), "{bind}: {findings:?}");
        }
        drop((fixture.listener4.take(), fixture.listener6.take()));
    }
    // A server on the host does not belong to the agent.
    let host = listen("127.0.0.1:8000".parse().unwrap());
    fixture.listen();
    let client = Client::start(&fixture, &agent, &["connect", "127.0.0.1:8000"]);
    let (stream, flow) = fixture.accept4();
    answer(stream);
    client.finish();
    assert!(flow.is_some());
    host.set_nonblocking(true).unwrap();
    assert!(host.accept().is_err());
}

/// No managed process can bind a port of the daemon, whether the daemon uses it or not.
#[test]
fn the_daemons_ports_cannot_be_bound() {
    let Some(mut fixture) = Fixture::new("kernel::the_daemons_ports_cannot_be_bound") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    drop((fixture.listener4.take(), fixture.listener6.take()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut denials = {
        let _context = runtime.enter();
        fixture.redirect.take_denials().unwrap().expect("the only reader")
    };
    for kind in ["tcp", "udp"] {
        for address in ["127.0.0.1", "0.0.0.0", "127.100.0.7", "[::1]", "[::]", "[::ffff:127.0.0.1]"] {
            for port in [TRANSPARENT_PORT, EXPLICIT_PORT, DNS_PORT] {
                let address = format!("{address}:{port}");
                let findings = Client::run(&fixture, &agent, &["bind", kind, &address]);
                assert_eq!(findings.errno(), libc::EPERM, "{kind} {address}");
                let denial = runtime.block_on(denials.next()).unwrap();
                let hook = if address.starts_with('[') { Hook::Bind6 } else { Hook::Bind4 };
                assert_eq!((denial.reason, denial.hook), (Reason::ReservedPort, hook));
                assert_eq!(denial.destination.unwrap().port(), port);
            }
            for port in [0, 8080] {
                let findings = Client::run(&fixture, &agent, &["bind", kind, &format!("{address}:{port}")]);
                assert_eq!(findings.errno(), 0, "{kind} {address}:{port}");
            }
        }
    }
    // The list is short, and the same port on many addresses counts once.
    fixture.config.reserved_ports = vec![EXPLICIT_PORT; 100];
    Redirect::attach(&fixture.config).unwrap();
    fixture.config.reserved_ports = (20_000..20_015).collect();
    let refused = Redirect::attach(&fixture.config).map(drop);
    assert!(matches!(refused, Err(KernelError::TooManyPorts { most: 14 })), "{refused:?}");
}

/// In a network namespace without a listener of the daemon, the SYN waits for one. Another listener gets nothing.
#[test]
fn a_connection_waits_for_the_listener_of_its_namespace() {
    let Some(fixture) = Fixture::new("kernel::a_connection_waits_for_the_listener_of_its_namespace") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let waits = |address: &'static str, at: &'static str| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip(&["link", "set", "lo", "up"]);
        let held = || fixture.redirect.stat(Stat::Held).unwrap();
        let before = held();
        let client = Client::start(&fixture, &agent, &["connect", address]);
        let deadline = Instant::now() + PATIENCE;
        while held() == before && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let listener = listen(at.parse().unwrap());
        fixture.redirect.stamp(&listener).unwrap();
        let stream = accept(&listener).unwrap();
        let flow = fixture.redirect.flow(&stream).unwrap().expect("its identity");
        assert_eq!(flow.agent_cgroup_id, fixture.id_of(&agent));
        assert_eq!(flow.original_destination.to_string(), address);
        answer(stream);
        assert_eq!(client.finish().errno(), 0, "{address}");
    };
    for (address, at) in [("192.0.2.7:443", "127.0.0.1:10256"), ("[2001:db8::7]:443", "[::1]:10256")] {
        thread::scope(|scope| scope.spawn(|| waits(address, at)).join().expect("served"));
    }
}
