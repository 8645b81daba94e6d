//! A protocol beside HTTP, for these tests only, in which the server speaks first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use onecli_audit::{AuditLog, Entries, Event, Quota, QuotaLimits, Record, Text};
use onecli_model::{
    Agent, AgentId, Authority, Clock, Code, Egress, Factors, Flow, Placeholder, Refusal, Rule, RuleId,
    RuleSpec, SecretId, TokenHash,
};
use onecli_net::{AddressPolicy, ConnectionOrigin, Dialer, Resolver, TunnelBytes, tunnel};
use onecli_policy::{AgentInput, CaptureMode, Snapshot, SnapshotInput};
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_tls::{AgentTls, CertAuthority, UpstreamTls};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use super::protocol::{Detection, FirstBytes, Protocol, Stream};
use super::router::Router;
use crate::Capacity;
use crate::session::counters::Counters;
use crate::session::destination::Destination;
use crate::session::identity::Client;
use crate::session::limits::Limits;
use crate::session::recorder::Recorder;
use crate::session::refusals::Refusals;
use crate::session::request_audit::RequestAudit;
use crate::session::{PolicyView, Services, Session};
use crate::tunnel::Tunnel;
use crate::upstream::connector::UpstreamConnector;
use crate::upstream::{UpstreamTimeouts, Upstreams};

/// Claims every connection to one port before its first byte.
#[derive(Debug)]
struct ServerFirst {
    port: u16,
}

impl Protocol for ServerFirst {
    fn detect(&self, session: &Session, _: FirstBytes<'_>) -> Detection {
        if session.destination.port() == Some(self.port) { Detection::Mine } else { Detection::NotMine }
    }

    fn serve(self: Arc<Self>, session: Session, io: Stream) -> BoxFuture<'static, ()> {
        async move {
            let mut audit = RequestAudit::begin(&session).unwrap();
            if let Err(refusal) = serve(&session, &mut audit, io).await {
                audit.refuse_by(&refusal).await;
            }
        }
        .boxed()
    }

    fn refuse(self: Arc<Self>, session: Session, refusal: Refusal, _: Stream) -> BoxFuture<'static, ()> {
        async move { _ = session.refuse(&refusal, |_| {}).await }.boxed()
    }
}

/// Uses identity, limits, policy, an upstream connection, records and revocation, and nothing of HTTP.
async fn serve(session: &Session, audit: &mut RequestAudit, io: Stream) -> Result<(), Refusal> {
    let identity = session.identify()?;
    audit.identify(&identity);
    audit.enter(session, &identity)?;
    let Destination::Name(authority) = &session.destination else {
        unreachable!("a test connects to a name")
    };
    let allowed = |snapshot: &Snapshot| snapshot.allows_unread(&identity, authority);
    let denied = || Refusal::new(Code::EgressDenied, "not allowed", "allow it");
    let (scope, _) = allowed(&session.policy.snapshot()).ok_or_else(denied)?;
    let opened = session.upstreams.connector.open(authority, &scope).await?;
    audit.record().target(authority.host(), authority.port());
    audit.decide_tunnel().await?;
    let revoked = session.until_refused(|snapshot, _| allowed(snapshot).is_none());
    let bytes = TunnelBytes::default();
    let result = tunnel(io, opened.stream, &bytes, session.upstreams.timeouts.idle, revoked).await;
    audit.tunnelled(&bytes, result);
    Ok(())
}

/// Policy, services and a server that sends a greeting and then what it reads.
struct Scene {
    services: Services,
    router: Arc<Router>,
    policy: watch::Sender<Arc<Snapshot>>,
    port: u16,
    dir: PrivateDir,
    _temp: tempfile::TempDir,
}

fn agent() -> Agent {
    Agent {
        id: AgentId(Uuid::from_u128(7)),
        name: "worker".parse().unwrap(),
        factors: Factors::CGROUP,
        cgroup: "agent-worker.slice".parse().unwrap(),
        user: None,
        egress: Egress::Deny,
        enabled: true,
        generation: 1,
        allow_git_config: false,
    }
}

/// The policy that allows the agent bytes of any protocol to `db.test:port`.
fn snapshot(port: u16) -> Arc<Snapshot> {
    let rule =
        serde_json::json!({ "action": "allow", "host": "db.test", "port": port.to_string(), "tunnel": true });
    let rule = Rule {
        id: RuleId(1),
        agent: None,
        terms: RuleSpec::try_from(serde_json::from_value::<onecli_model::RuleText>(rule).unwrap()).unwrap(),
    };
    let agents = vec![AgentInput { agent: agent(), token: TokenHash([7; 32]) }];
    let stand_in = |_: AgentId, _: SecretId, _: u32| Placeholder::from_bits([0; 20]);
    let input = SnapshotInput { agents, rules: vec![rule], ..SnapshotInput::default() };
    Arc::new(Snapshot::compile(input, &stand_in))
}

