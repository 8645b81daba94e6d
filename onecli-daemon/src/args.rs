//! The daemon's command line.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser};

/// OneCLI's daemon: holds credentials, and uses them for agents that may.
#[derive(Debug, Parser)]
#[command(
    name = "onecli-daemon",
    version,
    after_help = "\
Flags win over the configuration file; what neither says has a default. Without --config, /etc/onecli/config.toml is
read if it exists. Exit codes: 0 done, 1 failed, 2 usage, 78 bad configuration or wrong key."
)]
pub(crate) struct DaemonArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where key, database, CA and audit log live.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the explicit proxy; may be given again. Replaces the configured ones.
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// The admin socket.
    #[arg(long, value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The database's URL.
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// The cgroup whose children are the agents', below the cgroup2 mount.
    #[arg(long, value_name = "PATH")]
    pub agents_root: Option<String>,
    /// Serve the explicit proxy only; do not redirect connections.
    #[arg(long)]
    pub no_ebpf: bool,
    /// A file with a passphrase or a recovery key that opens the vault; '-' for standard input.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Take a key in base64 from `ONECLI_ROOT_KEY`: everybody who may read this process's environment has it.
    #[arg(long)]
    pub insecure_key_from_env: bool,
    /// Read the configuration, say whether it is good, and end.
    #[arg(long)]
    pub check_config: bool,
    /// Remove the pinned kernel programs and end: managed processes are no longer redirected, nor refused.
    #[arg(long, conflicts_with = "check_config")]
    pub detach: bool,
    /// Remove the pinned kernel programs and end, as the package's removal does: not while a process runs in an agent's
    /// cgroup (exit code 3). Prints the directories of those cgroups and, where the programs stay, that of the pins.
    #[arg(long, conflicts_with_all = ["check_config", "detach"])]
    pub retire: bool,
    /// Be the helper of a daemon without privileges: attach the kernel programs, then do what needs privileges for the
    /// daemon that connects. Started by onecli-helper.socket.
    #[arg(long, conflicts_with_all = ["check_config", "detach", "helper_socket"])]
    pub helper: bool,
    /// Connect to the helper on this socket, and need no privileges. Without, the daemon is started by root and forks its
    /// helper.
    #[arg(long, value_name = "PATH")]
    pub helper_socket: Option<PathBuf>,
    /// Be the executor of a daemon without privileges: run the commands that print values, as this process's user, who is
    /// neither root nor the daemon's. Started by onecli-executor.socket.
    #[arg(long, conflicts_with_all = ["check_config", "detach", "helper", "helper_socket", "executor_socket"])]
    pub executor: bool,
    /// Have commands that print values run by the executor on this socket. Without, a daemon that root starts forks one.
    #[arg(long, value_name = "PATH")]
    pub executor_socket: Option<PathBuf>,
    /// Put a backup in the database's place and end: see 'onecli restore --help'.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["check_config", "detach"])]
    pub restore: Option<PathBuf>,
    /// With --restore: check, and change nothing.
    #[arg(long, requires = "restore")]
    pub dry_run: bool,
    /// With --restore: print JSON, errors too.
    #[arg(long, requires = "restore")]
    pub json: bool,
    /// Write the manual page and end, for packages.
    #[arg(long, value_name = "FILE", hide = true)]
    pub manual: Option<PathBuf>,
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
