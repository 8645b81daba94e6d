//! Tests of the records of a request that is aborted.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use onecli_audit::{AuditLog, Entries, Event, Quota, QuotaLimits, Verdict};
use onecli_model::AgentId;
use onecli_net::{AddressPolicy, Dialer, Resolver, SyntheticAddresses};
use onecli_policy::{CaptureMode, Snapshot};
use onecli_store::SqliteStore;
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_tls::{AgentTls, CertAuthority, UpstreamTls};
use onecli_vault::sources::exec::Executor;
use onecli_vault::{Credentials, KeySource, Sources, Vault};

use super::*;
use crate::session::Services;
use crate::session::destination::Destination;
use crate::session::identity::Client;
use crate::{
    Capacity, DaemonClient, DaemonClientParts, DaemonRecorder, DataPlane, DataPlaneParts, UpstreamTimeouts,
};

#[derive(Debug)]
struct NoCommands;

#[async_trait::async_trait]
impl Executor for NoCommands {
    async fn run(&self, _: &onecli_model::SourceCommand) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        Err("not in this test".to_owned())
    }
}

struct Scene {
    plane: DataPlane,
    dir: PrivateDir,
    _temp: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Scene {
        Scene::folding(true).await
    }

    async fn unfolded() -> Scene {
        Scene::folding(false).await
    }

    async fn folding(fold_refusals: bool) -> Scene {
        let limits = QuotaLimits { rate: 10, bytes: 1 << 20, reserve: 0 };
        Scene::with(fold_refusals, limits, onecli_audit::Settings::for_tests()).await
    }

    async fn with(fold_refusals: bool, limits: QuotaLimits, settings: onecli_audit::Settings) -> Scene {
        let (temp, dir) = PrivateDir::temporary();
        let (clock, random) = (Arc::new(SystemClock), Arc::new(OsRandom));
        let store = SqliteStore::open(&dir.join("onecli.db")).await.unwrap();
        let vault = Vault::unlock(&store, &KeySource::file(&dir), random.clone()).await.unwrap();
        let vault = Arc::new(vault);
        let resolver =
            Arc::new(Resolver::new(BTreeMap::default(), AddressPolicy::new(Vec::new(), Vec::new())));
        let dialer = Dialer { connect_timeout: std::time::Duration::from_secs(1) };
        let dir = PrivateDir::create(&dir.join("audit")).unwrap();
        let audit = AuditLog::open(&dir, settings).unwrap();
        let tls = UpstreamTls::new(&[]).unwrap();
        let own = DaemonClient::new(
            DaemonClientParts { resolver: Arc::clone(&resolver), dialer, tls, proxy: None },
            DaemonRecorder { audit: audit.clone(), clock: clock.clone(), random: random.clone() },
        );
        let credentials = Credentials::new(
            Arc::clone(&vault),
            Arc::new(store),
            Arc::new(own),
            Sources::new(None, Arc::new(NoCommands), clock.clone()),
            clock.clone(),
        );
        let material = CertAuthority::generate("test", onecli_model::Clock::now(clock.as_ref())).unwrap();
        let authority = CertAuthority::load(&material).unwrap();
        let (_policy, policy) = tokio::sync::watch::channel(Arc::<Snapshot>::default());
        let plane = DataPlane::new(DataPlaneParts {
            policy,
            vault,
            credentials: Arc::new(credentials),
            audit,
            audit_quota: Arc::new(Quota::new(limits)),
            fold_refusals,
            agent_tls: AgentTls::new(authority, clock.clone()).unwrap(),
            upstream_tls: Arc::new(UpstreamTls::new(&[]).unwrap()),
            resolver,
            synthetic: Arc::new(SyntheticAddresses::new(None)),
            dialer,
            timeouts: UpstreamTimeouts { head: std::time::Duration::MAX, idle: std::time::Duration::MAX },
            proxy: None,
            explicit_addresses: Vec::new(),
            capacity: Capacity::of(4096),
            approvals: Arc::default(),
            approval_timeout: std::time::Duration::from_secs(1),
            clock,
            random,
        });
        Scene { plane, dir, _temp: temp }
    }

    fn services(&self) -> &Services {
        self.plane.services()
    }

    fn audit(&self) -> RequestAudit {
        let peer = "127.0.0.1:1".parse().unwrap();
        let client = Client::new(CaptureMode::Explicit, None, peer);
        RequestAudit::begin(&Session::new(self.services(), client, Destination::Proxy)).unwrap()
    }

    async fn recorded(&self) -> Vec<(Event, Option<Verdict>, Option<&'static str>)> {
        self.services().recorder.audit.flush().await.unwrap();
        let records = Entries::after(self.dir.path(), 0).unwrap().map(|line| line.unwrap().entry.record);
        records.map(|record| (record.event, record.verdict, record.code.as_ref().map(named))).collect()
    }
}

