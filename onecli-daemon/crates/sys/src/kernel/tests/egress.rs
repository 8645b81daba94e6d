//! Packets that leave a managed socket, counted where they would arrive.

use std::{
    io::{ErrorKind, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use onecli_common::Stat;

use super::{
    child::Client,
    fixture::{Fixture, accept, listen},
    neighbour::{HERE, Neighbour, THERE},
};
use crate::kernel::{Hook, Reason, Redirect, detach};

const MOMENT: Duration = Duration::from_millis(1500);

/// Tries to talk to a listener, for a moment.
fn talks(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, MOMENT) else { return false };
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read(&mut [0]).is_ok()
}

/// Inbound connections carry data out as well as outbound ones: an agent's listeners answer only the agent.
#[test]
fn inbound_connections_are_not_answered() {
    let Some(fixture) = Fixture::new("kernel::inbound_connections_are_not_answered") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let neighbour = Neighbour::new();
    let here = SocketAddr::from((HERE, 7100));
    // An ordinary server is reached, from here and there: the network works.
    let server = Client::start_ready(&fixture, &fixture.unmanaged(), &["serve", "0.0.0.0:7100"]);
    assert!(neighbour.run(move || talks(here)) && talks(here));
    server.finish();
    let before = neighbour.received();
    assert!(before.0 > 0);
    let server = Client::start_ready(&fixture, &agent, &["serve", "0.0.0.0:7100"]);
    let server6 = Client::start_ready(&fixture, &agent, &["serve", "[::]:7100"]);
    for _ in 0..2 {
        assert!(!neighbour.run(move || talks(here)), "from another machine");
    }
    for address in ["127.0.0.1:7100", "[::1]:7100", "198.51.100.1:7100"] {
        assert!(!talks(address.parse().unwrap()), "from this machine, at {address}");
    }
    assert_eq!(neighbour.received(), before, "packets of a managed process arrived");
    assert!(fixture.redirect.stat(Stat::PacketsDropped).unwrap() > 0);
    // The agent itself still reaches it.
    for address in ["127.0.0.1:7100", "[::1]:7100"] {
        assert_eq!(Client::run(&fixture, &agent, &["connect", address]).get("answer"), "HELLO");
    }
    server.finish();
    server6.finish();
}

/// Connections that were made before the programs were attached.
#[test]
fn connections_from_before_the_attach_carry_nothing() {
    let Some(mut fixture) = Fixture::new("kernel::connections_from_before_the_attach_carry_nothing") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let neighbour = Neighbour::new();
    let there = SocketAddr::from((THERE, 7777));
    let far: TcpListener = neighbour.run(move || listen(there));
    let near = listen("127.0.0.1:7777".parse().unwrap());
    detach(&fixture.config.bpffs_dir).unwrap();
    let mut clients = ["198.51.100.2:7777", "127.0.0.1:7777"]
        .map(|address| Client::start_ready(&fixture, &agent, &["connected", address]));
    let mut accepted = [accept(&far).unwrap(), accept(&near).unwrap()];
    let mut datagrams = Client::start_ready(&fixture, &agent, &["udp_connected", "198.51.100.2:53"]);
    fixture.redirect = Redirect::attach(&fixture.config).unwrap();
    let before = neighbour.received();
    for client in &mut clients {
        client.go_on();
    }
    datagrams.go_on();
    assert_eq!(datagrams.finish().errno(), libc::EPERM);
    for client in clients {
        client.finish();
    }
    for stream in &mut accepted {
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        let nothing = stream.read(&mut [0; 16]);
        let timed_out = nothing.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(timed_out, "{nothing:?}");
    }
    assert_eq!(neighbour.received(), before, "packets of a managed process arrived");
    assert!(fixture.redirect.stat(Stat::PacketsDropped).unwrap() >= 3);
    // The daemon is informed of the agent and the destination.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let queued = runtime.block_on(async {
        let mut denials = fixture.redirect.take_denials().unwrap().expect("the only reader");
        loop {
            let next = tokio::time::timeout(super::fixture::PATIENCE, denials.next()).await;
            let denial = next.expect("an event of the packet").expect("a good event");
            if denial.hook == Hook::Egress && denial.destination == Some(there) {
                return denial;
            }
        }
    });
    assert_eq!((queued.reason, queued.process), (Reason::Packet, None));
    assert_eq!(queued.agent_cgroup_id, fixture.id_of(&agent));
}
