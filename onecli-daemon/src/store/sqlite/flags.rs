//! What an agent is or may, as one bit.

use sqlx::{Sqlite, Transaction};

use super::super::StoreError;
use super::found;
use crate::model::AgentId;

/// A column of agents: what changes it, and what that is called.
type Flag = (&'static str, &'static str);

pub(super) const ENABLED: Flag = ("UPDATE agents SET enabled = ? WHERE id = ?", "enable or disable an agent");
pub(super) const GIT_CONFIG: Flag = (
    "UPDATE agents SET allow_git_config = ? WHERE id = ?",
    "change whether an agent may change git configuration",
);

/// Sets it for one agent.
pub(super) async fn set(
    tx: &mut Transaction<'static, Sqlite>,
    (statement, what): Flag,
    id: AgentId,
    value: bool,
) -> Result<(), StoreError> {
    let done = sqlx::query(statement)
        .bind(value)
        .bind(id.to_string())
        .execute(&mut **tx)
        .await
        .map_err(StoreError::query(what))?;
    found("agent", id.to_string(), done.rows_affected())
}
