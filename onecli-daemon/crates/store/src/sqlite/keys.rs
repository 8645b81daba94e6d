//! The vault's tables.

use std::path::Path;

use async_trait::async_trait;
use onecli_model::{Sealed, SecretId};

use super::super::{KeyStore, Rewrap, SlotRow, StoreError, VaultChange, VersionRow};
use super::meta::set_meta_entry;
use super::store::SqliteStore;
use super::{rows, versions};

/// The statement that finds users of a root key. The key's id begins at position 2 of a sealed value: see
/// `vault::envelope`.
const USED: &str = "SELECT EXISTS (SELECT 1 FROM secret_versions WHERE substr(sealed, 2, 8) = ?1)
     OR EXISTS (SELECT 1 FROM sealed_blobs WHERE substr(sealed, 2, 8) = ?1)";

#[async_trait]
impl KeyStore for SqliteStore {
    async fn list_slots(&self) -> Result<Vec<SlotRow>, StoreError> {
        let failed = StoreError::query("read the key slots");
        let slots = sqlx::query("SELECT * FROM key_slots ORDER BY number, created")
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        slots.iter().map(rows::slot).collect()
    }

    async fn change_vault(&self, change: &VaultChange) -> Result<bool, StoreError> {
        let failed = StoreError::query("change the vault's keys");
        let mut tx = self.write().await?;
        if let Some(root) = change.unless_used {
            let used: bool =
                sqlx::query_scalar(USED).bind(&root[..]).fetch_one(&mut *tx).await.map_err(failed)?;
            if used {
                return Ok(false);
            }
        }
        for (number, root) in &change.remove_slots {
            sqlx::query("DELETE FROM key_slots WHERE number = ? AND root = ?")
                .bind(number)
                .bind(&root[..])
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        for slot in &change.add_slots {
            sqlx::query(
                "INSERT INTO key_slots (number, root, method, sealed, created) VALUES (?, ?, ?, ?, ?)",
            )
            .bind(slot.number)
            .bind(&slot.root[..])
            .bind(&slot.method)
            .bind(&slot.sealed.0[..])
            .bind(slot.created.as_microsecond())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        for (purpose, sealed) in &change.put_blobs {
            sqlx::query(
                "INSERT INTO sealed_blobs (purpose, sealed) VALUES (?, ?)
                 ON CONFLICT (purpose) DO UPDATE SET sealed = excluded.sealed",
            )
            .bind(purpose)
            .bind(&sealed.0[..])
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        for purpose in &change.remove_blobs {
            sqlx::query("DELETE FROM sealed_blobs WHERE purpose = ?")
                .bind(*purpose)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        for key in &change.unset {
            sqlx::query("DELETE FROM meta WHERE key = ?")
                .bind(*key)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
        }
        for (key, value) in &change.set {
            set_meta_entry(&mut tx, key, value).await?;
        }
        if change.announce {
            self.commit(tx).await?;
        } else {
            tx.commit().await.map_err(failed)?;
        }
        if !(change.remove_slots.is_empty() && change.remove_blobs.is_empty() && change.unset.is_empty()) {
            self.eraser.erase().await;
        }
        Ok(true)
    }

    async fn erased(&self) -> Result<(), StoreError> {
        self.eraser.check()
    }

    async fn get_blob(&self, purpose: &str) -> Result<Option<Sealed>, StoreError> {
        let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM sealed_blobs WHERE purpose = ?")
            .bind(purpose)
            .fetch_optional(&self.pool)
            .await
            .map_err(StoreError::query("read a sealed value"))?;
        Ok(sealed.map(Sealed))
    }

    async fn list_blobs(&self) -> Result<Vec<(String, Sealed)>, StoreError> {
        let blobs: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT purpose, sealed FROM sealed_blobs ORDER BY purpose")
                .fetch_all(&self.pool)
                .await
                .map_err(StoreError::query("read the sealed values"))?;
        Ok(blobs.into_iter().map(|(purpose, sealed)| (purpose, Sealed(sealed))).collect())
    }

    async fn list_versions(
        &self,
        after: Option<(SecretId, u32)>,
        limit: u32,
    ) -> Result<Vec<VersionRow>, StoreError> {
        let (secret, version) = after.map_or((String::new(), 0), |(id, version)| (id.to_string(), version));
        let found = sqlx::query(
            "SELECT s.*, v.version AS of_version, v.class, v.sealed, v.definition FROM secret_versions v
             JOIN secrets s ON s.id = v.secret
             WHERE (v.secret, v.version) > (?, ?) ORDER BY v.secret, v.version LIMIT ?",
        )
        .bind(secret)
        .bind(version)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(StoreError::query("read the versions of secrets"))?;
        found.iter().map(versions::row).collect()
    }

    async fn count_versions(&self, root: [u8; 8]) -> Result<(u64, u64), StoreError> {
        let (all, of): (i64, i64) = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE substr(sealed, 2, 8) = ?) FROM secret_versions",
        )
        .bind(&root[..])
        .fetch_one(&self.pool)
        .await
        .map_err(StoreError::query("count the versions of secrets"))?;
        Ok((all.unsigned_abs(), of.unsigned_abs()))
    }

    async fn rewrap(&self, changes: &[Rewrap]) -> Result<(), StoreError> {
        let failed = StoreError::query("change the wraps of values");
        let mut tx = self.write().await?;
        for change in changes {
            sqlx::query(
                "UPDATE secret_versions SET sealed = ? WHERE secret = ? AND version = ? AND sealed = ?",
            )
            .bind(&change.to.0[..])
            .bind(change.secret.to_string())
            .bind(change.version)
            .bind(&change.from.0[..])
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let failed = StoreError::query("write a copy of itself");
        let path = path.to_str().ok_or_else(|| StoreError::File {
            path: path.to_owned(),
            problem: "has a name that is not UTF-8".to_owned(),
        })?;
        sqlx::query("VACUUM INTO ?").bind(path).execute(&self.pool).await.map_err(failed)?;
        Ok(())
    }

    async fn check_integrity(&self) -> Result<Vec<String>, StoreError> {
        let failed = StoreError::query("check itself");
        let mut found: Vec<String> =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&self.pool).await.map_err(failed)?;
        found.retain(|line| line != "ok");
        let orphans =
            sqlx::query("PRAGMA foreign_key_check").fetch_all(&self.pool).await.map_err(failed)?.len();
        if orphans > 0 {
            found.push(format!("{orphans} rows refer to missing rows"));
        }
        Ok(found)
    }
}

impl SqliteStore {
    /// Closes all connections. All data is then in the database file alone.
    pub async fn close(&self) {
        self.eraser.close().await;
        self.pool.close().await;
    }
}
