//! The daemon's command line.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser};
use onecli_config::Overrides;

/// The OneCLI daemon: stores credentials, and injects them into requests of authorized agents.
#[derive(Debug, Parser)]
#[command(
    name = "onecli-daemon",
    version,
    after_help = "\
Flags take precedence over the configuration file, and every setting has a default. Without --config, the daemon reads
/etc/onecli/config.toml if it exists. Exit codes: 0 success, 1 failure, 2 usage, 78 bad configuration or wrong key."
)]
pub(crate) struct DaemonArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of key, database, CA and audit log.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// An address of the explicit proxy; may be given again. Replaces the configured addresses.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// The path of the admin socket.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The database's URL.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// The cgroup whose children are the agents' cgroups, below the cgroup2 mount.
    #[arg(long, value_name = "PATH")]
    pub agents_root: Option<String>,
    /// Serve the explicit proxy only; do not redirect connections.
    #[arg(long)]
    pub no_ebpf: bool,
    /// A file with a passphrase or a recovery key that opens the vault; '-' for standard input.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Read a base64 key from `ONECLI_ROOT_KEY`. Every process that may read this process's environment can read the
    /// key.
    #[arg(long)]
    pub insecure_key_from_env: bool,
    /// Check the configuration, print the result, and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Remove the pinned kernel programs and exit. Managed processes are then neither redirected nor refused.
    #[arg(long, conflicts_with = "check_config")]
    pub detach: bool,
    /// Remove the pinned kernel programs and exit, as the package's removal does. Refused while a process runs in an
    /// agent's cgroup (exit code 3). Prints the directories of those cgroups and, if the programs remain, the directory
    /// of the pins.
    #[arg(long, conflicts_with_all = ["check_config", "detach"])]
    pub retire: bool,
    /// Run as the helper of an unprivileged daemon: attach the kernel programs, then perform privileged operations for
    /// the daemon that connects. Started by onecli-helper.socket.
    #[arg(long, conflicts_with_all = ["check_config", "detach", "helper_socket"])]
    pub helper: bool,
    /// Connect to the helper on this socket, and run unprivileged. Default: root starts the daemon, which forks its
    /// helper.
    #[arg(long, value_name = "PATH")]
    pub helper_socket: Option<PathBuf>,
    /// Run as the executor of an unprivileged daemon: run the commands that print values, as this process's user, which
    /// is neither root nor the daemon's user. Started by onecli-executor.socket.
    #[arg(long, conflicts_with_all = ["check_config", "detach", "helper", "helper_socket", "executor_socket"])]
    pub executor: bool,
    /// The socket of the executor that runs commands that print values. Default: a daemon started by root forks one.
    #[arg(long, value_name = "PATH")]
    pub executor_socket: Option<PathBuf>,
    /// Replace the database by a backup and exit; see 'onecli restore --help'.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check_config", "detach"])]
    pub restore: Option<PathBuf>,
    /// With --restore: check the backup, and change nothing.
    #[arg(long, requires = "restore")]
    pub dry_run: bool,
    /// With --restore: print results and errors as JSON.
    #[arg(long, requires = "restore")]
    pub json: bool,
    /// Write the manual page and end, for packages.
    #[arg(long, value_name = "FILE", hide = true)]
    pub manual: Option<PathBuf>,
}

impl DaemonArgs {
    /// Takes the flags that override the configuration file.
    pub(crate) fn take_overrides(&mut self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.take(),
            listen: std::mem::take(&mut self.listen),
            admin_socket: self.admin_socket.take(),
            store: self.store.take(),
            agents_root: self.agents_root.take(),
            no_ebpf: self.no_ebpf,
            helper_socket: self.helper_socket.take(),
            executor_socket: self.executor_socket.take(),
            passphrase_file: self.passphrase_file.take(),
            insecure_key_from_env: self.insecure_key_from_env,
        }
    }
}

/// Writes the manual page, `onecli-daemon.8`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write_manual(file: &Path) -> io::Result<()> {
    let page = clap_mangen::Man::new(DaemonArgs::command()).section("8").manual("System administration");
    page.render(&mut File::create(file)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn manual_page_describes_the_options() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("onecli-daemon.8");
        super::write_manual(&file).unwrap();
        let page = std::fs::read_to_string(file).unwrap();
        assert!(page.contains("data\\-dir") && !page.contains("\\-\\-manual"), "{page}");
    }
}
