//! The context that the handlers share, and the turn to change stored data.

use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::ids::new_uuid;
use onecli_store::StoreContents;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use uuid::Uuid;

use super::handles::Handles;
use super::rates::Rates;
use super::runners::{self, Runners};
use crate::error::AdminError;

/// The number of clients that may follow the audit log at the same time.
const MAX_FOLLOWERS: usize = 16;

pub(crate) struct AdminContext {
    pub(crate) handles: Handles,
    pub(crate) started: Timestamp,
    pub(crate) followers: Arc<Semaphore>,
    /// The users and groups that may run agents.
    pub(crate) runners: Runners,
    /// Limits concurrent queries of runners.
    pub(crate) runner_turns: Semaphore,
    pub(crate) rates: Rates,
    changes: Mutex<()>,
}

impl AdminContext {
    pub(crate) fn new(handles: Handles) -> AdminContext {
        let started = handles.clock.now();
        AdminContext {
            runners: Runners::new(handles.store.as_ref()),
            runner_turns: Semaphore::new(runners::MAX_CONCURRENT_QUERIES),
            handles,
            started,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            rates: Rates::default(),
            changes: Mutex::new(()),
        }
    }

    /// Stores a reading of the counters, for the rates in `status`.
    pub(crate) fn remember_counters(&self) {
        self.rates.remember(self.handles.clock.instant(), self.handles.host.counters());
    }

    /// Starts a change. Changes are made one at a time, so each one is checked against the state that it changes.
    pub(crate) async fn begin_change(&self) -> Result<ChangeGuard<'_>, AdminError> {
        let turn = self.changes.lock().await;
        Ok(ChangeGuard { context: self, stored: self.load().await?, _turn: turn })
    }

    /// Returns the time at which a value replaced now is erased; `None` if none is retained.
    pub(crate) fn retention_end(&self) -> Option<Timestamp> {
        let keep = self.handles.keep_replaced;
        let until = self.handles.clock.now().checked_add(keep).ok();
        until.filter(|_| !keep.is_zero())
    }

    pub(crate) async fn load(&self) -> Result<StoreContents, AdminError> {
        Ok(self.handles.store.load().await?)
    }

    /// Returns a new id: UUID version 7 (RFC 9562 section 5.7).
    pub(crate) fn new_id(&self) -> Result<Uuid, AdminError> {
        Ok(new_uuid(self.handles.clock.now(), self.handles.random.as_ref())?)
    }
}

/// A turn to change stored data.
pub(crate) struct ChangeGuard<'s> {
    context: &'s AdminContext,
    /// The stored state at the start of the turn.
    pub(crate) stored: StoreContents,
    _turn: MutexGuard<'s, ()>,
}

impl ChangeGuard<'_> {
    /// Waits until the next request uses the stored state (invariant 11), and logs the change. The log span contains
    /// the caller.
    pub(crate) async fn apply(self, change: &'static str, subject: &str) -> Result<(), AdminError> {
        tracing::info!(change, subject, "admin change");
        self.context.handles.host.reload().await.map_err(AdminError::Reload)
    }
}
