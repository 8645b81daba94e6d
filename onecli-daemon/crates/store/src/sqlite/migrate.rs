//! Schema migrations.

use std::path::PathBuf;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::SqlitePool;

use crate::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("../../../migrations/sqlite");

pub(super) async fn run(pool: &SqlitePool, path: PathBuf) -> Result<(), StoreError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    match MIGRATIONS.run(pool).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) if found > known => {
            Err(StoreError::Newer { path, found, known })
        }
        Err(source) => Err(StoreError::Migrate { path, source }),
    }
}