async fn greet(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            stream.write_all(b"READY\n").await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

impl Scene {
    async fn new() -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(greet(listener));
        let (temp, dir) = PrivateDir::temporary();
        let dir = PrivateDir::create(&dir.join("audit")).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (policy, current) = watch::channel(snapshot(port));
        let view = PolicyView::new(current, Arc::clone(&clock));
        let addresses = AddressPolicy::new(vec!["127.0.0.1/32".parse().unwrap()], Vec::new());
        let names = BTreeMap::from([("db.test".parse().unwrap(), vec!["127.0.0.1".parse().unwrap()])]);
        let limits = QuotaLimits { rate: 100, bytes: 1 << 20, reserve: 0 };
        let connector = UpstreamConnector {
            resolver: Arc::new(Resolver::new(names, addresses)),
            dialer: Dialer { connect_timeout: Duration::from_secs(5) },
            tls: Arc::new(UpstreamTls::new(&[]).unwrap()),
            proxy: None,
        };
        let timeouts = UpstreamTimeouts { head: Duration::from_secs(5), idle: Duration::from_mins(1) };
        let services = Services {
            limits: Arc::new(Limits::new(&Capacity::of(4096), Arc::clone(&clock))),
            recorder: Arc::new(Recorder {
                policy: view.clone(),
                audit: AuditLog::open(&dir, onecli_audit::Settings::for_tests()).unwrap(),
                quota: Arc::new(Quota::new(limits)),
                refusals: Refusals::new(true),
                counters: Counters::default(),
                clock: Arc::clone(&clock),
                random: Arc::new(OsRandom),
            }),
            upstreams: Arc::new(Upstreams { connector: Arc::new(connector), timeouts }),
            lifecycle: Arc::default(),
            policy: view,
        };
        let material = CertAuthority::generate("test", clock.now()).unwrap();
        let tls = AgentTls::new(CertAuthority::load(&material).unwrap(), clock).unwrap();
        let protocols: Vec<Arc<dyn Protocol>> = vec![Arc::new(ServerFirst { port }), Arc::new(Tunnel)];
        let router = Arc::new(Router::new(protocols, tls));
        Scene { services, router, policy, port, dir, _temp: temp }
    }

    /// Connects a process of the agent's cgroup to `db.test:port`.
    fn connect(&self, port: u16) -> DuplexStream {
        let flow = Flow {
            original_destination: SocketAddr::from(([127, 0, 0, 9], port)),
            agent_cgroup_id: 5,
            current_cgroup_id: 5,
            netns_cookie: 1,
            uid: 1000,
            gid: 1000,
            pid: 42,
            comm: "psql".to_owned(),
            socket_cookie: 1,
        };
        let origin = ConnectionOrigin { flow, cgroup: Some(agent().cgroup), launched_by: None };
        let client = Client::new(CaptureMode::Transparent, Some(origin), "127.0.0.1:1".parse().unwrap());
        let name = Authority::new("db.test".parse().unwrap(), port);
        let session = Session::new(&self.services, client, Destination::Name(name));
        let (near, far) = tokio::io::duplex(1024);
        let router = Arc::clone(&self.router);
        tokio::spawn(async move { router.serve(session, Box::new(far)).await });
        near
    }

    /// The records, after the last connection has ended.
    async fn records(&self) -> Vec<Record> {
        self.services.lifecycle.end(Duration::from_secs(5)).await;
        self.services.recorder.audit.flush().await.unwrap();
        Entries::after(self.dir.path(), 0).unwrap().map(|line| line.unwrap().entry.record).collect()
    }
}

async fn read_greeting(client: &mut DuplexStream) {
    let mut greeting = [0; 6];
    let read = client.read_exact(&mut greeting);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("a greeting").unwrap();
    assert_eq!(&greeting, b"READY\n");
}

#[tokio::test]
async fn server_speaks_first_on_a_claimed_connection() {
    let scene = Scene::new().await;
    let mut client = scene.connect(scene.port);
    read_greeting(&mut client).await;
    client.write_all(b"query").await.unwrap();
    let mut echo = [0; 5];
    client.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"query");
    drop(client);
    let records = scene.records().await;
    let events: Vec<Event> = records.iter().map(|record| record.event).collect();
    assert_eq!(events, [Event::Decision, Event::Outcome]);
    let outcome = &records[1];
    assert_eq!(outcome.agent, Some(agent().name));
    assert_eq!(outcome.comm.as_ref().map(Text::as_str), Some("psql"));
    assert_eq!((outcome.bytes_in, outcome.bytes_out), (Some(5), Some(11)));
    assert_eq!(outcome.port, Some(scene.port));
}

#[tokio::test]
async fn change_of_policy_ends_a_claimed_connection() {
    let scene = Scene::new().await;
    let mut client = scene.connect(scene.port);
    read_greeting(&mut client).await;
    scene.policy.send_replace(snapshot(1));
    let mut rest = Vec::new();
    let read = client.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("the connection ends").unwrap();
    let records = scene.records().await;
    assert_eq!(records[1].code.as_ref().map(Text::as_str), Some(Code::Revoked.as_str()));
}

#[tokio::test]
async fn claimed_connection_counts_against_the_agents_limit() {
    let scene = Scene::new().await;
    let limit = &scene.services.limits.exchanges;
    let taken: Vec<_> = std::iter::from_fn(|| limit.take(agent().id)).collect();
    assert!(!taken.is_empty());
    let mut client = scene.connect(scene.port);
    assert_eq!(client.read(&mut [0; 6]).await.unwrap(), 0, "refused without a greeting");
    let records = scene.records().await;
    assert_eq!(records[0].code.as_ref().map(Text::as_str), Some(Code::LimitReached.as_str()));
}

#[tokio::test]
async fn other_destination_is_not_claimed() {
    let scene = Scene::new().await;
    let mut client = scene.connect(scene.port ^ 1);
    client.write_all(b"\0").await.unwrap();
    assert_eq!(client.read(&mut [0; 6]).await.unwrap(), 0);
    let records = scene.records().await;
    assert_eq!(records[0].code.as_ref().map(Text::as_str), Some(Code::EgressDenied.as_str()));
}
