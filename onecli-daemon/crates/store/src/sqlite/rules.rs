//! The table of rules.

use onecli_model::{AgentId, Rule, RuleId, RuleSpec, RuleText};
use sqlx::sqlite::{Sqlite, SqliteRow};
use sqlx::{SqliteConnection, Transaction};

use super::require::require_row;
use super::rows::{Row, to_json};
use crate::StoreError;

/// All rules, by number.
pub(super) async fn load(tx: &mut SqliteConnection) -> Result<Vec<Rule>, StoreError> {
    let rows = sqlx::query("SELECT * FROM rules ORDER BY id")
        .fetch_all(tx)
        .await
        .map_err(StoreError::query("read the rules"))?;
    rows.iter().map(rule).collect()
}

pub(super) async fn add(
    tx: &mut Transaction<'static, Sqlite>,
    agent: Option<AgentId>,
    terms: &RuleSpec,
) -> Result<RuleId, StoreError> {
    let failed = StoreError::query("add a rule");
    if let Some(agent) = agent {
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM agents WHERE id = ?)")
            .bind(agent.to_string())
            .fetch_one(&mut **tx)
            .await
            .map_err(failed)?;
        require_row("agent", agent.to_string(), u64::from(there))?;
    }
    let text = RuleText::from(terms.clone());
    let id: u32 = sqlx::query_scalar(
        "INSERT INTO rules (agent, action, host, port, methods, paths, address, rate, tunnel)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(agent.map(|agent| agent.to_string()))
    .bind(text.action.as_str())
    .bind(text.host)
    .bind(terms.port())
    .bind(to_json(&text.methods))
    .bind(to_json(&text.paths))
    .bind(text.address)
    .bind(text.rate)
    .bind(text.tunnel)
    .fetch_one(&mut **tx)
    .await
    .map_err(failed)?;
    Ok(RuleId(id))
}

pub(super) async fn remove(tx: &mut Transaction<'static, Sqlite>, id: RuleId) -> Result<(), StoreError> {
    let done = sqlx::query("DELETE FROM rules WHERE id = ?")
        .bind(id.0)
        .execute(&mut **tx)
        .await
        .map_err(StoreError::query("remove a rule"))?;
    require_row("rule", id.to_string(), done.rows_affected())
}

/// Converts a row, with the same validation as when the rule was stored.
fn rule(row: &SqliteRow) -> Result<Rule, StoreError> {
    let row = Row::new("rules", "id", row);
    let port: Option<u16> = row.get("port")?;
    let agent: Option<String> = row.get("agent")?;
    let text = RuleText {
        action: row.parse("action")?,
        host: row.get("host")?,
        port: Some(port.map_or_else(|| "*".to_owned(), |port| port.to_string())),
        methods: row.json("methods")?,
        paths: row.json("paths")?,
        address: row.get("address")?,
        rate: row.get("rate")?,
        tunnel: row.get("tunnel")?,
    };
    Ok(Rule {
        id: RuleId(row.get("id")?),
        agent: agent
            .map(|id| id.parse())
            .transpose()
            .map_err(|error: uuid::Error| row.bad("agent", error))?,
        terms: RuleSpec::try_from(text).map_err(|error| row.bad("action", error))?,
    })
}
