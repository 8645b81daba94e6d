//! Errors of the store.

use std::path::PathBuf;

use onecli_sys::PrivateDirError;

/// Errors of the store. They never contain a value, sealed or not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL does not name a supported store.
    #[error("'{url}' is not a supported store URL: use sqlite:///ABSOLUTE/PATH/onecli.db")]
    Url {
        /// The URL, without its user part.
        url: String,
    },
    /// The directory of the database is not private.
    #[error("the store's directory is not safe: {0}")]
    Dir(#[from] PrivateDirError),
    /// The database file is accessible to other users, or not to this one.
    #[error("the database {} {problem}", path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// The problem and its fix.
        problem: String,
    },
    /// The database cannot be opened.
    #[error("cannot open the database {}: {source}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// The database's error.
        source: sqlx::Error,
    },
    /// The schema could not be migrated.
    #[error("cannot bring the tables of {} up to date: {source}", path.display())]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// The migration's error.
        source: sqlx::migrate::MigrateError,
    },
    /// A newer version of the program has written the database.
    #[error(
        "the database {} has version {found}, but this program supports up to {known}: install the newer \
         version again, or restore a backup made before the upgrade",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The database's version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// Another row has this name, cgroup or user.
    #[error("the {what} '{value}' is already taken by the {holder}")]
    Taken {
        /// `agent name`, `cgroup`, `user` or `secret name`.
        what: &'static str,
        /// The requested value.
        value: String,
        /// The row that has it.
        holder: String,
    },
    /// No row has this id.
    #[error("there is no {what} with the id {id}")]
    NotFound {
        /// `agent`, `secret` or `rule`.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// Another change to the row came first.
    #[error(
        "the {what} {id} is at {column} {stored} and cannot change to {offered}: it was changed meanwhile"
    )]
    Conflict {
        /// `agent` or `secret`.
        what: &'static str,
        /// The id.
        id: String,
        /// `generation` or `version`.
        column: &'static str,
        /// The stored number.
        stored: u32,
        /// The offered number.
        offered: u32,
    },
    /// A row that does not parse: it was edited, or it is damaged.
    #[error("the row '{row}' of table {table} cannot be used: {column}: {reason}")]
    BadRow {
        /// The table.
        table: &'static str,
        /// The row's name or key.
        row: String,
        /// The column.
        column: &'static str,
        /// The reason.
        reason: String,
    },
    /// Removed data is still in the database's write-ahead log.
    #[error(
        "removed data is still in the database's write-ahead log (onecli.db-wal), because a process reads \
         the database, perhaps a backup: it is erased when that ends; check with 'onecli key status'"
    )]
    NotErased,
    /// A statement failed.
    #[error("the database could not {doing}: {source}")]
    Query {
        /// The action that failed.
        doing: &'static str,
        /// The database's error.
        source: sqlx::Error,
    },
}

impl StoreError {
    /// Wraps the database's error with the action that failed.
    pub(super) fn query(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
        move |source| StoreError::Query { doing, source }
    }
}
