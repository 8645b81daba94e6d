//! `demo`, `bench`, `chaos`, `attack`, `rekey` and `verify-speed`: runs the programs of the `onecli-tests` package
//! against release builds of the product.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup;
use crate::shell::{build_programs, cargo, run, step, target};

/// Options passed to the program.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Options of the program itself; `--help` after `--` lists them
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn demo(args: &Args) -> Result<()> {
    run_program("demo", "demo", args)
}

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Measure only the cost of opening a secret
    #[arg(long)]
    vault: bool,
    /// Measure only the cost of matching the worst paths
    #[arg(long)]
    paths: bool,
    #[command(flatten)]
    program: Args,
}

/// The number of `connect()` measurements; an odd number has a median.
const CONNECT_ROUNDS: u32 = 21;

pub(crate) fn bench(args: &BenchArgs) -> Result<()> {
    if !args.vault {
        step("matching the worst paths (a release build of the unit tests)");
        unit_test("onecli-model", "pattern::tests::speed::worst_paths_cost_less_than_a_millisecond")?;
        if args.paths {
            return Ok(());
        }
    }
    step("opening a secret (a release build of the unit tests)");
    unit_test("onecli-vault", "tests::speed::opening_a_secret_costs_less_than_five_microseconds")?;
    if args.vault {
        return Ok(());
    }
    step("searching responses for values, in texts of every kind");
    unit_test("onecli-proxy", "scrub::tests::no_text_is_much_slower_than_a_plain_one")?;
    step("connect() without and with all kernel programs, alternately (needs root and BPF)");
    unit_test("onecli-sys", "kernel::tests::cost::connect_costs_little_more_with_all_programs")?;
    program("bench", &args.program)
}

/// Runs one unit test that measures and prints its results.
fn unit_test(package: &str, name: &str) -> Result<()> {
    let test = ["test", "--release", "--quiet", "--package", package, "--lib", name];
    let rounds = CONNECT_ROUNDS.to_string();
    run(cargo(&test).args(["--", "--nocapture"]).env("ONECLI_BENCH_ROUNDS", rounds))
}

/// Options of `chaos`.
#[derive(clap::Args)]
pub(crate) struct ChaosArgs {
    /// Number of times the daemon is killed
    #[arg(long, default_value_t = 1000)]
    kills: u32,
    /// Options of the program itself; `--help` after `--` lists them
    #[arg(last = true)]
    rest: Vec<String>,
}

pub(crate) fn chaos(args: &ChaosArgs) -> Result<()> {
    let mut rest = vec!["--kills".to_owned(), args.kills.to_string()];
    rest.extend(args.rest.iter().cloned());
    program("chaos", &Args { rest })
}

/// Options of `attack`.
#[derive(clap::Args)]
pub(crate) struct AttackArgs {
    /// Run only techniques whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Attack the programs in this directory instead of building them
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Options of the program itself; `--help` after `--` lists them
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Runs the techniques against a release build, or against existing programs.
pub(crate) fn attack(args: &AttackArgs) -> Result<()> {
    let mut rest = args.rest.clone();
    rest.extend(args.filter.iter().flat_map(|filter| ["--filter".to_owned(), filter.clone()]));
    let Some(bin_dir) = &args.bin_dir else {
        return program("attack", &Args { rest });
    };
    let bin_dir = bin_dir.canonicalize().with_context(|| format!("no directory {}", bin_dir.display()))?;
    step("building the attacks");
    run(&mut cargo(&["build", "--package", "onecli-tests", "--bin", "attack"]))?;
    step("attack");
    run(Command::new(target().join("debug/attack")).env("ONECLI_BIN_DIR", bin_dir).args(rest))
}

/// Options of `rekey`.
#[derive(clap::Args)]
pub(crate) struct RekeyArgs {
    /// Number of secrets
    #[arg(long, default_value_t = 100_000)]
    secrets: u32,
    /// Number of times the daemon is killed
    #[arg(long, default_value_t = 50)]
    kills: u32,
}

/// Runs a test that is not part of the suite, against a release build of the daemon.
pub(crate) fn rekey(args: &RekeyArgs) -> Result<()> {
    const TEST: &str = "vault::hundred_thousand_secrets_are_rekeyed_through_fifty_kills";
    setup::packages(setup::FOR_PROGRAMS)?;
    step("building onecli and onecli-daemon (release; the first time takes some minutes)");
    build_programs(&["--release"])?;
    step("re-keying");
    let test = ["test", "--package", "onecli-tests", "--test", "system", "--", "--ignored", "--exact", TEST];
    run(cargo(&test)
        .args(["--nocapture"])
        .env("ONECLI_BIN_DIR", target().join("release"))
        .env("ONECLI_REKEY_SECRETS", args.secrets.to_string())
        .env("ONECLI_REKEY_KILLS", args.kills.to_string()))
}

/// Options of `verify-speed`.
#[derive(clap::Args)]
pub(crate) struct VerifySpeedArgs {
    /// Number of records; ten million need about 4 GB of disk during the run
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Time limit for the verification
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Creates a log of this many records and verifies it within a time limit.
pub(crate) fn verify_speed(args: &VerifySpeedArgs) -> Result<()> {
    step("building the measurement (release; the first time takes some minutes)");
    let example = ["--release", "--package", "onecli-audit", "--example", "audit_verify"];
    run(cargo(&["build"]).args(example))?;
    step("writing and verifying the log");
    let dir = target().join("verify-speed");
    // The remains of an interrupted run.
    let _ = std::fs::remove_dir_all(&dir);
    let numbers = [args.records.to_string(), args.seconds.to_string()];
    let measured = run(cargo(&["run", "--quiet"]).args(example).arg("--").arg(&dir).args(numbers));
    std::fs::remove_dir_all(&dir).context("cannot remove the log of the measurement")?;
    measured
}

fn program(name: &str, args: &Args) -> Result<()> {
    run_program(name, "release", args)
}

/// Builds `onecli`, `onecli-daemon` and a program of `onecli-tests` in one go, so that each dependency is built once, and
/// runs the program.
fn run_program(name: &str, profile: &str, args: &Args) -> Result<()> {
    setup::packages(setup::FOR_PROGRAMS)?;
    step(&format!(
        "building onecli and onecli-daemon (profile {profile}; the first time takes some minutes)"
    ));
    let packages =
        ["onecli-daemon", "onecli-cli", "onecli-tests"].iter().flat_map(|name| ["--package", name]);
    let programs = ["onecli", "onecli-daemon", name];
    let mut build = cargo(&["build", "--profile", profile]);
    run(build.args(packages).args(programs.iter().flat_map(|name| ["--bin", name])))?;
    step(name);
    // Started directly, because a cargo process between would hold its lock.
    let bins = target().join(profile);
    run(Command::new(bins.join(name)).env("ONECLI_BIN_DIR", &bins).args(&args.rest))
}
