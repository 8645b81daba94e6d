//! Kills the daemon at random moments under load, again and again, and holds what the upstream saw against the record.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::upstream::Upstream;

const NAME: &str = "api.chaos.test";
const SECRET: &str = "sk-chaos-0123456789abcdef";
/// Clients at a time.
const CLIENTS: usize = 8;
/// The longest time between two kills, in milliseconds.
const LIVES: u64 = 80;

/// What came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// How often the daemon was killed.
    pub kills: u32,
    /// Requests that the upstream saw.
    pub seen: usize,
    /// Of these, those without a decision on record: there must be none.
    pub unrecorded: usize,
    /// How often the log was verified.
    pub verified: u32,
}

/// Kills a daemon `kills` times at moments that `seed` chooses. The log is verified after every `verify_every`th kill,
/// before the next daemon sees it, and at the end.
///
/// # Panics
/// Where the log is not verified, or the daemon does not start again.
#[must_use]
pub fn run(kills: u32, seed: u64, verify_every: u32, tell: impl Fn(&Report)) -> Report {
    let upstream = Upstream::start(&[NAME]);
    let mut daemon = Daemon::builder()
        .upstream(&upstream)
        .no_ebpf()
        .config("[audit]\nagent_rate = 1000000\nagent_bytes = \"1TiB\"")
        .start();
    let host = format!("{NAME}:{}", upstream.http_addr().port());
    daemon.add_secret("chaos", SECRET, &["--host", &host, "--bearer", "--allow-plaintext"]);
    let agent = daemon.add_agent("agent", &["--factors", "token"]);
    let granted = daemon.grant(&agent, "chaos");
    let load = Load::start(daemon.explicit_addr(), &host, &agent.token, &granted.placeholder);
    let audit = daemon.home().data_dir().join("audit");
    let verify = |daemon: &Daemon| {
        let dir = audit.to_str().expect("a path of ours");
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
        daemon.kill();
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
    let decided = decided(&audit);
    report.seen = arrived.len();
    report.unrecorded = arrived.difference(&decided).count();
    report
}

/// The paths of all requests that the log says were let through.
fn decided(audit: &Path) -> HashSet<String> {
    let mut paths = HashSet::new();
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
        }
    }
    paths
}

/// Clients that never give up.
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
                    // Each has a path of its own, so that it is found again on both sides.
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
