//! The permitted runners of agents, read from the store after a change.

use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::{AgentId, AgentName, Runner};
use onecli_store::{RunnerRow, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::access::peer::{gids, matches_runner};

/// Concurrent queries of all runners together; further queries wait in turn.
pub(super) const MAX_CONCURRENT_QUERIES: usize = 2;

/// All runner entries of the store, read again after a change.
#[derive(Debug)]
pub(crate) struct Runners {
    changes: watch::Receiver<u64>,
    known: Mutex<Option<(u64, Arc<[RunnerRow]>)>>,
}

impl Runners {
    pub(crate) fn new(store: &dyn Store) -> Runners {
        Runners { changes: store.subscribe(), known: Mutex::default() }
    }

    async fn rows(&self, store: &dyn Store) -> Result<Arc<[RunnerRow]>, StoreError> {
        // Read the version before the query. A change during the query then makes the cached rows stale.
        let version = *self.changes.borrow();
        if let Some((known, rows)) = &*self.known.lock()
            && *known == version
        {
            return Ok(Arc::clone(rows));
        }
        let rows: Arc<[RunnerRow]> = store.all_runners().await?.into();
        *self.known.lock() = Some((version, Arc::clone(&rows)));
        Ok(rows)
    }

    /// Returns the agents that a process with these ids may run.
    pub(crate) async fn of(&self, store: &dyn Store, uid: u32, gid: u32) -> Vec<RunnableAgent> {
        let rows = match self.rows(store).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "cannot read the permitted runners: all runners are refused");
                return Vec::new();
            }
        };
        if rows.is_empty() {
            return Vec::new();
        }
        // The user database may be on another host.
        let found = tokio::task::spawn_blocking(move || runnable_agents(&rows, uid, gid));
        found.await.unwrap_or_default()
    }
}

/// An agent that the caller may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunnableAgent {
    pub(crate) id: AgentId,
    pub(crate) name: AgentName,
    /// The entries that grant the permission.
    pub(crate) entries: Vec<Runner>,
    /// The earliest time of visible records.
    pub(crate) since: Timestamp,
    /// The time from which records of other runs are visible too, if an administrator allowed that.
    pub(crate) sees_all: Option<Timestamp>,
}

impl RunnableAgent {
    fn new(row: &RunnerRow) -> RunnableAgent {
        let (id, name) = (row.agent, row.name.clone());
        RunnableAgent { id, name, entries: Vec::new(), since: Timestamp::MAX, sees_all: None }
    }

    fn add(&mut self, row: &RunnerRow) {
        self.entries.push(row.runner.clone());
        self.since = self.since.min(row.since);
        if row.sees_all {
            // An earlier agent may have used the name.
            let since = row.since.max(self.id.created().unwrap_or(Timestamp::MAX));
            self.sees_all = Some(self.sees_all.map_or(since, |all| all.min(since)));
        }
    }
}

fn runnable_agents(rows: &[RunnerRow], uid: u32, gid: u32) -> Vec<RunnableAgent> {
    let gids = gids(uid, gid);
    let mut own: Vec<RunnableAgent> = Vec::new();
    for row in rows.iter().filter(|row| matches_runner(uid, &gids, &row.runner)) {
        if own.last().is_none_or(|last| last.id != row.agent) {
            own.push(RunnableAgent::new(row));
        }
        own.iter_mut().last().into_iter().for_each(|last| last.add(row));
    }
    own
}
