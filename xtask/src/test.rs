//! `cargo xtask test`: set-up, tidy, unit tests and system tests, then the list of skipped parts.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::shell::{self, cargo, has, step, target, workspace};
use crate::{setup, tidy};

/// Options of the command.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the fast part of the suite: without documentation examples and tests named `slow_*`
    #[arg(long)]
    quick: bool,
    /// Run only tests whose name contains this
    filter: Option<String>,
}

#[expect(clippy::disallowed_methods, reason = "progress is reported in real seconds")]
pub(crate) fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let done = |what: &str| step(&format!("{what} ({} s)", started.elapsed().as_secs()));

    done("set-up for the tests");
    setup::packages(setup::FOR_TESTS)?;
    setup::python_clients()?;
    setup::openbao()?;
    setup::claude_code()?;

    done("tidy");
    tidy::run(workspace())?;

    done("building");
    shell::build_programs(&[])?;

    if !args.quick && args.filter.is_none() {
        done("documentation examples");
        shell::run(&mut cargo(&["test", "--quiet", "--workspace", "--doc"]))?;
    }

    done("tests");
    let not_run = target().join("test-tools/not-run.txt");
    if not_run.exists() {
        fs::remove_file(&not_run)?;
    }
    let outcome = shell::run(
        suite(args).env("ONECLI_BIN_DIR", target().join("debug")).env("ONECLI_TEST_NOT_RUN", &not_run),
    );
    done("end of the tests");
    say_not_run(&fs::read_to_string(&not_run).unwrap_or_default(), args.quick);
    outcome
}

/// The suite under nextest, or under cargo's own runner if nextest is not installed.
fn suite(args: &Args) -> Command {
    if has("cargo-nextest") {
        let profile = if args.quick { "quick" } else { "default" };
        let mut command =
            cargo(&["nextest", "run", "--workspace", "--no-tests", "fail", "--profile", profile]);
        command.args(&args.filter);
        return command;
    }
    let mut command = cargo(&["test", "--workspace", "--lib", "--bins", "--tests"]);
    command.args(&args.filter).arg("--");
    if args.quick {
        command.args(["--skip", "slow_"]);
    }
    command
}

fn say_not_run(list: &str, quick: bool) {
    let mut lines: Vec<_> = list.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    if quick {
        lines.push("tests named slow_* and documentation examples: skipped by --quick");
    }
    if lines.is_empty() {
        println!("Nothing was skipped.");
        return;
    }
    println!("Not run:");
    for line in lines {
        println!("  {line}");
    }
}
