//! The daemon: reads its configuration and runs the command that its arguments name.

#![forbid(unsafe_code)]

mod agents;
mod args;
mod audit;
mod backends;
mod build;
mod certificate_authority;
mod commands;
mod data_dir;
mod executor;
mod helper;
mod host;
mod names;
mod policy;
mod privileged;
mod process;
mod restore;
mod run;
mod serving;
mod shutdown;
mod tasks;
mod upstream_proxy;

use std::process::ExitCode;

use clap::Parser;
use onecli_config::Config;

use args::DaemonArgs;

fn main() -> ExitCode {
    let mut args = DaemonArgs::parse();
    if let Some(file) = &args.manual {
        return commands::manual(file);
    }
    let overrides = args.take_overrides();
    let config = match Config::load(args.config.as_deref(), overrides) {
        Ok(config) => config,
        Err(error) => return commands::bad_config(&error, args.json),
    };
    match &args.restore {
        _ if args.check_config => commands::check_config(&config),
        _ if args.detach => commands::detach(&config),
        _ if args.retire => commands::retire(&config),
        _ if args.helper => commands::help(&config),
        _ if args.executor => commands::execute(&config),
        Some(backup) => commands::restore(&config, backup, args.dry_run, args.json),
        None => run::run(config),
    }
}