fn named(code: &Text) -> &'static str {
    let known = [Code::ClientGone, Code::Interrupted, Code::UpstreamTimeout].map(Code::as_str);
    known.into_iter().find(|known| *known == code.as_str()).unwrap_or("another code")
}

/// There is one decision and one outcome, even if the client disconnects while the decision is being written. No
/// second decision, to refuse, follows.
#[tokio::test]
async fn request_dropped_while_its_decision_is_written_has_one_decision() {
    let scene = Scene::new().await;
    let mut audit = scene.audit();
    assert!(audit.decide(&[]).now_or_never().is_none(), "the request did not wait for the disk");
    drop(audit);
    let forward = Some(Verdict::Forward);
    assert_eq!(
        scene.recorded().await,
        [(Event::Decision, forward, None), (Event::Outcome, forward, Some("client_gone"))]
    );
}

#[tokio::test]
async fn request_dropped_before_its_decision_is_refused() {
    let scene = Scene::new().await;
    drop(scene.audit());
    assert_eq!(scene.recorded().await, [(Event::Decision, Some(Verdict::Deny), Some("client_gone"))]);
}

/// A request of the daemon itself, which has no client.
#[tokio::test]
async fn request_dropped_because_its_upstream_is_late_records_timeout() {
    let scene = Scene::new().await;
    let (mut late, mut in_time) = (scene.audit(), scene.audit());
    let given_up = late.given_up();
    let _never_set = in_time.given_up();
    late.decide(&[]).await.unwrap();
    given_up.set();
    drop(late);
    drop(in_time);
    let forward = Some(Verdict::Forward);
    assert_eq!(
        scene.recorded().await,
        [
            (Event::Decision, forward, None),
            (Event::Outcome, forward, Some("upstream_timeout")),
            (Event::Decision, Some(Verdict::Deny), Some("client_gone")),
        ]
    );
}

#[tokio::test]
async fn request_dropped_because_the_daemon_stops_records_interruption() {
    let scene = Scene::new().await;
    let mut audit = scene.audit();
    audit.decide(&[]).await.unwrap();
    scene.services().lifecycle.abort();
    drop(audit);
    assert_eq!(scene.recorded().await[1], (Event::Outcome, Some(Verdict::Forward), Some("interrupted")));
}

/// Invariant 9: repeated refusals make one record with a count.
#[tokio::test]
async fn repeated_refusals_are_folded() {
    let scene = Scene::new().await;
    for number in 0..1000 {
        let mut audit = scene.audit();
        audit.record().http_mut().method = Some("GET".into());
        audit.record().http_mut().path = Some(Text::new(if number % 2 == 0 { "/even" } else { "/odd" }));
        audit.refuse(Code::EgressDenied).await;
    }
    scene.plane.end(std::time::Duration::from_secs(1)).await;
    scene.services().recorder.audit.flush().await.unwrap();
    let records: Vec<_> =
        Entries::after(scene.dir.path(), 0).unwrap().map(|line| line.unwrap().entry.record).collect();
    assert_eq!(records.len(), 4, "{records:#?}");
    assert_eq!(records.iter().map(|record| record.count.unwrap_or(1)).sum::<u64>(), 1000);
    for record in &records {
        assert_eq!(record.code.as_ref().map(Text::as_str), Some("egress_denied"));
        assert_eq!((record.event, record.verdict), (Event::Decision, Some(Verdict::Deny)));
        assert!(record.path().is_some() && record.request_id.is_some());
    }
}

/// An agent that is refused in a hundred ways cannot hide an alert among them.
#[tokio::test]
async fn flood_of_refusals_hides_no_alert() {
    let scene = Scene::new().await;
    let refuse = async |path: String, code: Code| {
        let mut audit = scene.audit();
        audit.record().http_mut().path = Some(Text::new(&path));
        audit.refuse(code).await;
    };
    for number in 0..100 {
        refuse(format!("/{number}"), Code::EgressDenied).await;
    }
    refuse("/taken".to_owned(), Code::PlaceholderForeign).await;
    let records = || -> Vec<Record> {
        Entries::after(scene.dir.path(), 0).unwrap().map(|line| line.unwrap().entry.record).collect()
    };
    let alert = records().into_iter().find(|record| record.event == Event::Alert).unwrap();
    assert_eq!(alert.path().map(Text::as_str), Some("/taken"));

    // Alerts that are too many to be recorded separately are still recorded as alerts.
    for number in 0..100 {
        refuse(format!("/{number}"), Code::PlaceholderForeign).await;
    }
    scene.plane.end(std::time::Duration::from_secs(1)).await;
    scene.services().recorder.audit.flush().await.unwrap();
    let alerts = records().into_iter().filter(|record| record.event == Event::Alert);
    assert_eq!(alerts.map(|record| record.count.unwrap_or(1)).sum::<u64>(), 101);
}

