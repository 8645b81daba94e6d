//! OneCLI's developer commands.

mod ebpf;

use clap::{Parser, Subcommand};

/// OneCLI's developer commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel programs into onecli-ebpf/onecli-ebpf.o
    Ebpf(ebpf::EbpfArgs),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Ebpf(args) => ebpf::run(&args),
    }
}
