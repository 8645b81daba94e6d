//! The versions of secrets: the current one of each, and the one that it replaced.

use jiff::Timestamp;
use onecli_model::{Placement, Profile, Secret, Target};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{Sqlite, SqlitePool, SqliteRow};
use sqlx::{SqliteConnection, Transaction};

use super::require::{require_next, require_row};
use super::rows::{self, Row};
use crate::{ReplacedVersion, StoreError, VersionRow};

/// The definition of a retained version at the time it was replaced.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    target: Target,
    placement: Placement,
    profile: Profile,
    env: Option<String>,
}

impl Definition {
    fn of(secret: &Secret) -> Definition {
        Definition {
            target: secret.target.clone(),
            placement: secret.placement.clone(),
            profile: secret.profile.clone(),
            env: secret.env.clone(),
        }
    }

    fn apply(self, secret: &mut Secret) {
        let Definition { target, placement, profile, env } = self;
        (secret.target, secret.placement, secret.profile, secret.env) = (target, placement, profile, env);
    }
}

/// Adds a version. It does not change which one is current.
pub(super) async fn insert(
    tx: &mut Transaction<'static, Sqlite>,
    secret: &Secret,
    kept_until: Option<Timestamp>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO secret_versions (secret, version, class, sealed, kept_until, definition)
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(secret.id.to_string())
    .bind(secret.version)
    .bind(secret.class.map(|class| class.to_string()))
    .bind(&secret.sealed.0[..])
    .bind(kept_until.map(Timestamp::as_microsecond))
    .bind(kept_until.map(|_| rows::to_json(&Definition::of(secret))))
    .execute(&mut **tx)
    .await
    .map_err(StoreError::query("add a version of a secret"))?;
    Ok(())
}

/// See [`crate::Store::add_version`].
pub(super) async fn add(
    tx: &mut Transaction<'static, Sqlite>,
    secret: &Secret,
    replaced: Option<&ReplacedVersion>,
) -> Result<(), StoreError> {
    let failed = StoreError::query("add a version of a secret");
    let id = secret.id.to_string();
    let stored: Option<u32> = sqlx::query_scalar("SELECT version FROM secrets WHERE id = ?")
        .bind(&id)
        .fetch_optional(&mut **tx)
        .await
        .map_err(failed)?;
    require_next("secret", id.clone(), "version", stored, secret.version)?;
    if let Some(replaced) = replaced {
        let before = (replaced.secret.id == secret.id).then_some(replaced.secret.version);
        require_next("secret", id.clone(), "retained version", before, secret.version)?;
    }
    sqlx::query("DELETE FROM secret_versions WHERE secret = ?")
        .bind(&id)
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
    if let Some(replaced) = replaced {
        insert(tx, &replaced.secret, Some(replaced.until)).await?;
    }
    insert(tx, secret, None).await?;
    update(tx, secret).await
}

async fn update(tx: &mut Transaction<'static, Sqlite>, secret: &Secret) -> Result<(), StoreError> {
    let done = sqlx::query(
        "UPDATE secrets SET version = ?, host = ?, port = ?, methods = ?, paths = ?, allow_plaintext = ?,
            placement = ?, profile = ?, env = ? WHERE id = ?",
    )
    .bind(secret.version)
    .bind(secret.target.host.to_string())
    .bind(secret.target.port)
    .bind(rows::to_json(&secret.target.methods))
    .bind(rows::to_json(&secret.target.paths))
    .bind(secret.target.allow_plaintext)
    .bind(rows::to_json(&secret.placement))
    .bind(rows::to_json(&secret.profile))
    .bind(secret.env.as_deref())
    .bind(secret.id.to_string())
    .execute(&mut **tx)
    .await
    .map_err(StoreError::query("change a secret"))?;
    require_row("secret", secret.id.to_string(), done.rows_affected())
}

/// All retained versions.
pub(super) async fn replaced(connection: &mut SqliteConnection) -> Result<Vec<ReplacedVersion>, StoreError> {
    let found = sqlx::query(
        "SELECT s.*, v.version AS of_version, v.class, v.sealed, v.definition, v.kept_until FROM secret_versions v
         JOIN secrets s ON s.id = v.secret
         WHERE v.kept_until IS NOT NULL AND v.version <> s.version ORDER BY s.name, v.version",
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::query("read the replaced values"))?;
    found
        .iter()
        .map(|columns| {
            let until = Row::new("secret_versions", "name", columns).time("kept_until")?;
            Ok(ReplacedVersion { secret: row(columns)?.secret, until })
        })
        .collect()
}

/// Converts a version, joined with the columns of its secret.
pub(super) fn row(columns: &SqliteRow) -> Result<VersionRow, StoreError> {
    let mut secret = rows::secret(columns)?;
    let row = Row::new("secret_versions", "name", columns);
    let of_version: u32 = row.get("of_version")?;
    let current = secret.version == of_version;
    secret.version = of_version;
    let definition: Option<&str> = row.get("definition")?;
    if let Some(definition) = definition.filter(|_| !current) {
        let definition: Definition =
            serde_json::from_str(definition).map_err(|error| row.bad("definition", error))?;
        definition.apply(&mut secret);
    }
    Ok(VersionRow { secret, current })
}

/// Reports whether [`prune`] has work to do. Takes no lock.
pub(super) async fn any_expired(
    pool: &SqlitePool,
    now: Timestamp,
    latest: Timestamp,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM secret_versions WHERE kept_until <= ? OR kept_until > ?)",
    )
    .bind(now.as_microsecond())
    .bind(latest.as_microsecond())
    .fetch_one(pool)
    .await
    .map_err(StoreError::query("search for replaced values"))
}

/// See [`crate::Store::prune_replaced`]. A current version is never erased, whatever its row contains.
pub(super) async fn prune(
    tx: &mut Transaction<'static, Sqlite>,
    now: Timestamp,
    latest: Timestamp,
) -> Result<u64, StoreError> {
    let failed = StoreError::query("erase replaced values");
    sqlx::query("UPDATE secret_versions SET kept_until = ?1 WHERE kept_until > ?1")
        .bind(latest.as_microsecond())
        .execute(&mut **tx)
        .await
        .map_err(failed)?;
    let done = sqlx::query(
        "DELETE FROM secret_versions WHERE kept_until <= ? AND NOT EXISTS
            (SELECT 1 FROM secrets s WHERE s.id = secret AND s.version = secret_versions.version)",
    )
    .bind(now.as_microsecond())
    .execute(&mut **tx)
    .await
    .map_err(failed)?;
    Ok(done.rows_affected())
}
