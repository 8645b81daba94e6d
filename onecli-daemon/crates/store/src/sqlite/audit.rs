//! Audit rows in SQLite.

use std::collections::HashMap;

use jiff::Timestamp;
use onecli_model::{LogId, SecretId};
use sqlx::sqlite::{Sqlite, SqlitePool};
use sqlx::{QueryBuilder, Transaction};

use super::rows;
use crate::uses::last_uses as last_uses_in;
use crate::{AuditQuery, AuditRow, StoreError};

/// The rows of one statement. Each has eleven bound values, of the 32766 that SQLite accepts.
const ROWS: usize = 500;

pub(super) async fn insert(
    mut tx: Transaction<'static, Sqlite>,
    rows: &[AuditRow],
) -> Result<(), StoreError> {
    let failed = StoreError::query("add audit rows");
    for rows in rows.chunks(ROWS) {
        let mut insert = QueryBuilder::new(
            "INSERT INTO audit (log, seq, time, request_id, event, agent, host, verdict, code, launched_by, json) ",
        );
        insert.push_values(rows, |mut values, row| {
            values
                .push_bind(row.log.to_string())
                .push_bind(number(row.seq))
                .push_bind(row.time.as_microsecond())
                .push_bind(row.request_id.map(|id| id.to_string()))
                .push_bind(&row.event)
                .push_bind(&row.agent)
                .push_bind(&row.host)
                .push_bind(&row.verdict)
                .push_bind(&row.code)
                .push_bind(row.launched_by)
                .push_bind(&row.json);
        });
        insert.push(" ON CONFLICT (log, seq) DO NOTHING");
        insert.build().execute(&mut *tx).await.map_err(failed)?;
    }
    for (secret, time) in last_uses_in(rows) {
        sqlx::query(
            "INSERT INTO secret_uses (secret, time) SELECT id, ? FROM secrets WHERE name = ?
             ON CONFLICT (secret) DO UPDATE SET time = max(time, excluded.time)",
        )
        .bind(time.as_microsecond())
        .bind(secret)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

/// The last injection of each secret.
pub(super) async fn last_uses(
    tx: &mut Transaction<'static, Sqlite>,
) -> Result<HashMap<SecretId, Timestamp>, StoreError> {
    let uses = sqlx::query("SELECT * FROM secret_uses")
        .fetch_all(&mut **tx)
        .await
        .map_err(StoreError::query("read the uses of secrets"))?;
    uses.iter().map(rows::secret_use).collect()
}

pub(super) async fn last_seq(pool: &SqlitePool, log: LogId) -> Result<u64, StoreError> {
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM audit WHERE log = ?")
        .bind(log.to_string())
        .fetch_one(pool)
        .await
        .map_err(StoreError::query("read the audit rows"))?;
    Ok(u64::try_from(last).unwrap_or(0))
}

pub(super) async fn last_line(pool: &SqlitePool, log: LogId) -> Result<Option<(u64, String)>, StoreError> {
    let last: Option<(i64, String)> =
        sqlx::query_as("SELECT seq, json FROM audit WHERE log = ? ORDER BY seq DESC LIMIT 1")
            .bind(log.to_string())
            .fetch_optional(pool)
            .await
            .map_err(StoreError::query("read the audit rows"))?;
    Ok(last.and_then(|(seq, line)| Some((u64::try_from(seq).ok()?, line))))
}

pub(super) async fn last_id(pool: &SqlitePool) -> Result<u64, StoreError> {
    let last: i64 = sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM audit")
        .fetch_one(pool)
        .await
        .map_err(StoreError::query("read the audit rows"))?;
    Ok(u64::try_from(last).unwrap_or(0))
}

pub(super) async fn prune(
    mut tx: Transaction<'static, Sqlite>,
    log: LogId,
    through: u64,
) -> Result<(), StoreError> {
    let failed = StoreError::query("remove old audit rows");
    sqlx::query("DELETE FROM audit WHERE log = ? AND seq <= ?")
        .bind(log.to_string())
        .bind(number(through))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    tx.commit().await.map_err(failed)
}

pub(super) async fn list(pool: &SqlitePool, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
    let mut select = QueryBuilder::new("SELECT * FROM ");
    push_source(&mut select, query);
    let texts = [
        (" AND host = ", &query.host),
        (" AND verdict = ", &query.verdict),
        (" AND code = ", &query.code),
        (" AND event = ", &query.event),
    ];
    for (condition, text) in texts {
        if let Some(text) = text {
            select.push(condition).push_bind(text);
        }
    }
    if let Some(uid) = query.not_by_others {
        select.push(" AND (launched_by IS NULL OR launched_by = ").push_bind(uid).push(")");
    }
    if let Some(id) = query.request_id {
        select.push(" AND request_id = ").push_bind(id.to_string());
    }
    if let Some(id) = query.after_id {
        select.push(" AND id > ").push_bind(number(id));
    }
    if let Some(since) = query.since {
        select.push(" AND time >= ").push_bind(since.as_microsecond());
    }
    if let Some(until) = query.until {
        select.push(" AND time < ").push_bind(until.as_microsecond());
    }
    select.push(if query.newest_first { " ORDER BY id DESC LIMIT " } else { " ORDER BY id LIMIT " });
    select.push_bind(query.limit);
    let found = select.build().fetch_all(pool).await.map_err(StoreError::query("list audit rows"))?;
    found.iter().map(rows::audit).collect()
}

/// Adds the source of rows: the table, or its newest rows, of one agent and one user if the query names them.
fn push_source(select: &mut QueryBuilder<Sqlite>, query: &AuditQuery) {
    select.push(if query.max_rows_read.is_some() {
        "(SELECT * FROM audit WHERE true"
    } else {
        "audit WHERE true"
    });
    if let Some(agent) = &query.agent {
        select.push(" AND agent = ").push_bind(agent.clone());
    }
    if let Some(uid) = query.launched_by {
        select.push(" AND launched_by = ").push_bind(uid);
    }
    if let Some(rows) = query.max_rows_read {
        select.push(" ORDER BY id DESC LIMIT ").push_bind(rows).push(") WHERE true");
    }
}

/// Converts a number for SQLite, whose integers end at `i64::MAX`. No log reaches that.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
