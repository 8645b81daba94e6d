//! How long it takes to verify a log: `cargo xtask verify-speed`, which runs `audit_verify DIR RECORDS SECONDS`.
//!
//! Writes a log of so many records into DIR, which must be empty, and verifies it. Fails where that takes longer.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a measurement, for a person")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onecli_audit::{AuditLog, Durability, Record, Retention, Settings, Signer, Verification, verify};
use onecli_model::{CanonicalPath, Host, LogId, RequestId};
use onecli_sys::{OsRandom, PrivateDir, SystemClock};

/// How many records are handed over before they are waited for.
const STEP: u64 = 4096;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let dir = args.next();
    let mut number = || args.next().and_then(|number| number.parse::<u64>().ok());
    let (Some(dir), Some(records), Some(most)) = (dir, number(), number()) else {
        panic!("usage: audit_verify DIR RECORDS SECONDS");
    };
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(write(Path::new(&dir), records));
    println!("{records} records written in {:.1} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let wanted = Verification { dir: dir.into(), key: None, witnessed: Vec::new(), from: None, threads: 2 };
    let verified = verify(&wanted, &|_, _| {}).unwrap();
    let took = started.elapsed();
    let rate = u128::from(verified.last) * 1000 / took.as_millis().max(1);
    println!(
        "{} records verified in {:.1} s, {rate} a second; wanted: at most {most} s",
        verified.last,
        took.as_secs_f64()
    );
    // What is said of the log itself comes on top.
    let all_there = verified.last >= records && verified.signed == verified.last;
    if all_there && took <= Duration::from_secs(most) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
