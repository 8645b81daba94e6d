//! DNS goes to the agent's resolver, and appears to come from the requested server.

use std::{net::UdpSocket, thread};

use super::{
    child::Client,
    fixture::{DNS_PORT, Fixture, PATIENCE},
};
use crate::kernel::AgentEntry;

const RESOLVER: [u8; 4] = [127, 100, 0, 7];

#[test]
fn dns_is_answered_by_the_agents_resolver() {
    let Some(fixture) = Fixture::new("kernel::dns_is_answered_by_the_agents_resolver") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let entry = AgentEntry { index: 1, flags: 0, dns_addr: RESOLVER };
    fixture.redirect.set_agent(fixture.id_of(&agent), entry).unwrap();
    let resolver = UdpSocket::bind((std::net::Ipv4Addr::from(RESOLVER), DNS_PORT)).unwrap();
    fixture.redirect.stamp(&resolver).unwrap();
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    let cases = [
        ("dns", "192.0.2.53:53", "0.0.0.0:0"),
        ("dns", "127.0.0.53:53", "0.0.0.0:0"),
        ("dns", "[::ffff:192.0.2.53]:53", "[::]:0"),
        ("dns_connected", "192.0.2.53:53", "0.0.0.0:0"),
        ("dns_connected", "[::ffff:192.0.2.53]:53", "[::]:0"),
    ];
    for (work, server, bind) in cases {
        let client = Client::start(&fixture, &agent, &[work, server, bind]);
        let answering = thread::scope(|scope| {
            let answering = scope.spawn(|| {
                let mut query = [0; 64];
                let (length, from) = resolver.recv_from(&mut query)?;
                assert_eq!(&query[..length], b"query");
                resolver.send_to(b"answer", from)
            });
            let findings = client.finish();
            assert_eq!(findings.errno(), 0, "{work} {server}");
            assert_eq!(findings.get("sender"), server, "{work}");
            assert_eq!(findings.get("answer"), "answer");
            if work == "dns_connected" {
                assert_eq!(findings.get("peer"), server);
            }
            if (work, bind) == ("dns_connected", "0.0.0.0:0") {
                assert_eq!(findings.get("peer_after"), server);
                let mut query = [0; 64];
                resolver.recv_from(&mut query).expect("the query to another server comes here too");
            }
            answering.join().unwrap()
        });
        answering.unwrap();
    }
    // Once the agent is removed, its DNS is refused.
    fixture.redirect.remove_agent(fixture.id_of(&agent)).unwrap();
    fixture.redirect.remove_agent(fixture.id_of(&agent)).unwrap();
    let findings = Client::run(&fixture, &agent, &["udp_send", "192.0.2.53:53"]);
    assert_eq!(findings.errno(), libc::EPERM);
}

/// The programs rewrite the peer of DNS answers only. Other senders keep their address.
#[test]
fn datagrams_of_others_keep_their_sender() {
    let Some(fixture) = Fixture::new("kernel::datagrams_of_others_keep_their_sender") else {
        return;
    };
    let agent = fixture.agent("a.slice");
    let entry = AgentEntry { index: 1, flags: 0, dns_addr: RESOLVER };
    fixture.redirect.set_agent(fixture.id_of(&agent), entry).unwrap();
    let resolver = UdpSocket::bind((std::net::Ipv4Addr::from(RESOLVER), DNS_PORT)).unwrap();
    fixture.redirect.stamp(&resolver).unwrap();
    resolver.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = Client::start(&fixture, &agent, &["dns", "192.0.2.53:53", "0.0.0.0:0"]);
    let (_, from) = resolver.recv_from(&mut [0; 64]).unwrap();
    let stranger = UdpSocket::bind("127.0.0.9:9999").unwrap();
    stranger.send_to(b"not asked", from).unwrap();
    assert_eq!(client.finish().get("sender"), "127.0.0.9:9999");
}
