//! `onecli secret import` and `onecli vault import`: what happens to secrets that exist.

use clap::Args as ClapArgs;
use onecli_api::ImportHow;

/// How values are imported.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ImportArgs {
    /// Replace the values of secrets that exist. 'onecli secret rollback' restores the previous value of one.
    #[arg(long)]
    replace: bool,
    /// Change nothing; list what would be added, replaced and skipped.
    #[arg(long)]
    dry_run: bool,
    /// Store values that do not look like the credential, too. Otherwise they are skipped.
    #[arg(long)]
    pub(super) force: bool,
}

impl ImportArgs {
    pub(super) fn how(&self) -> ImportHow {
        ImportHow { replace: self.replace, dry_run: self.dry_run }
    }
}
