//! `audit list` and `audit tail`: records as JSON lines, oldest first.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;

use super::api::AuditQuery;
use super::error::AdminError;
use super::state::State;
use crate::store::{self, AuditRow};

/// How soon a follower sees a new record. The rows are the log's copy in the store, which other hosts write to as
/// well: asking is what works for all of them.
const POLL: Duration = Duration::from_millis(200);
/// Rows per question while following.
const BATCH: u32 = 500;

/// The newest records, and with `follow` those to come.
pub(super) async fn lines(
    state: Arc<State>,
    query: AuditQuery,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, AdminError> {
    let permit = match query.follow {
        true => Some(
            Arc::clone(&state.followers).try_acquire_owned().map_err(|_| AdminError::TooManyFollowers)?,
        ),
        false => None,
    };
    let agent = query.agent.map(String::from);
    // Before the question: with no row to start from, what is written meanwhile must not be missed.
    let last = state.handles.store.last_audit_seq().await?;
    let newest = store::AuditQuery {
        agent: agent.clone(),
        limit: query.limit.min(AuditQuery::MAX_LIMIT),
        newest_first: true,
        ..store::AuditQuery::default()
    };
    let mut rows = state.handles.store.list_audit(&newest).await?;
    rows.reverse();
    let last = rows.last().map_or(last, |row| row.seq);
    let first = to_lines(&rows);
    let follow = Follow { state, agent, last, first: Some(first), permit };
    Ok(stream::unfold(follow, Follow::next))
}

struct Follow {
    state: Arc<State>,
    agent: Option<String>,
    last: u64,
    first: Option<Bytes>,
    /// Held while following; none ends after the first answer.
    permit: Option<OwnedSemaphorePermit>,
}

impl Follow {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Follow)> {
        if let Some(first) = self.first.take()
            && !first.is_empty()
        {
            return Some((Ok(first), self));
        }
        self.permit.as_ref()?;
        loop {
            let query = store::AuditQuery {
                agent: self.agent.clone(),
                after_seq: Some(self.last),
                limit: BATCH,
                ..store::AuditQuery::default()
            };
            match self.state.handles.store.list_audit(&query).await {
                Ok(rows) => {
                    if let Some(row) = rows.last() {
                        self.last = row.seq;
                        return Some((Ok(to_lines(&rows)), self));
                    }
                }
                Err(error) => {
                    // Ends the answer in its middle, so that the client knows it is not complete.
                    self.permit = None;
                    return Some((Err(io::Error::other(error)), self));
                }
            }
            tokio::time::sleep(POLL).await;
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
