//! `cargo xtask attack`: attack techniques of an agent, each tried against running programs and each with a control.
//!
//! A row counts only if its control behaves as expected. The control is a request that must succeed, or the same
//! technique without the defence. `docs/security/attacks.md` lists techniques, defences and tests. The escape suite
//! (`tests/system/escape`) does the same for attempts to bypass the kernel programs.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed set-up ends the row, with the reason as the message"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for the user")]
#![allow(clippy::disallowed_methods, reason = "it waits and measures in real time")]

#[cfg(test)]
mod docs;
mod report;
mod stage;
mod techniques;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use report::Report;
use stage::row::{Row, Trial};

#[derive(Parser)]
#[command(name = "attack", about = "Try attack techniques against the programs, each with a control")]
struct Cli {
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    filter: String,
    /// Only the rows that the test suite runs
    #[arg(long)]
    quick: bool,
    /// Print the names of the rows and run none
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let rows: Vec<&Row> = techniques::table::rows()
        .filter(|row| row.name.contains(&cli.filter) && (row.quick || !cli.quick))
        .collect();
    if rows.is_empty() {
        eprintln!("error: no row matches '{}'; --list prints the names", cli.filter);
        return ExitCode::FAILURE;
    }
    if cli.list {
        for row in rows {
            println!("{}", row.name);
        }
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    for (number, row) in (1..).zip(&rows) {
        eprint!("{number:>3} of {} {:<34} ", rows.len(), row.name);
        let started = Instant::now();
        let trial = attempt(row);
        eprintln!("{:<8} {:>5.1} s", trial.verdict(), started.elapsed().as_secs_f64());
        report.add(row, trial);
    }
    print!("{report}");
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one row. A panic ends only that row.
fn attempt(row: &Row) -> Trial {
    let mut trial = Trial::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| (row.run)(&mut trial)));
    if let Err(panic) = outcome {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        trial.crashed(text.unwrap_or("no message").lines().next().unwrap_or_default());
    }
    trial
}
