//! What `onecli ca` takes.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// The authority's certificates.
    Show,
    /// Print what agents need to trust (PEM); the authority's key never leaves the daemon.
    ///
    /// While the authority is being rotated these are two certificates.
    Export,
    /// Make a new authority, in two steps that break nobody.
    ///
    /// First it is trusted and does not sign: agents that start from then on have both in their bundle. When those that
    /// started before have ended, --finish lets it sign, and the old one is trusted no more.
    Rotate {
        /// The new authority signs from now on.
        #[arg(long)]
        finish: bool,
    },
    /// Make every program of this host trust the authority. 'onecli run' needs nothing of the kind: this is for programs that
    /// run elsewhere in an agent's cgroup, and lets whoever has the authority's key pretend to be anybody to this host.
    Install,
    /// Take back what install did.
    Uninstall,
}
