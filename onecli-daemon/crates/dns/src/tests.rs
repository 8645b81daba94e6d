//! Tables of answers and audit records.

mod denied;
mod serving;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use onecli_audit::{AuditLog, Entries, Quota, QuotaLimits, Record};
use onecli_model::{
    Agent, AgentId, Code, Egress, Factors, Host, MethodSet, Placeholder, Placement, Profile, Sealed, Secret,
    SecretId, Target, TokenHash,
};
use onecli_net::SyntheticAddresses;
use onecli_policy::{AgentInput, Snapshot, SnapshotInput};
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use super::answer::QueryHandler;
use super::lookup::{Addresses, HostLookup, LookupError};
use super::message::Transport;
use super::server::DnsClient;

/// A name service with a few names that waits for a permit before it answers.
#[derive(Debug)]
struct Zone {
    names: BTreeMap<&'static str, Vec<IpAddr>>,
    /// Whether there is an upstream proxy for all names but `broken.test`.
    proxied: bool,
    open: Semaphore,
}

#[async_trait]
impl HostLookup for Zone {
    async fn addresses(&self, host: &Host) -> Result<Addresses, LookupError> {
        let _open = self.open.acquire().await.unwrap();
        match host.as_name().unwrap() {
            "broken.test" => Err(LookupError::Unavailable),
            name => match self.names.get(name) {
                Some(list) => {
                    Ok(Addresses { list: list.clone(), ttl: if name == "brief.test" { 7 } else { 9999 } })
                }
                None => Err(LookupError::NoSuchName),
            },
        }
    }

    fn is_proxied(&self, host: &Host) -> bool {
        self.proxied && host.as_name() != Some("broken.test")
    }
}

fn zone() -> Zone {
    let many = (0..100).map(|n| IpAddr::from([192, 0, 2, n])).collect();
    let names = BTreeMap::from([
        ("api.test", vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]),
        ("six.test", vec!["2001:db8::6".parse().unwrap()]),
        ("brief.test", vec!["192.0.2.2".parse().unwrap()]),
        ("single", vec!["192.0.2.3".parse().unwrap()]),
        ("none.test", Vec::new()),
        ("many.test", many),
        ("other.test", vec!["192.0.2.9".parse().unwrap()]),
        ("a.deep.test", vec!["192.0.2.4".parse().unwrap()]),
    ]);
    Zone { names, proxied: false, open: Semaphore::new(Semaphore::MAX_PERMITS) }
}

fn agent(n: u8, egress: Egress) -> Agent {
    Agent {
        id: AgentId(Uuid::from_u128(u128::from(n))),
        name: format!("agent{n}").parse().unwrap(),
        factors: Factors::BOTH,
        cgroup: format!("agent{n}.slice").parse().unwrap(),
        user: None,
        egress,
        enabled: true,
        generation: 1,
        allow_git_config: false,
    }
}

/// Agent 1 has secrets for hosts of the zone, agent 2 has `egress allow`.
fn snapshot(agents: &[Agent]) -> Snapshot {
    let hosts = [
        "api.test",
        "six.test",
        "brief.test",
        "single",
        "none.test",
        "many.test",
        "broken.test",
        "gone.test",
        "**.deep.test",
    ];
    let secrets: Vec<Secret> = (0..)
        .zip(hosts)
        .map(|(n, host)| Secret {
            id: SecretId(Uuid::from_u128(n)),
            name: format!("s{n}").parse().unwrap(),
            target: Target {
                host: host.parse().unwrap(),
                port: 443,
                methods: MethodSet::default(),
                paths: vec!["/**".parse().unwrap()],
                allow_plaintext: false,
            },
            placement: Placement::bearer(),
            profile: Profile::default(),
            env: None,
            enabled: true,
            version: 1,
            class: None,
            sealed: Sealed(Vec::new()),
        })
        .collect();
    let grants = secrets.iter().map(|secret| (agent(1, Egress::Deny).id, secret.id)).collect();
    let agents = agents.iter().map(|agent| AgentInput { agent: agent.clone(), token: TokenHash([0; 32]) });
    let input = SnapshotInput { agents: agents.collect(), secrets, grants, ..SnapshotInput::default() };
    Snapshot::compile(input, &|_, _, _| Placeholder::from_bits([0; 20]))
}

struct Stage {
    _temp: tempfile::TempDir,
    log: PrivateDir,
    parts: QueryHandler,
    zone: Arc<Zone>,
    policy: watch::Sender<Arc<Snapshot>>,
    strict: DnsClient,
    open: DnsClient,
}

