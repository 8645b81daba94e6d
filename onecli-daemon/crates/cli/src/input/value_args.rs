//! The options that name the source of a value.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// The source of a value. Default: standard input, with a prompt on a terminal.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ValueArgs {
    /// Read the value from standard input, even if it is a terminal.
    #[arg(long, conflicts_with = "value_file")]
    pub(crate) value_stdin: bool,
    /// Read the value from a file.
    #[arg(long, value_name = "FILE")]
    pub(crate) value_file: Option<PathBuf>,
    /// Store the value without confirmation, even if it does not look like the expected credential.
    #[arg(long)]
    pub(crate) force: bool,
}
