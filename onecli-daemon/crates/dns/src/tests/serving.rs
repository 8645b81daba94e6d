//! Sockets and connections: the assignment of addresses to agents, and the limits.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use onecli_model::{Agent, AgentId, Egress};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{Stage, agent, query, summary};
use crate::message::MAX_QUERY;
use crate::server::{DnsClient, STREAMS, Server, SocketStore};

const PATIENCE: Duration = Duration::from_secs(10);

/// Returns a port that is free on every address.
fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn exchange(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut answer = vec![0; MAX_QUERY];
    let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut answer)).await.unwrap();
    let (length, sender) = received.unwrap();
    assert_eq!(sender, server);
    answer.truncate(length);
    answer
}

#[tokio::test]
async fn agents_have_distinct_addresses() {
    let Stage { _temp, parts, .. } = Stage::new();
    let port = free_port();
    let server = Server::new(parts, port, Box::new(|_| Ok(())));
    let (one, two) = (agent(1, Egress::Deny), agent(2, Egress::Allow));
    // The same candidates as agent 1, at the wrapped end of the range.
    let twin = Agent { id: AgentId(Uuid::from_u128((1 << 64) | 1)), ..agent(3, Egress::Deny) };
    let last = Agent { id: AgentId(Uuid::max()), ..agent(4, Egress::Deny) };
    let all = [&one, &two, &twin, &last];
    let addresses = server.serve(all.into_iter());
    assert_eq!(addresses[&one.id], Ipv4Addr::new(127, 64, 0, 1));
    assert_eq!(addresses[&last.id], Ipv4Addr::new(127, 127, 255, 255));
    let mut distinct: Vec<_> = addresses.values().collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{addresses:?}");
    assert_eq!(server.serve(all.into_iter().rev()), addresses, "they stay");

    let query = query("other.test.", RecordType::A).to_vec().unwrap();
    for (agent, expected) in [(&one, "NoError synthetic"), (&two, "NoError 192.0.2.9")] {
        let answer = exchange((addresses[&agent.id], port).into(), &query).await;
        assert_eq!(summary(&Message::from_vec(&answer).unwrap()), expected);
    }
    assert_eq!(server.client(&two.cgroup).unwrap().agent, two.id);

    // A disabled agent receives the reason.
    let off = Agent { enabled: false, ..two.clone() };
    let left = server.serve([&off, &twin].into_iter());
    assert_eq!(left, HashMap::from([two.id, twin.id].map(|id| (id, addresses[&id]))));
    let left = server.serve(std::iter::once(&twin));
    assert_eq!(left.into_iter().collect::<Vec<_>>(), [(twin.id, addresses[&twin.id])]);
    assert!(server.client(&two.cgroup).is_none());
    server.close().await;
    assert!(server.client(&twin.cgroup).is_none());
}

/// A substitute for the service manager's store.
#[derive(Default)]
struct Store(Mutex<HashMap<AgentId, std::net::UdpSocket>>);

impl SocketStore for Arc<Store> {
    fn take(&self, agent: AgentId) -> Option<std::net::UdpSocket> {
        self.0.lock().get(&agent).map(|kept| kept.try_clone().unwrap())
    }

    fn store(&self, agent: AgentId, socket: BorrowedFd<'_>) {
        self.0.lock().insert(agent, socket.try_clone_to_owned().unwrap().into());
    }

    fn remove(&self, agent: AgentId) {
        self.0.lock().remove(&agent);
    }
}

