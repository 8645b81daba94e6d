//! Protocol detection, and dialling with real sockets.

use std::time::Duration;

use onecli_model::{AddressScope, Authority};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn rewound_bytes_come_first() {
    let (mut client, server) = tokio::io::duplex(64);
    client.write_all(b" world").await.unwrap();
    drop(client);
    let mut text = String::new();
    PrefixedStream::new("hello".into(), server).read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello world");
}

#[tokio::test]
async fn dial_continues_after_a_dead_address() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_address = dead.local_addr().unwrap();
    drop(dead);
    let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new());
    let addresses =
        [dead_address, live.local_addr().unwrap()].map(|a| policy.check(a, &AddressScope::open()).unwrap());
    let dialer = Dialer { connect_timeout: Duration::from_secs(5) };
    let (_, address) = dialer.dial(&addresses).await.unwrap();
    assert_eq!(address, live.local_addr().unwrap());
    assert!(matches!(dialer.dial(&addresses[..1]).await, Err(DialError::Refused { .. })));
}

/// A silent address delays the next one only by its own share of time, not by the whole timeout (RFC 8305).
#[tokio::test]
async fn dial_is_staggered_past_a_silent_address() {
    // A listener with a full queue drops further connections.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let silent = full.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    for _ in 0..8 {
        match tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(silent)).await {
            Ok(stream) => held.push(stream),
            Err(_) => break,
        }
    }
    let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new());
    let addresses =
        [silent, live.local_addr().unwrap()].map(|a| policy.check(a, &AddressScope::open()).unwrap());
    let dialer = Dialer { connect_timeout: Duration::from_secs(5) };
    let (_, address) = dialer.dial(&addresses).await.unwrap();
    assert_eq!(address, live.local_addr().unwrap());
    let alone = Dialer { connect_timeout: Duration::from_millis(300) }.dial(&addresses[..1]).await;
    assert!(matches!(alone, Err(DialError::TimedOut(_))), "{alone:?}");
}

#[tokio::test]
async fn configured_names_are_checked_too() {
    let fixed =
        [("api.test".parse().unwrap(), vec!["10.0.0.1".parse().unwrap(), "192.0.2.77".parse().unwrap()])];
    let resolver = Resolver::new(
        fixed.into_iter().collect(),
        AddressPolicy::new(vec!["192.0.2.77/32".parse().unwrap()], Vec::new()),
    );
    let got = resolver
        .resolve(&Authority::parse("api.test:1", None).unwrap(), &AddressScope::open())
        .await
        .unwrap();
    assert_eq!(got.iter().map(|a| a.get().to_string()).collect::<Vec<_>>(), ["192.0.2.77:1"]);
    let blocked =
        resolver.resolve(&Authority::parse("10.0.0.1:1", None).unwrap(), &AddressScope::open()).await;
    assert!(matches!(blocked, Err(ResolveError::Blocked(_))));
}

#[tokio::test]
async fn tunnel_counts_both_directions_and_stops_on_request() {
    let (mut agent, agent_side) = tokio::io::duplex(64);
    let (upstream_side, mut upstream) = tokio::io::duplex(64);
    let bytes = TunnelBytes::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let counters = bytes.clone();
    let task = tokio::spawn(async move {
        let stop = async { drop(stopped.await) };
        tunnel(agent_side, upstream_side, &counters, Duration::from_hours(1), stop).await
    });
    agent.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    upstream.read_exact(&mut buffer).await.unwrap();
    upstream.write_all(b"pong!").await.unwrap();
    agent.read_exact(&mut buffer).await.unwrap();
    stop.send(()).unwrap();
    assert_eq!(task.await.unwrap().unwrap(), TunnelEnd::Stopped);
    assert_eq!((bytes.from_agent(), bytes.to_agent()), (4, 5));
}

/// Either side may close first. The tunnel passes on the other direction until that is silent for too long.
#[tokio::test]
async fn half_closed_tunnel_ends_after_silence() {
    for agent_closes in [true, false] {
        let (agent, agent_side) = tokio::io::duplex(64);
        let (upstream_side, upstream) = tokio::io::duplex(64);
        let (mut closing, mut other) = if agent_closes { (agent, upstream) } else { (upstream, agent) };
        let idle = Duration::from_millis(400);
        let task = tokio::spawn(async move {
            let bytes = TunnelBytes::default();
            tunnel(agent_side, upstream_side, &bytes, idle, std::future::pending()).await
        });
        // Not half-closed: silence does not end the tunnel.
        tokio::time::sleep(idle * 3).await;
        closing.write_all(b"request").await.unwrap();
        closing.shutdown().await.unwrap();
        let mut request = Vec::new();
        other.read_to_end(&mut request).await.unwrap();
        assert_eq!(request, b"request");
        for _ in 0..6 {
            tokio::time::sleep(idle / 2).await;
            other.write_all(b"answer").await.unwrap();
            closing.read_exact(&mut [0; 6]).await.unwrap();
        }
        let ended = tokio::time::timeout(idle * 10, task).await.expect("silence ends it");
        assert_eq!(ended.unwrap().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }
}
