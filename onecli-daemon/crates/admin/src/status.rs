//! `status`.

use std::time::Duration;

use onecli_api::Transparent;
use onecli_api::{AuditStatus, Status};
use onecli_store::{Store, StoreError};
use tokio::time::timeout;

use super::state::{AuditProgress, State};

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is wrong is told, and never keeps the rest from being told.
pub(super) async fn status(state: &State) -> Status {
    let host = &state.handles.host;
    let transparent = host.transparent();
    let transparent_fault =
        if transparent == Transparent::Available { host.check_transparent().err() } else { None };
    let stored = examine(state.handles.store.as_ref()).await;
    let (agents, secrets, store_fault) = match stored {
        Ok(Examined { agents, secrets, fault }) => (Some(agents), Some(secrets), fault),
        Err(fault) => (None, None, Some(fault)),
    };
    let audit = audit(&state.handles.audit);
    // A full disk may take the small change that was tried, and not the rows that wait.
    let store_fault = store_fault.or_else(|| audit.shipping_fault.clone());
    let counters = host.counters();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: state.started,
        transparent,
        transparent_fault,
        explicit: host.explicit_address(),
        store_fault,
        audit,
        agents,
        secrets,
        approvals_waiting: state.handles.approvals.list().len(),
        rates: state.rates.per_second(state.handles.clock.instant(), &counters),
        counters,
    }
}

/// A database that can be read.
struct Examined {
    agents: usize,
    secrets: usize,
    /// Why it cannot be changed.
    fault: Option<String>,
}

/// Reads the database, and changes something that means nothing.
///
/// # Errors
/// Why it cannot be read.
async fn examine(store: &dyn Store) -> Result<Examined, String> {
    let late = || format!("the database did not answer within {PATIENCE:?}");
    let told = |error: StoreError| error.to_string();
    let stored = timeout(PATIENCE, store.load()).await.map_err(|_| late())?.map_err(told)?;
    let fault = match timeout(PATIENCE, store.probe()).await {
        Ok(probed) => probed.err().map(told),
        Err(_) => Some(late()),
    };
    Ok(Examined { agents: stored.agents.len(), secrets: stored.secrets.len(), fault })
}

fn audit(progress: &AuditProgress) -> AuditStatus {
    // In this order, so that what is written meanwhile is not taken for a lag.
    let durable = *progress.durable.borrow();
    AuditStatus {
        fault: progress.fault.borrow().as_ref().map(ToString::to_string),
        durable,
        shipped: *progress.shipped.borrow(),
        shipping_fault: progress.shipping_fault.borrow().clone(),
    }
}
