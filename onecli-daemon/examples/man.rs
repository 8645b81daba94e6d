//! Writes the manual pages into a directory, for the package: `cargo run --example man -- DIRECTORY`.
//!
//! An example, so that what makes manual pages is no dependency of the programs.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use onecli_daemon::cli;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("which directory?")?);
    fs::create_dir_all(&directory)?;
    // onecli.1, onecli-agent.1, onecli-agent-add.1, ...
    clap_mangen::generate_to(cli::definition(), &directory)?;
    let mut page = Vec::new();
    let daemon = cli::DaemonArgs::command();
    clap_mangen::Man::new(daemon).section("8").manual("System administration").render(&mut page)?;
    fs::write(directory.join("onecli-daemon.8"), page)?;
    Ok(())
}
