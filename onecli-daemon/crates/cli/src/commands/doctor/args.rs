//! Options of `onecli doctor`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// Check the host and the daemon.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Each line is OK, WARN or FAIL, with a fix. The exit code is 1 if a check is FAIL. The command works whether or not the
daemon runs. As root it checks everything; for other users it checks what the daemon reports and what they may read.

The self-test adds an agent and a secret, and sends the secret to a service that this command starts, through the
explicit proxy and from the agent's cgroup. It then removes both. Its requests remain in the audit log.")]
pub(crate) struct DoctorArgs {
    /// The daemon's configuration file, used if no daemon responds. Default: /etc/onecli/config.toml.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Skip the self-test: add no agent, and send nothing.
    #[arg(long)]
    pub(super) no_self_test: bool,
}
