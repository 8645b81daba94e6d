//! The type of the store, and its tables of agents, sessions, secrets, grants, rules and facts.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use onecli_model::{Agent, AgentId, LogId, RuleId, RuleSpec, Secret, SecretId, TokenHash};
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection, Transaction};
use tokio::sync::watch;

use super::erase::RemnantEraser;
use super::meta::set_meta_entry;
use super::require::{require_next, require_row};
use super::{audit, file, flags, migrate, pool, rows, rules, versions};
use crate::{AgentChange, AuditQuery, AuditRow, ReplacedVersion, Store, StoreContents, StoreError};

/// The fact that [`Store::probe`] writes.
const META_PROBE: &str = "store.probe";
/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store in a SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    pub(super) pool: SqlitePool,
    pub(super) eraser: RemnantEraser,
    changes: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens the database file and migrates its schema. If the file is missing, it is created (0600, in a directory
    /// with mode 0700).
    ///
    /// # Errors
    /// [`StoreError::Dir`], [`StoreError::File`], [`StoreError::Open`], [`StoreError::Migrate`],
    /// [`StoreError::Newer`].
    pub async fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let path = file::prepare(path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("secure_delete", "ON");
        let eraser = options.clone();
        let pool = pool::without_expiry()
            .max_connections(4)
            .after_release(|connection, _| Box::pin(is_reusable(connection)))
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Open { path: path.clone(), source })?;
        migrate::run(&pool, path.clone()).await?;
        let eraser = RemnantEraser::new(eraser);
        eraser.clean(&path).await;
        // Erases data that a killed daemon left in the write-ahead log.
        eraser.erase().await;
        Ok(SqliteStore { pool, eraser, changes: watch::Sender::new(0) })
    }

    /// Begins a transaction that holds the write lock from its start, so that its reads stay true until it commits.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::query("begin a change"))
    }

    /// Commits a change of the state and announces it.
    pub(super) async fn commit(&self, tx: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        tx.commit().await.map_err(StoreError::query("commit a change"))?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }
}

