//! `cargo xtask fuzz`: runs the targets in tests/fuzz with coverage and, if its runtime is installed,
//! `AddressSanitizer`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::shell::{cargo, run, step, target, workspace};

/// All targets. Each has a corpus of the same name.
const TARGETS: &[&str] =
    &["sniff", "authority", "path", "pattern", "rule", "scrub", "noninterference", "decode", "front"];
/// Unambiguous paths, compared with real servers. This is a system test, because those servers are not instrumented.
const READINGS: &str = "readings";
/// Coverage for libFuzzer, with the flags that `cargo-fuzz` uses.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=4";

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run time of each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Build with `AddressSanitizer`, which finds memory errors in C dependencies
    #[arg(long)]
    address: bool,
    /// Run only this target
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.iter().chain([&READINGS])))]
    target: Option<String>,
}

pub(crate) fn run_targets(args: &Args) -> Result<()> {
    if args.target.as_deref().is_none_or(|wanted| wanted == READINGS) {
        readings(args.seconds)?;
    }
    if args.target.as_deref() == Some(READINGS) {
        return Ok(());
    }
    let dir = workspace().join("tests/fuzz");
    let built = target().join("fuzz");
    let host = "x86_64-unknown-linux-gnu";
    step("building the fuzz targets (the first time takes some minutes)");
    let flags = if args.address { format!("{COVERAGE} -Zsanitizer=address") } else { COVERAGE.to_owned() };
    // An explicit target, so that build scripts and macros are built without instrumentation. -Z flags need the
    // bootstrap variable.
    let mut compile = cargo(&["build", "--quiet", "--bins", "--target", host, "--target-dir"]);
    run(compile.arg(&built).current_dir(&dir).env("RUSTFLAGS", flags).env("RUSTC_BOOTSTRAP", "1"))?;
    let chosen: Vec<&str> = TARGETS
        .iter()
        .copied()
        .filter(|name| args.target.as_deref().is_none_or(|wanted| wanted == *name))
        .collect();
    let mut failed = Vec::new();
    for name in chosen {
        step(&format!("fuzzing {name} for {} s", args.seconds));
        // New inputs are stored outside the committed seeds.
        let found: PathBuf = built.join("corpus").join(name);
        let artifacts = built.join("artifacts").join(name);
        for dir in [&found, &artifacts] {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let mut command = std::process::Command::new(built.join(host).join("debug").join(name));
        command
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([
                "-max_len=4096",
                "-timeout=10",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                "-verbosity=0",
            ])
            .arg(&found)
            .arg(dir.join("corpus").join(name));
        if run(&mut command).is_err() {
            failed.push(format!("{name} (see {})", artifacts.display()));
        }
    }
    if !failed.is_empty() {
        bail!("a property is violated: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs the system test of that name, for longer and with a new random seed each time.
fn readings(seconds: u32) -> Result<()> {
    const TEST: &str = "path_readings::unambiguous_paths_are_read_alike_by_all_servers";
    step(&format!("generating paths for nginx, Apache, Node, Go and Python for {seconds} s"));
    setup::packages(setup::FOR_TESTS)?;
    let test = ["test", "--quiet", "--package", "onecli-tests", "--test", "system", TEST];
    run(cargo(&test)
        .args(["--", "--exact", "--nocapture"])
        .env("ONECLI_READINGS_SECONDS", seconds.to_string())
        .env("ONECLI_READINGS_SEED", std::process::id().to_string()))
}
