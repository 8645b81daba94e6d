//! Who may start commands as an agent.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row as _, Sqlite, Transaction};

use super::super::StoreError;
use crate::model::{AgentId, Runner};

pub(super) async fn list(pool: &SqlitePool, agent: AgentId) -> Result<Vec<Runner>, StoreError> {
    let failed = StoreError::query("read who may run an agent");
    let rows = sqlx::query("SELECT runner FROM runners WHERE agent = ? ORDER BY runner")
        .bind(agent.to_string())
        .fetch_all(pool)
        .await
        .map_err(failed)?;
    let parse = |row: &SqliteRow| {
        let text: String = row.try_get("runner").map_err(failed)?;
        text.parse().map_err(|error: crate::model::runner::RunnerError| StoreError::BadRow {
            table: "runners",
            row: agent.to_string(),
            column: "runner",
            reason: error.to_string(),
        })
    };
    rows.iter().map(parse).collect()
}

/// Changes one entry; tells whether that changed anything.
pub(super) async fn set(
    tx: &mut Transaction<'static, Sqlite>,
    agent: AgentId,
    runner: &Runner,
    may: bool,
) -> Result<bool, StoreError> {
    let statement = if may {
        "INSERT INTO runners (agent, runner) SELECT id, ?2 FROM agents WHERE id = ?1 ON CONFLICT DO NOTHING"
    } else {
        "DELETE FROM runners WHERE agent = ?1 AND runner = ?2"
    };
    let done = sqlx::query(statement)
        .bind(agent.to_string())
        .bind(runner.to_string())
        .execute(&mut **tx)
        .await
        .map_err(StoreError::query("change who may run an agent"))?;
    Ok(done.rows_affected() > 0)
}
