//! The reasons to stop.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::agents::TransparentMode;
use crate::process::AppError;
use crate::serving::Namespaces;

/// Waits for a reason to stop: a signal, or the loss of the helper or of the agents root.
pub(crate) async fn stop_reason(
    namespaces: Namespaces,
    managed: Arc<TransparentMode>,
) -> Result<(), AppError> {
    tokio::select! {
        received = stop_signal() => received,
        lost = namespaces.serve() => Err(AppError::Helper(lost.to_string())),
        lost = managed.root_lost() => Err(AppError::AgentsRoot(lost)),
    }
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal() -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Socket)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Socket)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