/// Protects upgrades: no query is lost between two servers. The first server answers each query it accepted, and the
/// next server answers later ones.
#[tokio::test]
async fn no_query_is_lost_from_one_server_to_the_next() {
    let (store, port, one) = (Arc::<Store>::default(), free_port(), agent(1, Egress::Deny));
    let start = |parts| {
        let server =
            Server::new(parts, port, Box::new(|_| Ok(()))).with_socket_store(Box::new(Arc::clone(&store)));
        let address = server.serve(std::iter::once(&one))[&one.id];
        (server, SocketAddr::from((address, port)))
    };
    let query = query("api.test.", RecordType::A).to_vec().unwrap();
    let first = Stage::new();
    // Every lookup waits.
    first.zone.open.forget_permits(Semaphore::MAX_PERMITS);
    let (server, address) = start(first.parts);
    let taken = tokio::spawn({
        let query = query.clone();
        async move { exchange(address, &query).await }
    });
    let client = server.client(&one.cgroup).unwrap();
    while client.queries.available_permits() == 64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let closing = tokio::spawn(async move { server.close().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = tokio::spawn(async move { exchange(address, &query).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished(), "it waits for the accepted query");
    first.zone.open.add_permits(1000);
    closing.await.unwrap();
    let answer = taken.await.unwrap();
    assert!(summary(&Message::from_vec(&answer).unwrap()).starts_with("NoError"), "the accepted query");
    assert!(!late.is_finished(), "no server answers in between");
    let second = Stage::new();
    let (_server, again) = start(second.parts);
    assert_eq!(again, address);
    assert!(
        summary(&Message::from_vec(&late.await.unwrap()).unwrap()).starts_with("NoError"),
        "the late query"
    );
}

#[tokio::test]
async fn queries_beyond_the_limit_are_dropped() {
    let Stage { _temp, parts, zone, .. } = Stage::new();
    zone.open.forget_permits(Semaphore::MAX_PERMITS);
    let port = free_port();
    let server = Server::new(parts, port, Box::new(|_| Ok(())));
    let one = agent(1, Egress::Deny);
    let address = server.serve(std::iter::once(&one))[&one.id];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect((address, port)).await.unwrap();
    for id in 0..100 {
        let mut query = query("api.test.", RecordType::A);
        query.metadata.id = id;
        socket.send(&query.to_vec().unwrap()).await.unwrap();
    }
    // One more query, which needs no lookup. The waiting queries use all permits.
    let client = server.client(&one.cgroup).unwrap();
    while client.queries.available_permits() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    zone.open.add_permits(1000);
    let mut answered = 0;
    let mut answer = [0; 512];
    while let Ok(received) = tokio::time::timeout(Duration::from_millis(300), socket.recv(&mut answer)).await
    {
        received.unwrap();
        answered += 1;
    }
    assert_eq!(answered, 64);
    assert_eq!(client.queries.available_permits(), 64, "every permit is returned");
}

#[tokio::test]
async fn streams() {
    let Stage { _temp, parts, .. } = Stage::new();
    let server = Arc::new(Server::new(parts, free_port(), Box::new(|_| Ok(()))));
    let dns_client = Arc::new(DnsClient::new(&agent(1, Egress::Deny)));
    let query = query("many.test.", RecordType::A).to_vec().unwrap();
    let framed = [&u16::try_from(query.len()).unwrap().to_be_bytes(), query.as_slice()].concat();
    let connect = || {
        let (client, end) = tokio::io::duplex(8192);
        let (server, dns_client) = (Arc::clone(&server), Arc::clone(&dns_client));
        (client, tokio::spawn(async move { server.serve_stream(dns_client, end).await }))
    };
    let (mut client, task) = connect();
    // Three queries in one write, the last of them in two halves.
    let three = framed.repeat(3);
    let (early, late) = three.split_at(three.len() - 5);
    client.write_all(early).await.unwrap();
    client.flush().await.unwrap();
    client.write_all(late).await.unwrap();
    for _ in 0..3 {
        let mut answer = vec![0; usize::from(client.read_u16().await.unwrap())];
        client.read_exact(&mut answer).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (100, false));
    }
    drop(client);
    task.await.unwrap();

    for (what, bytes) in [
        ("a query beyond the limit", [0xff; 64].as_slice()),
        ("no message", &[0, 0]),
        ("no query", &[0, 3, 1, 2, 3]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
    ] {
        let (mut client, task) = connect();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "{what}");
        task.await.unwrap();
    }

    let held: Vec<_> = (0..STREAMS).map(|_| connect()).collect();
    tokio::task::yield_now().await;
    let (mut client, task) = connect();
    task.await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "one connection beyond the limit");
    drop(held);
}
