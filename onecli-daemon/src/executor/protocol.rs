//! The messages between the daemon and its executor, and the limits of a command.

use std::time::Duration;

use onecli_model::SourceCommand;
use serde::{Deserialize, Serialize};

/// The maximum output of a command, in bytes.
pub(super) const LARGEST: usize = 64 << 10;
/// The time limit of a command.
pub(super) const RUNS_FOR: Duration = Duration::from_secs(10);
/// A request to the executor. It is sent with the pipe that receives the outcome.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) command: SourceCommand,
}

/// The first byte of an outcome: either the output follows or the reason for the failure.
pub(super) const PRINTED: u8 = 0;
pub(super) const FAILED: u8 = 1;
