//! The command line of `onecli ca`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the CA certificates.
    Show,
    /// Print the certificates that agents must trust (PEM). The CA's key never leaves the daemon.
    ///
    /// During a rotation these are two certificates.
    Export,
    /// Replace the CA in two steps, without an interruption for agents.
    ///
    /// The first step creates a CA that agents trust but that does not sign: agents that start later have both
    /// certificates in their bundle. When all earlier agents have ended, run --finish: the new CA signs, and the old
    /// one is no longer trusted.
    Rotate {
        /// Let the new CA sign from now on.
        #[arg(long)]
        finish: bool,
    },
    /// Add the CA to the host's trust store, so that every program of this host trusts it. 'onecli run' does not need
    /// this. It is for programs started by other means in an agent's cgroup. Anyone with the CA's key can then
    /// impersonate any server to this host.
    Install,
    /// Remove the CA from the host's trust store.
    Uninstall,
}
