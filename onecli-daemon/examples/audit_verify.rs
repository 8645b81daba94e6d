//! How long it takes to verify a log: `cargo run --release --example audit_verify -- DIR RECORDS`.
//!
//! Writes a log of so many records into DIR, which must be empty, and verifies it.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a measurement, for a person")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use onecli_daemon::audit::{AuditLog, Durability, Record, Retention, Settings, Signer, Verification, verify};
use onecli_daemon::model::{CanonicalPath, Host, LogId, OsRandom, PrivateDir, RequestId, SystemClock};

/// How many records are handed over before they are waited for.
const STEP: u64 = 4096;

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(records)) = (args.next(), args.next().and_then(|n| n.parse().ok())) else {
        panic!("usage: audit_verify DIR RECORDS");
    };
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(write(Path::new(&dir), records));
    println!("{records} records written in {:.1} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let wanted = Verification { dir: dir.into(), key: None, witnessed: Vec::new(), from: None, threads: 2 };
    let verified = verify(&wanted, &|_, _| {}).unwrap();
    println!("{} records verified in {:.1} s", verified.last, started.elapsed().as_secs_f64());
}

async fn write(dir: &Path, records: u64) {
    let settings = Settings {
        clock: Arc::new(SystemClock),
        signer: Signer::from_seed(&[7; 32]).unwrap(),
        fresh: LogId::generate(jiff::Timestamp::now(), &OsRandom).unwrap(),
        known: None,
        durability: Durability::Relaxed,
        retention: Retention::default(),
        reserve: 0,
    };
    let log = AuditLog::open(&PrivateDir::create(dir).unwrap(), settings).unwrap();
    let mut record = Record::new(RequestId::generate(jiff::Timestamp::now(), &OsRandom).unwrap());
    record.agent = Some("coder".parse().unwrap());
    record.target(&Host::Name("api.example.com".to_owned()), 443);
    record.request("POST", &CanonicalPath::parse("/v1/chat/completions").unwrap());
    record.inject([(&"openai".parse().unwrap(), 3)]);
    record.address = Some("192.0.2.7:443".into());
    record.cgroup = Some("onecli-agents-coder.slice".into());
    for number in 0..records {
        log.outcome(record.clone());
        if number % STEP == STEP - 1 {
            // The queue is bounded: what does not fit would be counted as lost.
            log.decision(record.clone()).await.unwrap();
        }
    }
    log.close().await.unwrap();
}
