//! The main function of `onecli`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use onecli_api::ErrorDetail;

use super::args::{Args, Command, definition};
use super::client::Client;
use super::commands::{completions, doctor, run};
use super::dispatch::dispatch;
use super::error::CliError;
use super::output::{Output, print_error, print_report};
use super::unparsed::{asks_for_json, color_of, names_run};

/// The time that `status` and `doctor` wait for a response.
const DIAGNOSTIC_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match completions::print_candidates(&arguments, definition) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            return ExitCode::from(2);
        }
    }
    let args = match Args::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(refused) => return ExitCode::from(refuse(&refused, &arguments)),
    };
    args.color.write_global();
    let client = match args.command {
        // These commands are used to diagnose a fault, so they time out early.
        Command::Status | Command::Doctor(_) => Client::with_timeout(args.socket, DIAGNOSTIC_TIMEOUT),
        _ => Client::new(args.socket),
    };
    if let Command::Run(command) = args.command {
        return ExitCode::from(run::run(&client, args.json, command));
    }
    if let Command::Launcher(command) = args.command {
        return ExitCode::from(run::launcher(&client, command));
    }
    if let Command::SelfTestProbe { address } = args.command {
        return match doctor::probe(address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                print_error(&error);
                ExitCode::FAILURE
            }
        };
    }
    let mut output = Output::new(args.json);
    let done = match &args.command {
        Command::Doctor(args) => doctor::doctor(&client, args, &mut output),
        _ => dispatch(&client, args.command, &mut output).map(|()| true),
    };
    let code = match done.and_then(|is_well| output.finish().map(|()| is_well).map_err(CliError::Output)) {
        Ok(is_well) => u8::from(!is_well),
        Err(error) if error.is_closed_pipe() => 0,
        Err(error) => {
            // Flush the output before the error.
            let _ = output.finish();
            print_report(&error.report(), output.is_json());
            error.exit_code()
        }
    };
    ExitCode::from(code)
}

/// Prints help, the version, or the error of a command line that does not parse.
fn refuse(refused: &clap::Error, arguments: &[OsString]) -> u8 {
    color_of(arguments).write_global();
    let is_run = names_run(arguments);
    if refused.exit_code() != 0 && asks_for_json(arguments) {
        let text = refused.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
        print_report(&ErrorDetail::new("usage", &text), true);
        return if is_run { run::EXIT_NOT_STARTED } else { 2 };
    }
    match (refused.print(), refused.exit_code()) {
        (Err(_), 0) => 1,
        (Ok(()), 0) => 0,
        _ if is_run => run::EXIT_NOT_STARTED,
        _ => 2,
    }
}
