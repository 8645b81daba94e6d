//! `audit list`, `tail` and `export`: records as JSON lines, oldest first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use onecli_api::{AuditFilter, AuditQuery};
use onecli_store::AuditRow;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use crate::context::{AdminContext, AuditProgress};
use crate::error::AdminError;

/// The delay with which a follower sees a record that another host wrote to the same store. Records of this host wake
/// the follower at once.
const POLL: Duration = Duration::from_secs(1);
/// The time that a query waits for records that are on disk but not yet in the store.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);
/// Rows per store query while following.
const BATCH: u32 = 500;

/// Streams the newest records and, with `follow`, later ones.
pub(crate) async fn lines(
    context: Arc<AdminContext>,
    query: AuditQuery,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, AdminError> {
    let permit = if query.follow {
        let permit = Arc::clone(&context.followers).try_acquire_owned();
        Some(permit.map_err(|_| AdminError::TooManyFollowers)?)
    } else {
        None
    };
    let limit = query.limit.min(AuditQuery::MAX_LIMIT);
    let wanted = wanted(query.filter);
    catch_up(&context.handles.audit).await;
    // Read the last id before the query. If the query returns no row, records written meanwhile must not be missed.
    let last = context.handles.store.last_audit_id().await?;
    let (rows, after, until) = if query.all {
        (Vec::new(), 0, (!query.follow).then_some(last))
    } else {
        let newest = onecli_store::AuditQuery { limit, newest_first: true, ..wanted.clone() };
        let mut rows = context.handles.store.list_audit(&newest).await?;
        rows.reverse();
        let after = rows.last().map_or(last, |row| row.id.max(last));
        (rows, after, (!query.follow).then_some(after))
    };
    let first = to_lines(&rows);
    let shipped = context.handles.audit.shipped.clone();
    let follow = Follow { context, shipped, wanted, after, until, first: Some(first), _permit: permit };
    Ok(stream::unfold(follow, Follow::next))
}

pub(crate) fn wanted(filter: AuditFilter) -> onecli_store::AuditQuery {
    onecli_store::AuditQuery {
        agent: filter.agent.map(String::from),
        host: filter.host,
        verdict: filter.verdict.map(|verdict| verdict.as_str().to_owned()),
        event: filter.event.map(|event| event.as_str().to_owned()),
        code: filter.code,
        request_id: filter.request,
        since: filter.since,
        until: filter.until,
        ..onecli_store::AuditQuery::default()
    }
}

/// Waits until records written before the query are in the store, so that the response contains them.
pub(crate) async fn catch_up(progress: &AuditProgress) {
    let durable = *progress.durable.borrow();
    let mut shipped = progress.shipped.clone();
    // Records that are late or stuck are left out. The store returns the rows that it has.
    let _ = timeout(CATCH_UP_TIMEOUT, shipped.wait_for(|shipped| *shipped >= durable)).await;
}

struct Follow {
    context: Arc<AdminContext>,
    shipped: watch::Receiver<u64>,
    wanted: onecli_store::AuditQuery,
    after: u64,
    /// The last row to send; `None` continues until the client disconnects.
    until: Option<u64>,
    first: Option<Bytes>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Follow {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Follow)> {
        if let Some(first) = self.first.take()
            && !first.is_empty()
        {
            return Some((Ok(first), self));
        }
        loop {
            if self.until.is_some_and(|until| self.after >= until) {
                return None;
            }
            // Mark the value as seen before the query, so that a later record wakes this loop.
            self.shipped.mark_unchanged();
            let query =
                onecli_store::AuditQuery { after_id: Some(self.after), limit: BATCH, ..self.wanted.clone() };
            match self.context.handles.store.list_audit(&query).await {
                Ok(mut rows) => {
                    if let Some(row) = rows.last() {
                        self.after = row.id;
                        rows.retain(|row| self.until.is_none_or(|until| row.id <= until));
                        return Some((Ok(to_lines(&rows)), self));
                    }
                }
                Err(error) => {
                    // Break off the response, so that the client knows that it is incomplete.
                    self.until = Some(0);
                    return Some((Err(io::Error::other(error)), self));
                }
            }
            if self.until.is_some() {
                return None;
            }
            if let Ok(Err(_)) = timeout(POLL, self.shipped.changed()).await {
                // The shipper has ended, and the daemon is about to end.
                return None;
            }
        }
    }
}

fn to_lines(rows: &[AuditRow]) -> Bytes {
    let mut text = String::with_capacity(rows.iter().map(|row| row.json.len() + 1).sum());
    for row in rows {
        text.push_str(&row.json);
        text.push('\n');
    }
    Bytes::from(text)
}
