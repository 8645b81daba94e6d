//! The daemon: reads its configuration and runs the command that its arguments name.

#![forbid(unsafe_code)]

mod agents;
mod args;
mod audit;
mod authority;
mod backends;
mod commands;
mod data_dir;
mod executor;
mod helper;
mod host;
mod names;
mod policy;
mod process;
mod restore;
mod run;
mod serving;
mod shutdown;
mod upstream_proxy;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use onecli_api::ErrorDetail;
use onecli_config::{Config, Overrides};
use onecli_model::printable_json;

use args::{DaemonArgs, write_manual};

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let args = DaemonArgs::parse();
    if let Some(file) = &args.manual {
        return match write_manual(file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(io::stderr(), "onecli-daemon: {}: {error}", file.display());
                ExitCode::FAILURE
            }
        };
    }
    let flags = Overrides {
        data_dir: args.data_dir,
        listen: args.listen,
        admin_socket: args.admin_socket,
        store: args.store,
        agents_root: args.agents_root,
        no_ebpf: args.no_ebpf,
        helper_socket: args.helper_socket,
        executor_socket: args.executor_socket,
        passphrase_file: args.passphrase_file,
        insecure_key_from_env: args.insecure_key_from_env,
    };
    match Config::load(args.config.as_deref(), flags) {
        Err(error) => {
            complain("bad_config", &error, args.json);
            commands::tell_failure(&error);
            ExitCode::from(BAD_CONFIG)
        }
        Ok(config) if args.check_config => match commands::check_files(&config) {
            Ok(()) => {
                let _ = writeln!(io::stdout(), "the configuration is valid");
                ExitCode::SUCCESS
            }
            Err(error) => {
                let _ = writeln!(io::stderr(), "onecli-daemon: {error}");
                ExitCode::from(BAD_CONFIG)
            }
        },
        Ok(config) if args.detach => commands::detach(&config),
        Ok(config) if args.retire => commands::retire(&config, &mut io::stdout()),
        Ok(config) if args.helper => commands::help(&config),
        Ok(config) if args.executor => commands::execute(&config),
        Ok(config) => match args.restore {
            Some(file) => match restore::restore(&config, &file, args.dry_run) {
                Ok(report) => {
                    let text = if args.json { report.json() } else { report.to_string() };
                    let _ = writeln!(io::stdout(), "{text}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    complain("failed", &error, args.json);
                    ExitCode::from(error.exit_code())
                }
            },
            None => run::run(config),
        },
    }
}

fn complain(code: &str, error: &dyn std::fmt::Display, json: bool) {
    let _ = if json {
        let body = serde_json::json!({ "error": ErrorDetail::new(code, error) });
        writeln!(io::stderr(), "{}", printable_json(&body.to_string()))
    } else {
        writeln!(io::stderr(), "onecli-daemon: {error}")
    };
}
