//! `onecli secret import` and `onecli vault import`: the treatment of existing secrets.

use clap::Args as ClapArgs;
use onecli_api::ImportOptions;

/// The treatment of imported values.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ImportArgs {
    /// Replace the values of existing secrets. 'onecli secret rollback' restores the previous value of a secret.
    #[arg(long)]
    replace: bool,
    /// Change nothing; list the values that would be added, replaced and skipped.
    #[arg(long)]
    dry_run: bool,
    /// Also store values that do not look like the expected credential. By default they are skipped.
    #[arg(long)]
    pub(crate) force: bool,
}

impl ImportArgs {
    pub(crate) fn how(&self) -> ImportOptions {
        ImportOptions { replace: self.replace, dry_run: self.dry_run }
    }
}
