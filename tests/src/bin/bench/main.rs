//! `cargo xtask bench`: measures the cost of the proxy, with all ways side by side in one run.
//!
//! Four ways to the same upstream take turns, round by round, so that load changes on the machine affect all of them:
//!
//! - directly to it
//! - through the explicit listener
//! - through the explicit listener of a daemon whose audit log is relaxed
//! - redirected out of a managed cgroup
//!
//! Each round is a separate process (`bench load`); `onecli run` starts the one for the last way. The figures are
//! medians over rounds. The ratio to the direct way is the comparable result.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for the user")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod load;
mod report;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use onecli_tests::client::Run;
use onecli_tests::daemon::{Agent, Daemon, Granted};
use onecli_tests::need;
use onecli_tests::upstream::Upstream;
use tempfile::TempDir;

use load::{Load, Measured};
use report::Report;

const EXPLICIT: &str = "explicit";
const RELAXED: &str = "relaxed audit";
const API: &str = "api.bench.test";
const SECRET: &str = "sk-bench-0123456789abcdef";
const KEY: &str = "BENCH_API_KEY";

#[derive(Parser)]
#[command(about = "Measure the cost of the proxy, side by side")]
struct Cli {
    /// Rounds per workload; an odd number has a median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Milliseconds per round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    millis: u64,
    /// Only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One round, in a separate process
    #[command(hide = true)]
    Load(Load),
}

/// A kind of traffic.
#[derive(Clone, Copy)]
struct Workload {
    name: &'static str,
    path: &'static str,
    connections: u32,
    upload: usize,
    new_connections: bool,
    /// The minimum duration of a round, in milliseconds.
    least: u64,
}

/// A large quota, because one agent makes all the load.
const QUOTA: &str = "[audit]\nagent_rate = 1000000\nagent_bytes = \"1TiB\"";

const MIB: usize = 1 << 20;
const SMALL: Workload =
    Workload { name: "", path: "/bytes/64", connections: 1, upload: 0, new_connections: false, least: 0 };
// A relaxed log is imported into the database once a second. Rounds of one second would shift that work to the next
// way.
const CROWD: Workload =
    Workload { name: "small requests, 32 connections", connections: 32, least: 4000, ..SMALL };
/// The allowed throughput ratio for many connections between a relaxed log and one that waits for the disk.
const STRICT_COSTS: f64 = 1.3;
const WORKLOADS: &[Workload] = &[
    Workload { name: "small requests, 1 connection", ..SMALL },
    CROWD,
    Workload { name: "1 MiB down, 1 connection", path: "/bytes/1048576", ..SMALL },
    Workload { name: "1 MiB up, 1 connection", path: "/upload", upload: MIB, ..SMALL },
    Workload { name: "new connection per request", new_connections: true, ..SMALL },
];

/// A way to the upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Explicit,
    /// The explicit listener, with an audit log that does not wait for the disk.
    Relaxed,
    Transparent,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Command::Load(load)) = &cli.command {
        return load::run(load);
    }
    let bench = Bench::set_up()?;
    let mut ways = vec![("direct", Way::Direct), (EXPLICIT, Way::Explicit), (RELAXED, Way::Relaxed)];
    let missing = need::bpf_missing();
    if missing.is_none() {
        ways.push(("transparent", Way::Transparent));
    }
    let names: Vec<_> = ways.iter().map(|(name, _)| *name).collect();
    let mut report = Report::new(&names);
    report.bound((EXPLICIT, RELAXED), CROWD.name, STRICT_COSTS);
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(&cli.only)) {
        let mut measured = vec![Vec::new(); ways.len()];
        for round in 0..cli.rounds {
            eprint!("\r{:<34} round {} of {}  ", workload.name, round + 1, cli.rounds);
            for (of_way, (_, way)) in measured.iter_mut().zip(&ways) {
                of_way.push(bench.round(*way, workload, cli.millis.max(workload.least))?);
            }
        }
        report.add(workload.name, &measured);
    }
    eprintln!();
    print!("{report}");
    if let Some(why) = missing {
        println!("\nNot measured: transparent ({why}).");
    }
    Ok(())
}

/// The parts shared by all rounds.
struct Bench {
    daemon: Daemon,
    relaxed: Daemon,
    upstream: Upstream,
    inside: Option<Agent>,
    outside: (Agent, Granted),
    outside_relaxed: (Agent, Granted),
    /// A copy of this program that the agent's user can start. It contains a value, so it is not in the daemon's
    /// directory, which must contain none.
    program: PathBuf,
    _dir: TempDir,
}

impl Bench {
    fn set_up() -> Result<Self> {
        let upstream = Upstream::builder(&[API]).unrecorded().start();
        let daemon = Daemon::builder().upstream(&upstream).config(QUOTA).start();
        let relaxed = Daemon::builder().upstream(&upstream).no_ebpf().config(QUOTA);
        let relaxed = relaxed.config("[audit]\ndurability = \"relaxed\"").start();
        let host = format!("{API}:{}", upstream.https_addr().port());
        let outside = |daemon: &Daemon| {
            daemon.add_secret("bench", SECRET, &["--host", &host, "--bearer", "--env", KEY]);
            let agent = daemon.add_agent("outside", &["--factors", "token"]);
            let granted = daemon.grant(&agent, "bench");
            (agent, granted)
        };
        let (outside, outside_relaxed) = (outside(&daemon), outside(&relaxed));
        let inside = need::bpf_missing().is_none().then(|| {
            let agent = daemon.add_agent("inside", &["--factors", "token,cgroup", "--user", "nobody"]);
            let _ = daemon.grant(&agent, "bench");
            agent
        });
        let dir = tempfile::Builder::new()
            .prefix("onecli-bench-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()?;
        let program = dir.path().join("bench");
        std::fs::copy(std::env::current_exe()?, &program).context("copy this program")?;
        std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
        Ok(Self { daemon, relaxed, upstream, inside, outside, outside_relaxed, program, _dir: dir })
    }

    fn round(&self, way: Way, workload: &Workload, millis: u64) -> Result<Measured> {
        let mut run = Run::new(&self.program)
            .args(["load", "--name", API, "--path", workload.path])
            .args(["--address", &self.upstream.https_addr().to_string()])
            .args(["--connections", &workload.connections.to_string()])
            .args(["--upload", &workload.upload.to_string(), "--millis", &millis.to_string()])
            .timeout(Duration::from_millis(millis) + Duration::from_secs(30));
        if workload.new_connections {
            run = run.arg("--new-connections");
        }
        let ca = |run: Run, file: &Path| run.env("SSL_CERT_FILE", file);
        let run = match (way, &self.inside) {
            (Way::Transparent, Some(agent)) => self.daemon.managed(agent, &run.args(["--key-from", KEY])),
            (Way::Explicit | Way::Relaxed, _) => {
                let (daemon, (agent, granted)) = match way {
                    Way::Relaxed => (&self.relaxed, &self.outside_relaxed),
                    _ => (&self.daemon, &self.outside),
                };
                let run = run.args(["--proxy", &daemon.explicit_addr().to_string()]);
                let run = run.args(["--key-from", KEY]).env(KEY, &granted.placeholder);
                ca(run.env("BENCH_TOKEN", &agent.token), &daemon.ca_file())
            }
            _ => ca(run.args(["--key-from", KEY]).env(KEY, SECRET), self.upstream.ca_file()),
        };
        let outcome = run.outcome();
        let out = outcome.ok(workload.name);
        Measured::parse(&out).with_context(|| format!("{}: {outcome:?}", workload.name))
    }
}
