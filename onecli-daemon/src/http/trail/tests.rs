//! What is recorded of a request that is broken off.

use std::collections::BTreeMap;

use futures_util::FutureExt;

use super::*;
use crate::audit::{AuditLog, Entries, Event, Verdict};
use crate::http::{Capacity, GatewayParts, OwnRequests};
use crate::model::{OsRandom, PrivateDir, SystemClock};
use crate::net::{AddressPolicy, Dialer, Resolver};
use crate::policy::{Mode, Snapshot};
use crate::store::SqliteStore;
use crate::tls::{AgentTls, CertAuthority, UpstreamTls};
use crate::vault::{Credentials, KeySource, Vault};

struct Scene {
    gateway: Arc<Gateway>,
    dir: PrivateDir,
    _temp: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Scene {
        let (temp, dir) = PrivateDir::temporary();
        let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandom));
        let store = SqliteStore::open(&dir.join("onecli.db")).await.unwrap();
        let vault = Vault::unlock(&store, &KeySource::file(&dir), random.clone()).await.unwrap();
        let vault = Arc::new(vault);
        let resolver =
            Arc::new(Resolver::new(BTreeMap::default(), AddressPolicy::new(Vec::new(), Vec::new())));
        let dialer = Dialer { connect_timeout: std::time::Duration::from_secs(1) };
        let own = OwnRequests::new(Arc::clone(&resolver), dialer, UpstreamTls::new(&[]).unwrap());
        let credentials = Credentials::new(Arc::clone(&vault), Arc::new(store), Arc::new(own), clock.clone());
        let material = CertAuthority::generate("test", crate::model::Clock::now(clock.as_ref())).unwrap();
        let authority = CertAuthority::load(&material).unwrap();
        let dir = PrivateDir::create(&dir.join("audit")).unwrap();
        let (_policy, policy) = tokio::sync::watch::channel(Arc::<Snapshot>::default());
        let gateway = Gateway::new(GatewayParts {
            policy,
            vault,
            credentials: Arc::new(credentials),
            audit: AuditLog::open(&dir, clock.clone(), 0).unwrap(),
            agent_tls: AgentTls::new(authority, clock.clone()).unwrap(),
            upstream_tls: UpstreamTls::new(&[]).unwrap(),
            resolver,
            dialer,
            explicit_addresses: Vec::new(),
            capacity: Capacity::of(4096),
            clock,
            random,
        });
        Scene { gateway: Arc::new(gateway), dir, _temp: temp }
    }

    fn trail(&self) -> Trail {
        let peer = "127.0.0.1:1".parse().unwrap();
        Trail::begin(&self.gateway, &Connection::new(Mode::Explicit, None, peer)).unwrap()
    }

    async fn recorded(&self) -> Vec<(Event, Option<Verdict>, Option<&'static str>)> {
        self.gateway.audit.flush().await.unwrap();
        let records = Entries::after(self.dir.path(), 0).unwrap().map(|line| line.unwrap().entry.record);
        records.map(|record| (record.event, record.verdict, record.code.as_ref().map(named))).collect()
    }
}

fn named(code: &Text) -> &'static str {
    let known = [Code::ClientGone, Code::Interrupted].map(Code::as_str);
    known.into_iter().find(|known| *known == code.as_str()).unwrap_or("another code")
}

/// One decision and one outcome, also where the client went away while the decision was being written: it was once
/// followed by a second decision, to refuse.
#[tokio::test]
async fn a_request_dropped_while_its_decision_is_written_has_one_decision() {
    let scene = Scene::new().await;
    let mut trail = scene.trail();
    assert!(trail.decide(&[]).now_or_never().is_none(), "the disk was not waited for");
    drop(trail);
    let forward = Some(Verdict::Forward);
    assert_eq!(
        scene.recorded().await,
        [(Event::Decision, forward, None), (Event::Outcome, forward, Some("client_gone"))]
    );
}

#[tokio::test]
async fn a_request_dropped_before_its_decision_is_refused() {
    let scene = Scene::new().await;
    drop(scene.trail());
    assert_eq!(scene.recorded().await, [(Event::Decision, Some(Verdict::Deny), Some("client_gone"))]);
}

#[tokio::test]
async fn a_request_dropped_because_the_daemon_stops_says_so() {
    let scene = Scene::new().await;
    let mut trail = scene.trail();
    trail.decide(&[]).await.unwrap();
    scene.gateway.ending.cancel();
    drop(trail);
    assert_eq!(scene.recorded().await[1], (Event::Outcome, Some(Verdict::Forward), Some("interrupted")));
}
