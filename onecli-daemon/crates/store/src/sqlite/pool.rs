//! Pools of connections to the database file.

use sqlx::sqlite::SqlitePoolOptions;

/// Options of a pool whose connections do not age. Connections to a file need no renewal. In sqlx 0.9.0 the task
/// that closes old ones can spin for ever: a count of idle connections wraps for a moment (launchbadge/sqlx issue
/// 3645).
pub(super) fn without_expiry() -> SqlitePoolOptions {
    SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None)
}