/// Reports whether a released connection may be reused. A connection that still counts itself in a transaction is
/// closed. SQLite itself ends a transaction if the disk is full or failing
/// (<https://sqlite.org/lang_transaction.html>, "Response To Errors Within A Transaction"). The rollback after it
/// then finds no transaction and sqlx's count stays unchanged, so the connection would never begin another one.
async fn is_reusable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Commands run in order: after the response, the rollback of a dropped transaction has succeeded or failed.
    connection.ping().await?;
    let is_reusable = !connection.is_in_transaction();
    if !is_reusable {
        tracing::warn!("a connection to the database could not end its transaction and is closed");
    }
    Ok(is_reusable)
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self) -> Result<StoreContents, StoreError> {
        let failed = StoreError::query("read the state");
        let mut tx = self.pool.begin().await.map_err(failed)?;
        let agents =
            sqlx::query("SELECT * FROM agents ORDER BY name").fetch_all(&mut *tx).await.map_err(failed)?;
        let sessions = sqlx::query("SELECT * FROM sessions").fetch_all(&mut *tx).await.map_err(failed)?;
        let secrets = sqlx::query(
            "SELECT s.*, v.class, v.sealed FROM secrets s
             LEFT JOIN secret_versions v ON v.secret = s.id AND v.version = s.version ORDER BY s.name",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        let replaced_versions = versions::replaced(&mut tx).await?;
        let grants = sqlx::query("SELECT * FROM grants").fetch_all(&mut *tx).await.map_err(failed)?;
        let former = sqlx::query("SELECT * FROM former_grants").fetch_all(&mut *tx).await.map_err(failed)?;
        let rules = rules::load(&mut tx).await?;
        let last_uses = audit::last_uses(&mut tx).await?;
        tx.commit().await.map_err(failed)?;
        Ok(StoreContents {
            agents: agents.iter().map(rows::agent).collect::<Result<_, _>>()?,
            sessions: sessions.iter().map(rows::session).collect::<Result<_, _>>()?,
            secrets: secrets.iter().map(rows::secret).collect::<Result<_, _>>()?,
            replaced_versions,
            grants: grants.iter().map(rows::grant).collect::<Result<_, _>>()?,
            former_grants: former.iter().map(rows::grant).collect::<Result<_, _>>()?,
            rules,
            last_uses,
        })
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT NOT EXISTS (SELECT 1 FROM agents) AND NOT EXISTS (SELECT 1 FROM secrets)")
            .fetch_one(&self.pool)
            .await
            .map_err(StoreError::query("count its rows"))
    }

    async fn add_agent(&self, agent: &Agent, token: &TokenHash) -> Result<(), StoreError> {
        let failed = StoreError::query("add an agent");
        let mut tx = self.write().await?;
        let holder = |what, value: &str, holder: String| StoreError::Taken {
            what,
            value: value.to_owned(),
            holder: format!("agent '{holder}'"),
        };
        let others = sqlx::query(
            "SELECT name, cgroup, os_user FROM agents WHERE name = ? OR cgroup = ? OR os_user = ?",
        )
        .bind(agent.name.as_str())
        .bind(agent.cgroup.as_str())
        .bind(agent.user.as_deref())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
        if let Some(other) = others {
            let name: String = other.try_get("name").map_err(failed)?;
            let cgroup: String = other.try_get("cgroup").map_err(failed)?;
            return Err(if name == agent.name.as_str() {
                holder("agent name", agent.name.as_str(), name)
            } else if cgroup == agent.cgroup.as_str() {
                holder("cgroup", agent.cgroup.as_str(), name)
            } else {
                holder("user", agent.user.as_deref().unwrap_or_default(), name)
            });
        }
        sqlx::query(
            "INSERT INTO agents (id, name, factors, cgroup, os_user, egress, enabled, generation, allow_git_config,
                token_hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(agent.id.to_string())
        .bind(agent.name.as_str())
        .bind(agent.factors.to_string())
        .bind(agent.cgroup.as_str())
        .bind(agent.user.as_deref())
        .bind(agent.egress.to_string())
        .bind(agent.enabled)
        .bind(agent.generation)
        .bind(agent.allow_git_config)
        .bind(&token.0[..])
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        self.commit(tx).await
    }

    async fn set_token(&self, id: AgentId, token: &TokenHash, generation: u32) -> Result<(), StoreError> {
        let failed = StoreError::query("replace a token");
        let mut tx = self.write().await?;
        let stored: Option<u32> = sqlx::query_scalar("SELECT generation FROM agents WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
        require_next("agent", id.to_string(), "generation", stored, generation)?;
        sqlx::query("UPDATE agents SET token_hash = ?, generation = ? WHERE id = ?")
            .bind(&token.0[..])
            .bind(generation)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        sqlx::query("DELETE FROM sessions WHERE agent = ?")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        self.commit(tx).await
    }

    async fn set_agent_enabled(&self, id: AgentId, enabled: bool) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        flags::set(&mut tx, flags::ENABLED, id, enabled).await?;
        self.commit(tx).await
    }

    async fn change_agent(&self, id: AgentId, change: &AgentChange) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        flags::change(&mut tx, id, change).await?;
        self.commit(tx).await
    }

    async fn remove_agent(&self, id: AgentId) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM agents WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("remove an agent"))?;
        require_row("agent", id.to_string(), done.rows_affected())?;
        self.commit(tx).await
    }

    async fn add_session(
        &self,
        agent: AgentId,
        token: &TokenHash,
        expires: Timestamp,
        launched_by: Option<u32>,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query(
            "INSERT INTO sessions (token_hash, agent, expires, launched_by) SELECT ?, id, ?, ? FROM agents WHERE id = ?",
        )
        .bind(&token.0[..])
        .bind(expires.as_microsecond())
        .bind(launched_by)
        .bind(agent.to_string())
        .execute(&mut *tx)
        .await
        .map_err(StoreError::query("add a session"))?;
        require_row("agent", agent.to_string(), done.rows_affected())?;
        self.commit(tx).await
    }

    async fn prune_sessions(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM sessions WHERE expires <= ?")
            .bind(now.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("prune sessions"))?;
        if done.rows_affected() > 0 {
            self.commit(tx).await?;
        }
        Ok(done.rows_affected())
    }

    async fn add_secret(&self, secret: &Secret) -> Result<(), StoreError> {
        let failed = StoreError::query("add a secret");
        let mut tx = self.write().await?;
        let taken: Option<i64> = sqlx::query_scalar("SELECT 1 FROM secrets WHERE name = ?")
            .bind(secret.name.as_str())
            .fetch_optional(&mut *tx)
            .await
            .map_err(failed)?;
        if taken.is_some() {
            return Err(StoreError::Taken {
                what: "secret name",
                value: secret.name.to_string(),
                holder: "secret of that name".to_owned(),
            });
        }
        sqlx::query(
            "INSERT INTO secrets (id, name, host, port, methods, paths, allow_plaintext, placement, profile, env, enabled, version)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(secret.id.to_string())
        .bind(secret.name.as_str())
        .bind(secret.target.host.to_string())
        .bind(secret.target.port)
        .bind(rows::to_json(&secret.target.methods))
        .bind(rows::to_json(&secret.target.paths))
        .bind(secret.target.allow_plaintext)
        .bind(rows::to_json(&secret.placement))
        .bind(rows::to_json(&secret.profile))
        .bind(secret.env.as_deref())
        .bind(secret.enabled)
        .bind(secret.version)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        versions::insert(&mut tx, secret, None).await?;
        self.commit(tx).await
    }

    async fn add_version(
        &self,
        secret: &Secret,
        replaced: Option<&ReplacedVersion>,
    ) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        versions::add(&mut tx, secret, replaced).await?;
        self.commit(tx).await?;
        // With the old bytes of the replaced version, and `secrets.version` set back, an attacker could bring it
        // back into use.
        self.eraser.erase().await;
        Ok(())
    }

    async fn prune_replaced(&self, now: Timestamp, latest: Timestamp) -> Result<u64, StoreError> {
        if !versions::any_expired(&self.pool, now, latest).await? {
            return Ok(0);
        }
        let mut tx = self.write().await?;
        let erased = versions::prune(&mut tx, now, latest).await?;
        self.commit(tx).await?;
        self.eraser.erase().await;
        Ok(erased)
    }

    async fn set_secret_enabled(&self, id: SecretId, enabled: bool) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE secrets SET enabled = ? WHERE id = ?")
            .bind(enabled)
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("enable or disable a secret"))?;
        require_row("secret", id.to_string(), done.rows_affected())?;
        self.commit(tx).await
    }

    async fn remove_secret(&self, id: SecretId) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM secrets WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut *tx)
            .await
            .map_err(StoreError::query("remove a secret"))?;
        require_row("secret", id.to_string(), done.rows_affected())?;
        self.commit(tx).await?;
        self.eraser.erase().await;
        Ok(())
    }

    async fn grant(&self, agent: AgentId, secret: SecretId) -> Result<(), StoreError> {
        let failed = StoreError::query("add a grant");
        let mut tx = self.write().await?;
        let there: (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT 1 FROM agents WHERE id = ?), EXISTS (SELECT 1 FROM secrets WHERE id = ?)",
        )
        .bind(agent.to_string())
        .bind(secret.to_string())
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        require_row("agent", agent.to_string(), u64::from(there.0))?;
        require_row("secret", secret.to_string(), u64::from(there.1))?;
        for sql in [
            "INSERT INTO grants (agent, secret) VALUES (?, ?) ON CONFLICT DO NOTHING",
            "DELETE FROM former_grants WHERE agent = ? AND secret = ?",
        ] {
            let both = sqlx::query(sql).bind(agent.to_string()).bind(secret.to_string());
            both.execute(&mut *tx).await.map_err(failed)?;
        }
        self.commit(tx).await
    }

    async fn ungrant(&self, agent: AgentId, secret: SecretId) -> Result<bool, StoreError> {
        let failed = StoreError::query("revoke a grant");
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM grants WHERE agent = ? AND secret = ?")
            .bind(agent.to_string())
            .bind(secret.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("INSERT INTO former_grants (agent, secret) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(agent.to_string())
            .bind(secret.to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        self.commit(tx).await?;
        Ok(true)
    }

    async fn add_rule(&self, agent: Option<AgentId>, terms: &RuleSpec) -> Result<RuleId, StoreError> {
        let mut tx = self.write().await?;
        let id = rules::add(&mut tx, agent, terms).await?;
        self.commit(tx).await?;
        Ok(id)
    }

    async fn remove_rule(&self, id: RuleId) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        rules::remove(&mut tx, id).await?;
        self.commit(tx).await
    }

    async fn insert_audit(&self, rows: &[AuditRow]) -> Result<(), StoreError> {
        audit::insert(self.write().await?, rows).await
    }

    async fn last_audit_seq(&self, log: LogId) -> Result<u64, StoreError> {
        audit::last_seq(&self.pool, log).await
    }

    async fn last_audit_line(&self, log: LogId) -> Result<Option<(u64, String)>, StoreError> {
        audit::last_line(&self.pool, log).await
    }

    async fn last_audit_id(&self) -> Result<u64, StoreError> {
        audit::last_id(&self.pool).await
    }

    async fn prune_audit(&self, log: LogId, through: u64) -> Result<(), StoreError> {
        audit::prune(self.write().await?, log, through).await
    }

    async fn list_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        audit::list(&self.pool, query).await
    }

    async fn get_meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("read its metadata"))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.set_meta(&[(META_PROBE, "")]).await
    }

    async fn set_meta(&self, entries: &[(&str, &str)]) -> Result<(), StoreError> {
        let failed = StoreError::query("write its metadata");
        let mut tx = self.write().await?;
        for (key, value) in entries {
            set_meta_entry(&mut tx, key, value).await?;
        }
        tx.commit().await.map_err(failed)
    }
}