impl Stage {
    fn new() -> Stage {
        let (temp, log) = PrivateDir::temporary();
        let agents = [agent(1, Egress::Deny), agent(2, Egress::Allow)];
        let (policy, current) = watch::channel(Arc::new(snapshot(&agents)));
        let zone = Arc::new(zone());
        let parts = QueryHandler {
            policy: current,
            lookup: Arc::clone(&zone) as Arc<dyn HostLookup>,
            synthetic: Arc::new(SyntheticAddresses::new(Some("198.18.0.0/15".parse().unwrap()))),
            audit: AuditLog::open(&log, onecli_audit::Settings::for_tests()).unwrap(),
            quota: Arc::new(Quota::new(QuotaLimits { rate: 100, bytes: 1 << 30, reserve: 0 })),
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
        };
        let [strict, open] = agents.map(|agent| DnsClient::new(&agent));
        Stage { _temp: temp, log, parts, zone, policy, strict, open }
    }

    async fn ask(&self, client: &DnsClient, query: &Message) -> Message {
        let answer = self.parts.answer(client, &query.to_vec().unwrap(), Transport::Datagram).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }

    async fn records(&self) -> Vec<Record> {
        self.parts.audit.flush().await.unwrap();
        Entries::after(self.log.path(), 0).unwrap().map(|line| line.unwrap().entry.record).collect()
    }
}