/// Invariant 9 without folding: refusals of unidentified clients are limited, and counted beyond the limit.
#[tokio::test]
async fn flood_of_unidentified_clients_reaches_a_quota() {
    let scene = Scene::unfolded().await;
    for _ in 0..300 {
        scene.audit().refuse(Code::TokenUnknown).await;
    }
    scene.plane.end(std::time::Duration::from_secs(1)).await;
    scene.services().recorder.audit.flush().await.unwrap();
    let counts = Entries::after(scene.dir.path(), 0)
        .unwrap()
        .map(|line| line.unwrap().entry.record.count.unwrap_or(1));
    let counts: Vec<u64> = counts.collect();
    assert!(counts.len() < 200 && counts.iter().sum::<u64>() == 300, "{} records", counts.len());
}

/// Invariant 9: an agent that has used up its quota is refused, and other agents are not. Its refusals are counted.
#[tokio::test]
async fn flood_of_one_agent_reaches_its_quota() {
    let scene = Scene::new().await;
    let agent = |number| AgentId(uuid::Uuid::from_u128(number));
    let decide = async |number| {
        let mut audit = scene.audit();
        audit.record().agent = Some(format!("agent-{number}").parse().unwrap());
        audit.payer = agent(number);
        let decided = audit.decide(&[]).await;
        if let Err(refusal) = &decided {
            audit.refuse(refusal.code).await;
        }
        decided.map(drop)
    };
    let mut refused = 0;
    for _ in 0..200 {
        refused += u64::from(decide(1).await.is_err_and(|refusal| refusal.code == Code::AuditQuota));
    }
    assert!((50..=150).contains(&refused), "{refused}");
    decide(2).await.unwrap();
    scene.plane.end(std::time::Duration::from_secs(1)).await;
    scene.services().recorder.audit.flush().await.unwrap();
    let refusals = Entries::after(scene.dir.path(), 0).unwrap().filter_map(|line| {
        let record = line.unwrap().entry.record;
        (record.verdict == Some(Verdict::Deny)).then_some(record.count.unwrap_or(1))
    });
    let refusals: Vec<u64> = refusals.collect();
    assert!(refusals.len() <= 3 && refusals.iter().sum::<u64>() == refused, "{refusals:?}, {refused}");
}

/// While the disk is nearly full, each agent gets only its part of the reserve. An approval request counts as well.
#[tokio::test]
async fn each_agent_gets_its_part_of_the_reserve_on_a_full_disk() {
    let limits = QuotaLimits { rate: 10_000, bytes: 1 << 40, reserve: 16 * 100_000 };
    let settings = onecli_audit::Settings { reserve: u64::MAX, ..onecli_audit::Settings::for_tests() };
    let scene = Scene::with(true, limits, settings).await;
    let audit = |number| {
        let mut audit = scene.audit();
        audit.payer = AgentId(uuid::Uuid::from_u128(number));
        audit
    };
    let mut decided = 0;
    let refusal = loop {
        match audit(1).decide(&[]).await {
            Ok(_) => decided += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(refusal.code == Code::AuditQuota && refusal.message.contains("nearly full"), "{refusal:?}");
    assert!((10..=100).contains(&decided), "2 to 5 kB each: {decided}");
    assert_eq!(audit(1).may_ask().unwrap_err().code, Code::AuditQuota);
    audit(2).may_ask().unwrap();
    audit(2).decide(&[]).await.unwrap();
    let asked = (0..1000).take_while(|_| audit(3).may_ask().is_ok()).count();
    assert!((10..=100).contains(&asked), "approval requests count: {asked}");
}

/// The records that count folded refusals are charged to the agent as well.
#[tokio::test]
async fn counts_of_folded_refusals_are_charged_to_the_agent() {
    let limits = QuotaLimits { rate: 1, bytes: 1 << 30, reserve: 0 };
    let scene = Scene::with(true, limits, onecli_audit::Settings::for_tests()).await;
    let payer = AgentId(uuid::Uuid::from_u128(1));
    for _ in 0..3 {
        let mut audit = scene.audit();
        (audit.payer, audit.record.agent) = (payer, "one".parse().ok());
        audit.refuse(Code::EgressDenied).await;
    }
    let take = |records| {
        let now = scene.services().recorder.clock.instant();
        scene.services().recorder.quota.take(now, payer, (records, 0), false)
    };
    take(8).expect("the recorded refusal uses one of ten");
    scene.plane.end(std::time::Duration::from_secs(1)).await;
    take(1).expect_err("the count of the others uses another one");
}
