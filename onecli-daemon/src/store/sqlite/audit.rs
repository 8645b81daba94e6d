//! Audit rows.

use sqlx::sqlite::{Sqlite, SqlitePool};
use sqlx::{QueryBuilder, Transaction};

use super::rows;
use crate::store::{AuditQuery, AuditRow, StoreError};

/// Rows of one statement: nine bound values each, of the 32766 that SQLite takes.
const ROWS: usize = 500;

pub(super) async fn insert(
    mut tx: Transaction<'static, Sqlite>,
    rows: &[AuditRow],
) -> Result<(), StoreError> {
    let failed = StoreError::query("add audit rows");
    for rows in rows.chunks(ROWS) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO audit (seq, time, request_id, event, agent, host, verdict, code, json) ",
        );
        insert.push_values(rows, |mut values, row| {
            values
                .push_bind(number(row.seq))
                .push_bind(row.time.as_microsecond())
                .push_bind(row.request_id.map(|id| id.to_string()))
                .push_bind(&row.event)
                .push_bind(&row.agent)
                .push_bind(&row.host)
                .push_bind(&row.verdict)
                .push_bind(&row.code)
                .push_bind(&row.json);
        });
        insert.push(" ON CONFLICT (seq) DO NOTHING");
        insert.build().execute(&mut *tx).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

pub(super) async fn last_seq(pool: &SqlitePool) -> Result<u64, StoreError> {
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM audit")
        .fetch_one(pool)
        .await
        .map_err(StoreError::query("read the audit rows"))?;
    Ok(u64::try_from(last).unwrap_or(0))
}

pub(super) async fn list(pool: &SqlitePool, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
    let mut select = QueryBuilder::new("SELECT * FROM audit WHERE true");
    let texts = [
        (" AND agent = ", &query.agent),
        (" AND host = ", &query.host),
        (" AND verdict = ", &query.verdict),
        (" AND code = ", &query.code),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            select.push(condition).push_bind(text);
        }
    }
    if let Some(seq) = query.after_seq {
        select.push(" AND seq > ").push_bind(number(seq));
    }
    if let Some(since) = query.since {
        select.push(" AND time >= ").push_bind(since.as_microsecond());
    }
    if let Some(until) = query.until {
        select.push(" AND time < ").push_bind(until.as_microsecond());
    }
    select.push(if query.newest_first { " ORDER BY seq DESC LIMIT " } else { " ORDER BY seq LIMIT " });
    select.push_bind(query.limit);
    let found = select.build().fetch_all(pool).await.map_err(StoreError::query("list audit rows"))?;
    found.iter().map(rows::audit).collect()
}

/// SQLite's integers end at `i64::MAX`, which no log reaches.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