/// A query as the wire format permits it: labels of any bytes. `|` is a dot inside a label.
fn query(name: &str, kind: RecordType) -> Message {
    let labels =
        name.split_terminator('.').filter(|label| !label.is_empty()).map(|label| label.replace('|', "."));
    let name = Name::from_labels(labels.map(String::into_bytes).collect::<Vec<_>>()).unwrap();
    let mut message = Message::new(0x4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    message
}

/// The answer's code, then its addresses. An address from the range of [`Stage`] is `synthetic`.
fn summary(answer: &Message) -> String {
    let addresses = answer.answers.iter().map(|record| match record.data.ip_addr().unwrap() {
        IpAddr::V4(ip) if ip.octets()[..2] == [198, 18] || ip.octets()[..2] == [198, 19] => {
            assert_eq!(record.ttl, 1, "{record:?}");
            " synthetic".to_owned()
        }
        ip => format!(" {ip}"),
    });
    format!("{:?}{}", answer.metadata.response_code, addresses.collect::<String>())
}

#[tokio::test]
async fn queries_are_answered_by_policy() {
    use RecordType::{A, AAAA, ANY, HTTPS, MX, PTR, SVCB, TXT};
    let stage = Stage::new();
    let deep = format!("{}.deep.test.", "a.".repeat(20).trim_end_matches('.'));
    for (name, kind, strict, open) in [
        ("api.test.", A, "NoError 192.0.2.1", "NoError 192.0.2.1"),
        ("api.test.", AAAA, "NoError 2001:db8::1", "NoError 2001:db8::1"),
        ("aPI.Test.", A, "NoError 192.0.2.1", "NoError 192.0.2.1"),
        ("api.test.", HTTPS, "NoError", "NoError"),
        ("api.test.", SVCB, "NoError", "NoError"),
        ("api.test.", TXT, "NoError", "NoError"),
        ("api.test.", ANY, "NoError", "NoError"),
        // A name with one address family or none: no data, which differs from "no such name".
        ("six.test.", A, "NoError", "NoError"),
        ("six.test.", AAAA, "NoError 2001:db8::6", "NoError 2001:db8::6"),
        ("none.test.", A, "NoError", "NoError"),
        ("single.", A, "NoError 192.0.2.3", "NoError 192.0.2.3"),
        ("a.deep.test.", A, "NoError 192.0.2.4", "NoError 192.0.2.4"),
        (&deep, A, "NXDomain", "NXDomain"),
        ("gone.test.", A, "NXDomain", "NXDomain"),
        ("broken.test.", A, "ServFail", "ServFail"),
        ("other.test.", A, "NoError synthetic", "NoError 192.0.2.9"),
        ("other.test.", AAAA, "NoError", "NoError"),
        ("other.test.", MX, "Refused", "NoError"),
        ("1.2.0.192.in-addr.arpa.", PTR, "Refused", "NoError"),
        // Resolvers continue with the next search domain only after NXDOMAIN.
        ("api.test.corp.example.", A, "NXDomain", "NXDomain"),
        ("single.corp.example.", AAAA, "NXDomain", "NXDomain"),
        ("localhost.corp.example.", A, "NXDomain", "NXDomain"),
        ("corp.api.test.", A, "NoError synthetic", "NXDomain"),
        ("xapi.test.", A, "NoError synthetic", "NXDomain"),
        ("test.", A, "Refused", "NXDomain"),
        ("wpad.corp.example.", A, "Refused", "NXDomain"),
        ("metadata.google.internal.", A, "Refused", "NXDomain"),
        ("localhost.", A, "NoError 127.0.0.1", "NoError 127.0.0.1"),
        ("db.localhost.", AAAA, "NoError ::1", "NoError ::1"),
        ("localhost.", TXT, "NoError", "NoError"),
        // Names that are not valid host names.
        (".", RecordType::NS, "Refused", "Refused"),
        ("127.0.0.1.", A, "Refused", "Refused"),
        ("b\u{fc}cher.test.", A, "Refused", "Refused"),
        ("a|b.test.", A, "Refused", "Refused"),
        ("api|test.", A, "Refused", "Refused"),
        ("a b.test.", A, "Refused", "Refused"),
        ("-a.test.", A, "Refused", "Refused"),
        ("xn--.test.", A, "Refused", "Refused"),
    ] {
        for (client, expected) in [(&stage.strict, strict), (&stage.open, open)] {
            let asked = query(name, kind);
            let answer = stage.ask(client, &asked).await;
            assert_eq!(summary(&answer), expected, "{name} {kind} by {}", client.name);
            assert_eq!(answer.metadata.id, 0x4711);
            assert_eq!(answer.metadata.message_type, MessageType::Response);
            assert!(answer.metadata.recursion_available && answer.metadata.recursion_desired);
            let [question] = answer.queries.as_slice() else { panic!("{answer:?}") };
            assert!(
                question.name().eq_case(asked.queries[0].name()),
                "the question is unchanged: {answer:?}"
            );
            assert!(answer.edns.is_none() && !answer.metadata.truncation);
        }
    }
}

#[tokio::test]
async fn answer_ttl_is_at_most_a_minute() {
    let stage = Stage::new();
    for (name, ttl) in [("api.test.", 60), ("brief.test.", 7), ("localhost.", 60)] {
        let answer = stage.ask(&stage.strict, &query(name, RecordType::A)).await;
        assert_eq!(answer.answers[0].ttl, ttl, "{name}");
    }
}

#[tokio::test]
async fn large_answers_are_truncated_to_the_client_limit() {
    let stage = Stage::new();
    let mut asked = query("many.test.", RecordType::A);
    for (payload, whole) in
        [(None, false), (Some(512), false), (Some(1232), false), (Some(1650), true), (Some(65535), true)]
    {
        asked.edns = payload.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(true);
            edns
        });
        for transport in [Transport::Datagram, Transport::Stream] {
            let bytes = asked.to_vec().unwrap();
            let bytes = stage.parts.answer(&stage.strict, &bytes, transport).await.unwrap();
            let answer = Message::from_vec(&bytes).unwrap();
            let whole = whole || transport == Transport::Stream;
            assert_eq!(answer.metadata.truncation, !whole, "{payload:?}");
            assert_eq!(answer.answers.len(), if whole { 100 } else { 0 }, "{payload:?}");
            assert_eq!(answer.queries.len(), 1);
            assert_eq!(answer.edns.is_some(), payload.is_some(), "EDNS is answered with EDNS: {payload:?}");
            assert!(answer.edns.is_none_or(|edns| edns.version() == 0 && edns.flags().dnssec_ok));
            assert!(whole || bytes.len() <= usize::from(payload.unwrap_or(512)));
        }
    }
}

