//! The daemon: reads its configuration and hands it to [`onecli_daemon::app`].

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use onecli_daemon::config::{Config, Overrides};

/// `EX_CONFIG` of sysexits.h.
const BAD_CONFIG: u8 = 78;

/// OneCLI's daemon: holds credentials, and uses them for agents that may.
#[derive(Debug, Parser)]
#[command(
    name = "onecli-daemon",
    version,
    after_help = "\
Flags win over the configuration file; what neither says has a default. Without --config, /etc/onecli/config.toml is
read if it exists. Exit codes: 0 done, 1 failed, 2 usage, 78 bad configuration or wrong key."
)]
struct Args {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where key, database, CA and audit log live.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the explicit proxy; may be given again. Replaces the configured ones.
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// The admin socket.
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// The database's URL.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// The cgroup whose children are the agents', below the cgroup2 mount.
    #[arg(long, value_name = "PATH")]
    agents_root: Option<String>,
    /// Serve the explicit proxy only; do not redirect connections.
    #[arg(long)]
    no_ebpf: bool,
    /// A file with a passphrase or a recovery key that opens the vault; '-' for standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Take a key in base64 from `ONECLI_ROOT_KEY`: everybody who may read this process's environment has it.
    #[arg(long)]
    insecure_key_from_env: bool,
    /// Read the configuration, say whether it is good, and end.
    #[arg(long)]
    check_config: bool,
    /// Remove the pinned kernel programs and end: managed processes are no longer redirected, nor refused.
    #[arg(long, conflicts_with = "check_config")]
    detach: bool,
    /// Put a backup in the database's place and end: see 'onecli restore --help'.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check_config", "detach"])]
    restore: Option<PathBuf>,
    /// With --restore: check, and change nothing.
    #[arg(long, requires = "restore")]
    dry_run: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let flags = Overrides {
        data_dir: args.data_dir,
        listen: args.listen,
        admin_socket: args.admin_socket,
        store: args.store,
        agents_root: args.agents_root,
        no_ebpf: args.no_ebpf,
        passphrase_file: args.passphrase_file,
        insecure_key_from_env: args.insecure_key_from_env,
    };
    match Config::load(args.config.as_deref(), flags) {
        Err(error) => {
            let _ = writeln!(io::stderr(), "onecli-daemon: {error}");
            ExitCode::from(BAD_CONFIG)
        }
        Ok(_) if args.check_config => {
            let _ = writeln!(io::stdout(), "the configuration is good");
            ExitCode::SUCCESS
        }
        Ok(config) if args.detach => onecli_daemon::app::detach(&config),
        Ok(config) => match args.restore {
            Some(file) => match onecli_daemon::app::restore(&config, &file, args.dry_run) {
                Ok(report) => {
                    let _ = writeln!(io::stdout(), "{report}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    let _ = writeln!(io::stderr(), "onecli-daemon: {error}");
                    ExitCode::from(error.exit_code())
                }
            },
            None => onecli_daemon::app::run(config),
        },
    }
}
