//! `cargo xtask chaos`: kills the daemon at random moments under load, and compares the requests at the upstream with
//! the audit log.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for the user")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use clap::Parser;
use onecli_tests::chaos;

#[derive(Parser)]
#[command(about = "Kill the daemon at random moments under load; verify its audit log")]
struct Cli {
    /// Number of kills
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// Seed that chooses the moments; printed at the start, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Verify the log after every Nth kill
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    verify_every: u32,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| {
        SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| u64::from(now.subsec_nanos()) + now.as_secs())
    });
    println!("seed {seed}");
    let started = Instant::now();
    let tell = |report: &chaos::Report| {
        eprintln!(
            "{} kills, {} requests at the upstream, {} s",
            report.kills,
            report.seen,
            started.elapsed().as_secs()
        );
    };
    let report = chaos::kills(cli.kills, seed, cli.verify_every, tell);
    println!(
        "{} kills in {} s: the upstream saw {} requests, {} of them without a recorded decision; log verified {} times, {} damage alerts",
        report.kills,
        started.elapsed().as_secs(),
        report.seen,
        report.unrecorded,
        report.verified,
        report.damaged
    );
    if report.unrecorded == 0 && report.damaged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
