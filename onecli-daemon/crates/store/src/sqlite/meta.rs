//! The table of the store's own facts.

use sqlx::Transaction;
use sqlx::sqlite::Sqlite;

use crate::StoreError;

pub(super) async fn set_meta_entry(
    tx: &mut Transaction<'static, Sqlite>,
    key: &str,
    value: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    .bind(key)
    .bind(value)
    .execute(&mut **tx)
    .await
    .map_err(StoreError::query("write its metadata"))?;
    Ok(())
}
