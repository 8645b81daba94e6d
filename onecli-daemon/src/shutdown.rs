//! The end of the daemon.

use tokio::signal::unix::{SignalKind, signal};

use crate::process::AppError;

/// Waits for SIGTERM or SIGINT.
pub(super) async fn told_to_stop() -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Socket)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Socket)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
