//! The command-line client.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    onecli_cli::main()
}
