//! The table of leases.

use async_trait::async_trait;

use super::super::{LeaseRow, LeaseStore, StoreError};
use super::rows;
use super::store::SqliteStore;

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn add_lease(&self, lease: &LeaseRow) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO leases (id, agent, path) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING")
            .bind(&lease.id)
            .bind(lease.agent.to_string())
            .bind(&lease.path)
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("store a lease"))?;
        Ok(())
    }

    async fn remove_lease(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM leases WHERE id = ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(StoreError::query("remove a lease"))?;
        Ok(())
    }

    async fn list_leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        let leases = sqlx::query("SELECT * FROM leases ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .map_err(StoreError::query("read the leases"))?;
        leases.iter().map(rows::lease).collect()
    }
}
