//! Faults of the database, for tests of this crate and of others.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "fixtures")]

use super::store::SqliteStore;

impl SqliteStore {
    /// Makes every use of the audit rows fail, until it is called with `false`.
    pub async fn hide_audit(&self, hidden: bool) {
        let rename =
            if hidden { "ALTER TABLE audit RENAME TO hidden" } else { "ALTER TABLE hidden RENAME TO audit" };
        sqlx::query(rename).execute(&self.pool).await.unwrap();
    }
}
