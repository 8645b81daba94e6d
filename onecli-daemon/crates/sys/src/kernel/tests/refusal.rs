//! Forbidden operations of a managed process fail with EPERM, and are reported to the daemon.

use super::{
    child::{Client, Findings},
    fixture::Fixture,
};
use crate::kernel::{Denial, Hook, Reason};

/// Runs `work` in agent `a` and returns its findings and the one refusal that it must have caused.
fn refused(
    fixture: &Fixture,
    runtime: &tokio::runtime::Runtime,
    denials: &mut crate::kernel::Denials,
    work: &[&str],
) -> (Findings, Denial) {
    let agent = fixture.agent("a.slice");
    let findings = Client::run(fixture, &agent, work);
    let next = async { tokio::time::timeout(super::fixture::PATIENCE, denials.next()).await };
    let denial = runtime.block_on(next).expect("an event").expect("a good event");
    assert_eq!(findings.errno(), libc::EPERM, "{work:?}");
    assert_eq!(denial.agent_cgroup_id, fixture.id_of(&agent));
    assert_eq!(denial.process.as_ref().map(|task| task.uid), Some(0));
    (findings, denial)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn udp_is_refused() {
    let Some(fixture) = Fixture::new("kernel::udp_is_refused") else {
        return;
    };
    let runtime = runtime();
    let mut denials = {
        let _context = runtime.enter();
        fixture.redirect.take_denials().unwrap().expect("the only reader")
    };
    let cases = [
        ("udp_send", "127.0.0.1:443", Hook::Sendmsg4, Reason::Udp),
        ("udp_send", "[::1]:443", Hook::Sendmsg6, Reason::Udp),
        ("udp_send", "[::ffff:127.0.0.1]:443", Hook::Sendmsg4, Reason::Udp),
        ("udp_connect", "127.0.0.1:443", Hook::Connect4, Reason::Udp),
        ("udp_connect", "[::1]:443", Hook::Connect6, Reason::Udp),
        ("udp_connect", "[::ffff:127.0.0.1]:443", Hook::Connect6, Reason::Udp),
        // No entry in AGENTS: no resolver. Over IPv6 there is never one.
        ("udp_send", "127.0.0.1:53", Hook::Sendmsg4, Reason::NoResolver),
        ("udp_send", "[::1]:53", Hook::Sendmsg6, Reason::NoResolver),
        ("udp_connect", "[::1]:53", Hook::Connect6, Reason::NoResolver),
    ];
    for (work, address, hook, reason) in cases {
        let (_, denial) = refused(&fixture, &runtime, &mut denials, &[work, address]);
        assert_eq!((denial.hook, denial.reason), (hook, reason), "{work} {address}");
        let asked: std::net::SocketAddr = address.parse().unwrap();
        let asked = std::net::SocketAddr::new(asked.ip().to_canonical(), asked.port());
        assert_eq!(denial.destination, Some(asked));
    }
    assert!(fixture.redirect.take_denials().unwrap().is_none(), "one reader");
    let stats = fixture.redirect.stats().unwrap();
    assert!(stats.contains(&("operations_denied", 9)), "{stats:?}");
}

/// One agent's flood of refusals hides no other's, and is counted.
#[test]
fn flood_of_one_agent_hides_no_other_refusals() {
    const FLOOD: u64 = 20_000;
    let Some(fixture) = Fixture::new("kernel::flood_of_one_agent_hides_no_other_refusals") else {
        return;
    };
    let runtime = runtime();
    let (noisy, quiet) = (fixture.agent("a.slice"), fixture.agent("b.slice"));
    let work = ["udp_flood", "127.0.0.1:443", &FLOOD.to_string()];
    assert_eq!(Client::run(&fixture, &noisy, &work).errno(), libc::EPERM);
    assert_eq!(Client::run(&fixture, &quiet, &["udp_send", "127.0.0.1:443"]).errno(), libc::EPERM);
    let stats = fixture.redirect.stats().unwrap();
    let stat = |name| stats.iter().find(|(known, _)| *known == name).expect("a counter").1;
    let lost = stat("deny_events_lost");
    assert_eq!(stat("operations_denied"), FLOOD + 1);
    assert!(lost > FLOOD / 2, "{lost} not reported");
    // There was no reader meanwhile: reported and lost refusals add up to all.
    let mut denials = {
        let _context = runtime.enter();
        fixture.redirect.take_denials().unwrap().expect("the only reader")
    };
    for nth in 0..=FLOOD - lost {
        let next = async { tokio::time::timeout(super::fixture::PATIENCE, denials.next()).await };
        let denial = runtime.block_on(next).expect("an event").expect("a good event");
        let agent = if nth == FLOOD - lost { &quiet } else { &noisy };
        assert_eq!(denial.agent_cgroup_id, fixture.id_of(agent), "event {nth}");
    }
}

#[test]
fn only_tcp_and_udp_sockets_are_allowed() {
    const INET: i32 = libc::AF_INET;
    const INET6: i32 = libc::AF_INET6;
    let Some(fixture) = Fixture::new("kernel::only_tcp_and_udp_sockets_are_allowed") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let socket = |family: i32, kind: i32, protocol: i32| {
        let [family, kind, protocol] = [family, kind, protocol].map(|number| number.to_string());
        Client::run(&fixture, &agent, &["socket", &family, &kind, &protocol]).errno()
    };
    for family in [INET, INET6] {
        assert_eq!(socket(family, libc::SOCK_STREAM, 0), 0);
        assert_eq!(socket(family, libc::SOCK_DGRAM, 0), 0);
        assert_eq!(socket(family, libc::SOCK_RAW, libc::IPPROTO_UDP), libc::EPERM, "raw");
        let ping = if family == INET { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
        assert_eq!(socket(family, libc::SOCK_RAW, ping), libc::EPERM, "raw ICMP");
        assert_eq!(socket(family, libc::SOCK_STREAM, libc::IPPROTO_MPTCP), libc::EPERM, "MPTCP");
        assert_eq!(socket(family, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE), libc::EPERM, "UDP-Lite");
    }
    assert_eq!(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0), 0, "Unix sockets reach no network");
}

/// A socket belongs to the agent in which it was created, and no other process can use it.
#[test]
fn socket_is_refused_outside_its_agent() {
    let Some(fixture) = Fixture::new("kernel::socket_is_refused_outside_its_agent") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let other = fixture.agent("b.slice");
    for cgroup in [other, fixture.unmanaged(), fixture.config.agents_root.clone()] {
        let path = fixture.tree().path(&cgroup).unwrap();
        let work = ["connect_from", "127.0.0.1:80", path.to_str().unwrap()];
        assert_eq!(Client::run(&fixture, &agent, &work).errno(), libc::EPERM, "{}", cgroup.display());
    }
}

/// A process in the agents root itself is not an agent.
#[test]
fn process_in_the_agents_root_is_refused() {
    let Some(fixture) = Fixture::new("kernel::process_in_the_agents_root_is_refused") else {
        return;
    };
    let root = fixture.config.agents_root.clone();
    let findings = Client::run(&fixture, &root, &["connect", "127.0.0.1:80"]);
    assert_eq!(findings.errno(), libc::EPERM);
}
