//! Names that are answered with synthetic addresses.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use onecli_net::SyntheticAddresses;
use tokio::sync::Semaphore;

use super::{Stage, Zone, query, summary, zone};

/// Query and connection share one record, which the connection writes.
#[tokio::test]
async fn query_that_a_connection_follows_has_no_record() {
    let stage = Stage::new();
    let mut addresses = Vec::new();
    for name in ["followed.test.", "alone.test."] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::HTTPS] {
            let answer = stage.ask(&stage.strict, &query(name, kind)).await;
            addresses.extend(answer.answers.iter().filter_map(|record| record.data.ip_addr()));
        }
    }
    let now = stage.parts.clock.instant();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let followed = stage.parts.synthetic.connected(stage.strict.agent, addresses[0], now);
    assert_eq!(followed, Some("followed.test".parse().unwrap()));
    stage.parts.report_rest(&stage.strict);
    let records = stage.records().await;
    let reported: Vec<_> = records.iter().map(|r| (r.host.as_ref().unwrap().as_str(), r.count)).collect();
    assert_eq!(reported, [("alone.test", None), ("alone.test", Some(2))]);
}

/// Invariant 9: a flood of denied names costs a bounded number of records and no lookup.
#[tokio::test]
async fn flood_of_denied_names_is_bounded() {
    let stage = Stage::new();
    // Every lookup waits forever.
    stage.zone.open.forget_permits(Semaphore::MAX_PERMITS);
    for n in 0..5_000 {
        let answer = stage.ask(&stage.strict, &query(&format!("data{n}.evil.test."), RecordType::A)).await;
        assert_eq!(summary(&answer), "NoError synthetic");
    }
    stage.parts.report_rest(&stage.strict);
    let records = stage.records().await;
    assert!(records.len() <= 33, "{}", records.len());
    assert_eq!(records.iter().map(|record| record.count.unwrap_or(1)).sum::<u64>(), 5_000);
}

/// `dns.refused_range = ""`.
#[tokio::test]
async fn without_a_range_denied_names_are_refused() {
    let mut stage = Stage::new();
    stage.parts.synthetic = Arc::new(SyntheticAddresses::new(None));
    let answer = stage.ask(&stage.strict, &query("other.test.", RecordType::A)).await;
    assert_eq!(summary(&answer), "Refused");
    assert_eq!(stage.records().await.len(), 1, "at once");
}

/// A name that only the upstream proxy can resolve points to the daemon, which passes the name to the proxy.
#[tokio::test]
async fn name_that_only_the_proxy_knows_gets_a_synthetic_address() {
    use RecordType::{A, AAAA, TXT};
    let mut stage = Stage::new();
    stage.parts.lookup = Arc::new(Zone { proxied: true, ..zone() });
    for (name, kind, expected) in [
        ("gone.test.", A, "NoError synthetic"),
        ("gone.test.", AAAA, "NoError"),
        ("gone.test.", TXT, "NoError"),
        ("none.test.", A, "NoError synthetic"),
        ("api.test.", A, "NoError 192.0.2.1"),
        ("six.test.", A, "NoError"),
        ("broken.test.", A, "ServFail"),
        ("api.test.corp.example.", A, "NXDomain"),
    ] {
        let answer = stage.ask(&stage.strict, &query(name, kind)).await;
        assert_eq!(summary(&answer), expected, "{name} {kind}");
    }
    assert!(stage.records().await.is_empty());
    // No server of this host answers at all, and the client does not wait for one.
    let zone = Zone { proxied: true, ..zone() };
    zone.open.forget_permits(Semaphore::MAX_PERMITS);
    stage.parts.lookup = Arc::new(zone);
    let asked = stage.parts.clock.instant();
    let answer = stage.ask(&stage.strict, &query("api.test.", A)).await;
    assert_eq!(summary(&answer), "NoError synthetic");
    assert!(stage.parts.clock.instant().duration_since(asked) < Duration::from_secs(4));
}
