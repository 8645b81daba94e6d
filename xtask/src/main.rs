//! OneCLI's developer commands: `cargo xtask --help`.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool for developers")]

mod deb;
mod ebpf;
mod fuzz;
#[cfg(test)]
mod links;
mod programs;
mod setup;
mod shell;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use shell::workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "OneCLI's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Demonstrate the main features on this machine with temporary parts, and leave nothing behind
    Demo(programs::Args),
    /// Measure direct, explicit and transparent requests side by side, and print ratios
    Bench(programs::BenchArgs),
    /// Kill the daemon at random moments under load, and compare the requests at the upstream with the audit log
    Chaos(programs::ChaosArgs),
    /// Try every known attack technique of an agent against a release build, each with a control, and print a table
    Attack(programs::AttackArgs),
    /// Build the kernel programs into onecli-ebpf/onecli-ebpf.o
    Ebpf(ebpf::EbpfArgs),
    /// Build the Debian package in target/debian
    Deb(deb::Args),
    /// Re-key many secrets while requests run and the daemon is killed repeatedly, and check that all of them open
    Rekey(programs::RekeyArgs),
    /// Verify an audit log of ten million records, and fail if that takes more than a minute
    VerifySpeed(programs::VerifySpeedArgs),
    /// Run each fuzz target of tests/fuzz for a limited time
    Fuzz(fuzz::Args),
    /// Install the requirements of the tests and run the whole suite
    Test(test::Args),
    /// Install, use, crash, upgrade and remove the package on a stock Debian in an emulated machine
    Vm(vm::Args),
    /// Check layout, dependency direction and house rules
    Tidy,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(args) => programs::demo(&args),
        Command::Bench(args) => programs::bench(&args),
        Command::Chaos(args) => programs::chaos(&args),
        Command::Attack(args) => programs::attack(&args),
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Deb(args) => deb::run(&args),
        Command::Rekey(args) => programs::rekey(&args),
        Command::VerifySpeed(args) => programs::verify_speed(&args),
        Command::Fuzz(args) => fuzz::run_targets(&args),
        Command::Test(args) => test::run(&args),
        Command::Vm(args) => vm::test(&args),
        Command::Tidy => tidy::run(workspace()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
