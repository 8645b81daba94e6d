//! Kills the daemon, or cuts the power, at random moments under load. Then compares the requests that the upstream saw
//! with the audit log.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::{Daemon, Home};
use crate::faulty::FaultyDisk;
use crate::upstream::Upstream;

const NAME: &str = "api.chaos.test";
const SECRET: &str = "sk-chaos-0123456789abcdef";
/// The number of concurrent clients.
const CLIENTS: usize = 8;
/// The longest time between two kills, in milliseconds.
const LIVES: u64 = 80;

/// The result of a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The number of times the daemon was killed.
    pub kills: u32,
    /// Requests that the upstream received.
    pub seen: usize,
    /// Requests among these that have no recorded decision: there must be none.
    pub unrecorded: usize,
    /// The number of times the log was verified.
    pub verified: u32,
    /// Alerts that report damage to the log. Half a line at its end is not damage.
    pub damaged: usize,
}

/// Kills a daemon `kills` times at moments chosen by `seed`. The log is verified after every `verify_every`th kill,
/// before the next daemon opens it, and at the end.
///
/// # Panics
/// The log does not verify, or the daemon does not start again.
#[must_use]
pub fn kills(kills: u32, seed: u64, verify_every: u32, tell: impl Fn(&Report)) -> Report {
    let upstream = Upstream::start(&[NAME]);
    let home = home(&upstream);
    run(&upstream, home, None, (kills, seed, verify_every), tell)
}

/// Like [`kills`], on a disk that loses power each time. Returns `None` and notes it if this machine cannot provide
/// such a disk.
#[must_use]
pub fn power_failures(failures: u32, seed: u64) -> Option<Report> {
    let upstream = Upstream::start(&[NAME]);
    let home = home(&upstream);
    let audit = home.data_dir().join("audit");
    std::fs::create_dir(&audit).expect("the log's directory");
    let disk = FaultyDisk::over(&audit)?;
    Some(run(&upstream, home, Some(disk), (failures, seed, 1), |_| ()))
}

fn home(upstream: &Upstream) -> Home {
    let quota = "[audit]\nagent_rate = 1000000\nagent_bytes = \"1TiB\"";
    Daemon::builder().upstream(upstream).no_ebpf().config(quota).prepare()
}

fn run(
    upstream: &Upstream,
    home: Home,
    disk: Option<FaultyDisk>,
    (kills, seed, verify_every): (u32, u64, u32),
    tell: impl Fn(&Report),
) -> Report {
    let mut daemon = Daemon::start(home);
    // Drop order: the disk is unmounted before the daemon's directory is removed.
    let disk = disk;
    let host = format!("{NAME}:{}", upstream.http_addr().port());
    daemon.add_secret("chaos", SECRET, &["--host", &host, "--bearer", "--allow-plaintext"]);
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let granted = daemon.grant(&agent, "chaos");
    let load = Load::start(daemon.explicit_addr(), &host, &agent.token, &granted.placeholder);
    let audit = daemon.home().data_dir().join("audit");
    let verify = |daemon: &Daemon| {
        let dir = audit.to_str().expect("a UTF-8 path");
        let _ = daemon.onecli(&["audit", "verify", "--dir", dir]).ok("audit verify");
    };

    let mut report = Report::default();
    let mut arrived = HashSet::new();
    let mut random = seed | 1;
    for number in 1..=kills {
        // xorshift64.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(random % LIVES));
        if let Some(disk) = &disk {
            disk.cut_power(random >> 32);
        }
        daemon.kill();
        if let Some(disk) = &disk {
            disk.heal();
        }
        if number % verify_every == 0 {
            verify(&daemon);
            report.verified += 1;
        }
        arrived.extend(upstream.requests().into_iter().map(|request| {
            assert_eq!(request.header("authorization"), Some(format!("Bearer {SECRET}").as_str()));
            request.path
        }));
        upstream.clear();
        report.kills = number;
        report.seen = arrived.len();
        if number % 50 == 0 {
            tell(&report);
        }
        daemon.restart();
    }
    load.stop();
    daemon.terminate();
    arrived.extend(upstream.requests().into_iter().map(|request| request.path));
    verify(&daemon);
    report.verified += 1;
    let (decided, damaged) = decided(&audit);
    report.seen = arrived.len();
    report.unrecorded = arrived.difference(&decided).count();
    report.damaged = damaged;
    report
}

/// Alerts in which the log reports that it was changed.
const DAMAGE: [&str; 4] = ["audit_damaged", "audit_truncated", "audit_contradicted", "audit_appended"];

/// The paths of all requests that the log records as allowed, and the number of damage alerts.
fn decided(audit: &Path) -> (HashSet<String>, usize) {
    let mut paths = HashSet::new();
    let mut damaged = 0;
    for file in std::fs::read_dir(audit).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.is_empty()) {
            let record: Value = serde_json::from_str(line).unwrap();
            if record["event"] == "decision" && record["verdict"] == "inject" {
                paths.extend(record["path"].as_str().map(str::to_owned));
            }
            let code = record["code"].as_str().unwrap_or_default();
            damaged += usize::from(DAMAGE.contains(&code));
        }
    }
    (paths, damaged)
}

/// Clients that retry without limit.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(proxy: SocketAddr, host: &str, token: &str, placeholder: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU64::new(0));
        let clients = (0..CLIENTS).map(|_| {
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
            let head = format!(
                "Host: {host}\r\nProxy-Authorization: Bearer {token}\r\nAuthorization: Bearer {placeholder}\r\n\
                 Connection: close\r\n\r\n"
            );
            let host = host.to_owned();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // Each request has a unique path, which identifies it at the upstream and in the log.
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let request = format!("GET http://{host}/chaos/{number} HTTP/1.1\r\n{head}");
                    if ask(proxy, &request).is_err() {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
            })
        });
        Self { clients: clients.collect(), stop }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

fn ask(proxy: SocketAddr, request: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&proxy, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}
