//! The command-line client.

use std::process::ExitCode;

fn main() -> ExitCode {
    onecli_daemon::cli::main()
}
