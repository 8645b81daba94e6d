//! The table of runners.

use async_trait::async_trait;
use onecli_model::{AgentId, Runner};
use sqlx::sqlite::SqliteRow;

use super::super::{RunnerChange, RunnerRow, RunnerStore, StoreError};
use super::rows::Row;
use super::store::SqliteStore;

const ALLOW: &str = "INSERT INTO runners (agent, runner, sees_all, since) \
    SELECT id, ?2, coalesce(?3, 0), ?4 FROM agents WHERE id = ?1 \
    ON CONFLICT (agent, runner) DO UPDATE SET sees_all = ?3 WHERE ?3 IS NOT NULL AND sees_all <> ?3";
const DENY: &str = "DELETE FROM runners WHERE agent = ?1 AND runner = ?2";

#[async_trait]
impl RunnerStore for SqliteStore {
    async fn runners(&self, agent: AgentId) -> Result<Vec<Runner>, StoreError> {
        let rows = sqlx::query("SELECT agent, runner FROM runners WHERE agent = ? ORDER BY runner")
            .bind(agent.to_string())
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("read the runners of an agent"))?;
        rows.iter().map(|row| Row::new("runners", "agent", row).parse("runner")).collect()
    }

    async fn all_runners(&self) -> Result<Vec<RunnerRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT runners.*, agents.name FROM runners JOIN agents ON agents.id = runners.agent ORDER BY name, runner",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("read the runners of all agents"))?;
        rows.iter().map(runner).collect()
    }

    async fn set_runner(
        &self,
        agent: AgentId,
        runner: &Runner,
        change: RunnerChange,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write().await?;
        let (agent, runner) = (agent.to_string(), runner.to_string());
        let statement = match change {
            RunnerChange::Allow { since, sees_all } => {
                sqlx::query(ALLOW).bind(agent).bind(runner).bind(sees_all).bind(since.as_microsecond())
            }
            RunnerChange::Deny => sqlx::query(DENY).bind(agent).bind(runner),
        };
        let done =
            statement.execute(&mut *tx).await.map_err(StoreError::query("change the runners of an agent"))?;
        self.commit(tx).await?;
        Ok(done.rows_affected() > 0)
    }
}

fn runner(row: &SqliteRow) -> Result<RunnerRow, StoreError> {
    let row = Row::new("runners", "agent", row);
    Ok(RunnerRow {
        agent: row.parse("agent")?,
        name: row.parse("name")?,
        runner: row.parse("runner")?,
        sees_all: row.get("sees_all")?,
        since: row.time("since")?,
    })
}