#[tokio::test]
async fn invalid_messages_get_an_error_or_no_answer() {
    let stage = Stage::new();
    let good = query("api.test.", RecordType::A).to_vec().unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut two = query("api.test.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("six.test.").unwrap(), RecordType::A));
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let mut newer = query("api.test.", RecordType::A);
    newer.edns = Some(Edns::new());
    newer.edns.as_mut().unwrap().set_version(1);
    let code = |code: ResponseCode| Some(code);
    for (what, bytes, expected) in [
        ("nothing", Vec::new(), None),
        ("half a header", good[..11].to_vec(), None),
        ("an answer", with(2, 0x81), None),
        ("a header alone, of a query", good[..12].to_vec(), code(ResponseCode::FormErr)),
        ("a cut question", good[..good.len() - 1].to_vec(), code(ResponseCode::FormErr)),
        ("no question", with(5, 0), code(ResponseCode::FormErr)),
        ("two questions", two.to_vec().unwrap(), code(ResponseCode::FormErr)),
        ("a label past the end", with(12, 63), code(ResponseCode::FormErr)),
        ("a pointer to itself", [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat(), code(ResponseCode::FormErr)),
        ("an update", with(2, 5 << 3), code(ResponseCode::NotImp)),
        ("a notification", with(2, 4 << 3), code(ResponseCode::NotImp)),
        ("another class", chaos.to_vec().unwrap(), code(ResponseCode::Refused)),
        ("a newer EDNS", newer.to_vec().unwrap(), code(ResponseCode::BADVERS)),
    ] {
        let answer = stage.parts.answer(&stage.strict, &bytes, Transport::Datagram).await;
        let answer = answer.map(|bytes| Message::from_vec(&bytes).unwrap());
        // 16 is also BADSIG.
        let code = answer.as_ref().map(|answer| u16::from(answer.metadata.response_code));
        assert_eq!(code, expected.map(u16::from), "{what}");
        assert!(answer.is_none_or(|answer| answer.metadata.id == 0x4711), "{what}");
    }
    // Truncated or modified messages get a single valid answer or none.
    for at in 0..good.len() {
        for byte in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
            let _ = stage.parts.answer(&stage.strict, &with(at, byte), Transport::Datagram).await;
        }
    }
}

#[tokio::test]
async fn refusals_are_recorded_and_folded() {
    let stage = Stage::new();
    for _ in 0..5 {
        let _ = stage.ask(&stage.strict, &query("eVil.test.", RecordType::A)).await;
    }
    let _ = stage.ask(&stage.strict, &query("api.test.corp.example.", RecordType::A)).await;
    let _ = stage.ask(&stage.strict, &query("api.test.", RecordType::A)).await;
    let _ = stage.ask(&stage.strict, &query("a\u{7}.test.", RecordType::A)).await;
    stage.parts.report(&stage.strict);
    assert_eq!(stage.records().await.len(), 1, "a connection may follow the others");
    stage.parts.report_unconnected(&stage.strict);
    let records = stage.records().await;
    let [bell, evil] = records.as_slice() else { panic!("{records:#?}") };
    assert_eq!(evil.host.as_ref().unwrap().as_str(), "evil.test");
    assert_eq!(evil.agent.as_ref().unwrap().as_str(), "agent1");
    assert_eq!(evil.code.as_ref().unwrap().as_str(), Code::EgressDenied.as_str());
    assert_eq!((evil.port, evil.method(), evil.count), (Some(53), None, None));
    assert_eq!(evil.factors, Some(Factors::CGROUP));
    assert!(!bell.host.as_ref().unwrap().as_str().contains('\x07'), "{bell:?}");

    stage.parts.report_rest(&stage.strict);
    let records = stage.records().await;
    let [.., folded] = records.as_slice() else { panic!("{records:#?}") };
    assert_eq!((records.len(), folded.count), (3, Some(4)));
    assert_eq!(folded.host.as_ref().unwrap().as_str(), "evil.test");
}

/// A name that no operator configured can carry data to the operator of its domain. Such names are recorded and
/// limited.
#[tokio::test]
async fn unconfigured_names_are_recorded_and_limited() {
    let mut stage = Stage::new();
    stage.parts.quota = Arc::new(Quota::new(QuotaLimits { rate: 1 << 20, bytes: 1 << 40, reserve: 0 }));
    for (client, name) in
        [(&stage.strict, "a.deep.test."), (&stage.open, "other.test."), (&stage.strict, "api.test.")]
    {
        for _ in 0..2 {
            assert_eq!(
                summary(&stage.ask(client, &query(name, RecordType::A)).await).split(' ').next(),
                Some("NoError")
            );
        }
    }
    let records = stage.records().await;
    let hosts: Vec<_> = records
        .iter()
        .map(|r| (r.agent.as_ref().unwrap().as_str(), r.host.as_ref().unwrap().as_str()))
        .collect();
    assert_eq!(
        hosts,
        [("agent1", "a.deep.test"), ("agent2", "other.test")],
        "one for each name, none for configured names"
    );
    assert!(
        records.iter().all(|record| record.verdict == Some(onecli_audit::Verdict::Forward)),
        "{records:#?}"
    );
    for n in 0..1_022 {
        let answer = stage.ask(&stage.strict, &query(&format!("secret{n}.deep.test."), RecordType::A)).await;
        assert_eq!(summary(&answer), "NXDomain");
    }
    let next = || query("one.more.deep.test.", RecordType::A);
    let mut answer = stage.ask(&stage.strict, &next()).await;
    for n in 0..30 {
        if summary(&answer) == "Refused" {
            break;
        }
        // On a slow machine, some of the budget may have been restored.
        answer = stage.ask(&stage.strict, &query(&format!("late{n}.deep.test."), RecordType::A)).await;
    }
    assert_eq!(summary(&answer), "Refused");
    let records = stage.records().await;
    assert_eq!(records.last().unwrap().code.as_ref().unwrap().as_str(), Code::LimitReached.as_str());
    assert!(records.iter().filter(|record| record.code.is_none()).count() >= 1_024);
    assert_ne!(
        summary(&stage.ask(&stage.strict, &query("api.test.", RecordType::A)).await),
        "Refused",
        "configured names are served"
    );
    // An agent with `egress allow` is recorded but not limited.
    for n in 0..1_100 {
        let answer = stage.ask(&stage.open, &query(&format!("any{n}.test."), RecordType::A)).await;
        assert_eq!(summary(&answer), "NXDomain", "{n}");
    }
    assert!(stage.records().await.len() >= 2_100);
    // Without a record no name server is queried, except for configured names.
    stage.parts.audit.close().await.unwrap();
    let unseen = query("unseen.test.", RecordType::A);
    let (one, two) = tokio::join!(stage.ask(&stage.open, &unseen), stage.ask(&stage.open, &unseen));
    assert_eq!((summary(&one), summary(&two)), ("ServFail".to_owned(), "ServFail".to_owned()));
    assert_eq!(
        summary(&stage.ask(&stage.open, &query("any7.test.", RecordType::A)).await),
        "ServFail",
        "forgotten"
    );
    assert_eq!(summary(&stage.ask(&stage.open, &query("any1099.test.", RecordType::A)).await), "NXDomain");
}

/// Invariant 9: queries beyond the agent's quota are counted, not recorded one by one. Recorded queries count against
/// the quota.
#[tokio::test]
async fn recorded_refusals_count_against_the_agent_quota() {
    let mut stage = Stage::new();
    stage.parts.quota = Arc::new(Quota::new(QuotaLimits { rate: 1, bytes: 1 << 30, reserve: 0 }));
    for number in 0..20 {
        let _ = stage.ask(&stage.strict, &query(&format!("evil{number}.test."), RecordType::A)).await;
    }
    stage.parts.report_unconnected(&stage.strict);
    let recorded = stage.records().await.len();
    assert!((10..=15).contains(&recorded), "ten seconds' worth: {recorded}");
    let now = stage.parts.clock.instant();
    assert!(stage.parts.quota.take(now, stage.strict.agent, (2, 1), false).is_err());
    stage.parts.report_rest(&stage.strict);
    let records = stage.records().await;
    let counted = records.last().unwrap().count.unwrap();
    assert_eq!((records.len(), counted), (recorded + 1, 20 - recorded as u64));
}

#[tokio::test]
async fn removed_or_disabled_agent_is_refused() {
    let stage = Stage::new();
    let disabled = Agent { enabled: false, ..agent(1, Egress::Deny) };
    let same_cgroup = Agent { id: AgentId(Uuid::max()), ..agent(1, Egress::Allow) };
    for (agents, expected) in
        [(vec![], "Refused"), (vec![disabled], "NoError synthetic"), (vec![same_cgroup], "Refused")]
    {
        stage.policy.send_replace(Arc::new(snapshot(&agents)));
        let answer = stage.ask(&stage.strict, &query("api.test.", RecordType::A)).await;
        assert_eq!(summary(&answer), expected, "{agents:?}");
        let answer = stage.ask(&stage.strict, &query("localhost.", RecordType::A)).await;
        assert_eq!(summary(&answer) == "NoError 127.0.0.1", expected != "Refused", "{agents:?}");
    }
    stage.parts.report_unconnected(&stage.strict);
    let codes: Vec<_> = stage.records().await.iter().filter_map(|record| record.code.clone()).collect();
    let disabled = codes.iter().filter(|code| code.as_str() == Code::AgentDisabled.as_str()).count();
    assert_eq!(disabled, 1, "{codes:?}");
}
