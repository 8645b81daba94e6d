//! Erasure of removed and replaced data from the database's files.
//!
//! SQLite leaves deleted bytes in place until the space is reused, and old pages in its write-ahead log until the
//! log is overwritten. With `secure_delete` it overwrites deleted bytes. Some changes could be reverted with the
//! old bytes: of a key slot, a root key, or a version of a secret. After such a change the whole log is moved into
//! the database and truncated (<https://sqlite.org/pragma.html#pragma_wal_checkpoint>, TRUNCATE).

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tokio::sync::watch;

use crate::StoreError;

/// The longest time that one attempt waits for the log. It is shorter than a writer's timeout.
const ATTEMPT: Duration = Duration::from_millis(500);
/// How long a change waits before it reports that the log is in use.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The `user_version` of a database without remains from the time before bytes were overwritten.
const CLEAN: i64 = 1;

/// The free space required for a rewrite, in multiples of the database's size.
const COPIES: u64 = 3;

/// Truncates the log, and retries until it succeeds.
#[derive(Debug)]
pub(super) struct RemnantEraser {
    pool: SqlitePool,
    wanted: watch::Sender<u64>,
    done: watch::Receiver<u64>,
}

impl RemnantEraser {
    /// Uses a separate connection with a shorter timeout. The work ends when this value is dropped.
    pub(super) fn new(options: SqliteConnectOptions) -> RemnantEraser {
        let pool =
            super::pool::without_expiry().max_connections(1).connect_lazy_with(options.busy_timeout(ATTEMPT));
        let (wanted, requests) = watch::channel(0);
        let (tell, done) = watch::channel(0);
        tokio::spawn(work(pool.clone(), requests, Arc::new(tell)));
        RemnantEraser { pool, wanted, done }
    }

    /// Truncates the log, or schedules that for when no process reads it any more. See [`RemnantEraser::check`].
    pub(super) async fn erase(&self) {
        let mut mine = 0;
        self.wanted.send_modify(|count| {
            *count += 1;
            mine = *count;
        });
        let mut done = self.done.clone();
        let _ = tokio::time::timeout(PATIENCE, done.wait_for(|count| *count >= mine)).await;
    }

    /// Checks that all requested erasures are done.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if *self.done.borrow() >= *self.wanted.borrow() { Ok(()) } else { Err(StoreError::NotErased) }
    }

    /// Rewrites a database that was written to by a version that left deleted bytes in place. The rewrite happens
    /// once and writes two copies of the database. If there is no room for them, or if it fails, the next start
    /// retries.
    pub(super) async fn clean(&self, database: &Path) {
        if let Err(error) = self.try_clean(database).await {
            tracing::warn!(
                %error,
                "data that older versions removed may still be in the database file: the next start retries to rewrite it"
            );
        }
    }

    async fn try_clean(&self, database: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&self.pool).await?;
        if found >= CLEAN {
            return Ok(());
        }
        let size = fs::metadata(database)?.len();
        let beside = statvfs(database)?;
        let free = beside.blocks_available() * beside.fragment_size();
        if !has_room(size, free) {
            return Err(format!(
                "{free} bytes are free on its file system, and {} are needed",
                size * COPIES
            )
            .into());
        }
        sqlx::query("VACUUM").execute(&self.pool).await?;
        sqlx::query("PRAGMA user_version = 1").execute(&self.pool).await?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// Reports whether there is room to rewrite a database of this many bytes. The rewrite uses a temporary file, which
/// may be on the same file system, and the log. Some space must remain free.
fn has_room(size: u64, free: u64) -> bool {
    size.saturating_mul(COPIES) <= free
}

async fn work(pool: SqlitePool, mut wanted: watch::Receiver<u64>, done: Arc<watch::Sender<u64>>) {
    while wanted.changed().await.is_ok() {
        let mut pause = PAUSE;
        loop {
            let through = *wanted.borrow_and_update();
            match truncate(&pool).await {
                Ok(true) => {
                    if pause > PAUSE {
                        tracing::info!("data removed from the database is erased now");
                    }
                    done.send_replace(through);
                    break;
                }
                Err(sqlx::Error::PoolClosed) => return,
                Ok(false) if pause == PAUSE => {
                    tracing::warn!(
                        "data removed from the database is still in its write-ahead log, which is in use: waiting"
                    );
                }
                Err(error) if pause == PAUSE => {
                    tracing::warn!(%error, "data removed from the database is still in its write-ahead log: retrying");
                }
                Ok(false) | Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            if wanted.has_changed().is_err() {
                return;
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}

/// Returns `false` if a process reads pages in the log.
async fn truncate(pool: &SqlitePool) -> Result<bool, sqlx::Error> {
    let busy: i64 = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(pool).await?.try_get(0)?;
    Ok(busy == 0)
}

#[cfg(test)]
mod tests {
    use super::has_room;

    #[test]
    fn database_is_rewritten_if_there_is_room() {
        const GIB: u64 = 1 << 30;
        assert!(has_room(0, 0) && has_room(GIB, 3 * GIB));
        assert!(
            !has_room(10 * GIB, 8 * GIB)
                && !has_room(GIB, 3 * GIB - 1)
                && !has_room(u64::MAX / 2, u64::MAX - 1)
        );
    }
}
