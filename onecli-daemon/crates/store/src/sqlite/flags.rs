//! Changes of single columns of an agent.

use onecli_model::AgentId;
use sqlx::{Sqlite, Transaction};

use super::super::{AgentChange, StoreError};
use super::require::require_row;

/// A column of agents: the statement that changes it, and the action for error messages.
type Flag = (&'static str, &'static str);

pub(super) const ENABLED: Flag = ("UPDATE agents SET enabled = ? WHERE id = ?", "enable or disable an agent");

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
    require_row("agent", id.to_string(), done.rows_affected())
}

/// Sets the columns that `change` names.
pub(super) async fn change(
    tx: &mut Transaction<'static, Sqlite>,
    id: AgentId,
    change: &AgentChange,
) -> Result<(), StoreError> {
    let AgentChange { factors, cgroup, user, egress, allow_git_config } = change;
    let done = sqlx::query(
        "UPDATE agents SET factors = coalesce(?, factors), cgroup = coalesce(?, cgroup), \
         os_user = CASE WHEN ? THEN ? ELSE os_user END, egress = coalesce(?, egress), \
         allow_git_config = coalesce(?, allow_git_config) WHERE id = ?",
    )
    .bind(factors.map(|factors| factors.to_string()))
    .bind(cgroup.as_ref().map(ToString::to_string))
    .bind(user.is_some())
    .bind(user.clone().flatten())
    .bind(egress.map(|egress| egress.to_string()))
    .bind(allow_git_config)
    .bind(id.to_string())
    .execute(&mut **tx)
    .await
    .map_err(|source| taken(change, source))?;
    require_row("agent", id.to_string(), done.rows_affected())
}

/// Maps a violated unique constraint to an error: no two agents share a cgroup or a user.
fn taken(change: &AgentChange, source: sqlx::Error) -> StoreError {
    if !source.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation) {
        return StoreError::query("change an agent")(source);
    }
    let cgroup = change.cgroup.as_ref().map(|cgroup| ("cgroup", cgroup.to_string()));
    let (what, value) = cgroup.unwrap_or_else(|| ("user", change.user.clone().flatten().unwrap_or_default()));
    StoreError::Taken { what, value, holder: "another agent".to_owned() }
}
