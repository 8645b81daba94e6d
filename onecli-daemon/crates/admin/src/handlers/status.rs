//! `status`.

use std::time::Duration;

use onecli_api::Transparent;
use onecli_api::{AuditStatus, Status};
use onecli_store::{Store, StoreError};
use tokio::time::timeout;

use crate::context::{AdminContext, AuditProgress};

/// The time limit for a response from the database.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the status. A fault is reported in its field and does not affect the other fields.
pub(crate) async fn status(context: &AdminContext) -> Status {
    let host = &context.handles.host;
    let transparent = host.transparent();
    let transparent_fault =
        if transparent == Transparent::Available { host.check_transparent().err() } else { None };
    let stored = check_database(context.handles.store.as_ref()).await;
    let (agents, secrets, store_fault) = match stored {
        Ok(DatabaseState { agents, secrets, fault }) => (Some(agents), Some(secrets), fault),
        Err(fault) => (None, None, Some(fault)),
    };
    let audit = audit(&context.handles.audit);
    // A full disk may accept the small test write but not the waiting rows.
    let store_fault = store_fault.or_else(|| audit.shipping_fault.clone());
    let counters = host.counters();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: context.started,
        transparent,
        transparent_fault,
        explicit: host.explicit_address(),
        store_fault,
        audit,
        agents,
        secrets,
        approvals_waiting: context.handles.approvals.list().len(),
        rates: context.rates.per_second(context.handles.clock.instant(), &counters),
        counters,
    }
}

/// The state of a readable database.
struct DatabaseState {
    agents: usize,
    secrets: usize,
    /// Why it cannot be written, if it cannot.
    fault: Option<String>,
}

/// Reads the database, and makes a write without effect.
///
/// # Errors
/// Why the database cannot be read.
async fn check_database(store: &dyn Store) -> Result<DatabaseState, String> {
    let late = || format!("the database did not answer within {DATABASE_TIMEOUT:?}");
    let text = |error: StoreError| error.to_string();
    let stored = timeout(DATABASE_TIMEOUT, store.load()).await.map_err(|_| late())?.map_err(text)?;
    let fault = match timeout(DATABASE_TIMEOUT, store.probe()).await {
        Ok(probed) => probed.err().map(text),
        Err(_) => Some(late()),
    };
    Ok(DatabaseState { agents: stored.agents.len(), secrets: stored.secrets.len(), fault })
}

fn audit(progress: &AuditProgress) -> AuditStatus {
    // Read the values in this order, so that records written meanwhile do not look like a lag.
    let durable = *progress.durable.borrow();
    AuditStatus {
        fault: progress.fault.borrow().as_ref().map(ToString::to_string),
        durable,
        shipped: *progress.shipped.borrow(),
        shipping_fault: progress.shipping_fault.borrow().clone(),
    }
}
