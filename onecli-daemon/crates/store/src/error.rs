//! Why the store could not do what it was asked.

use std::path::PathBuf;

use onecli_sys::PrivateDirError;

/// What can go wrong in the store. Never holds a value, sealed or not.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A URL that names no store.
    #[error("'{url}' names no store: write sqlite:///ABSOLUTE/PATH/onecli.db")]
    Url {
        /// The URL, without its user part.
        url: String,
    },
    /// The directory of the database is not private.
    #[error("the store's directory is not safe: {0}")]
    Dir(#[from] PrivateDirError),
    /// The database file is not one that only we can read and write.
    #[error("the database {} {problem}", path.display())]
    File {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it, and the fix.
        problem: String,
    },
    /// The database does not open.
    #[error("cannot open the database {}: {source}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// The database's answer.
        source: sqlx::Error,
    },
    /// The tables could not be brought up to date.
    #[error("cannot bring the tables of {} up to date: {source}", path.display())]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// What the migration ran into.
        source: sqlx::migrate::MigrateError,
    },
    /// A newer program has written it.
    #[error(
        "the database {} is of version {found}, this program knows up to {known}: \
         install the newer version again, or restore a backup made before the upgrade",
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
    /// A name, cgroup or user that another row holds.
    #[error("the {what} '{value}' is already taken by the {holder}")]
    Taken {
        /// `agent name`, `cgroup`, `user` or `secret name`.
        what: &'static str,
        /// What was asked for.
        value: String,
        /// Who has it.
        holder: String,
    },
    /// No such row.
    #[error("there is no {what} with the id {id}")]
    NotFound {
        /// `agent`, `secret` or `rule`.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// Somebody else changed the row first.
    #[error(
        "the {what} {id} is at {column} {stored}, so {offered} does not follow: it was changed meanwhile"
    )]
    Conflict {
        /// `agent` or `secret`.
        what: &'static str,
        /// The id.
        id: String,
        /// `generation` or `version`.
        column: &'static str,
        /// What is stored.
        stored: u32,
        /// What was offered.
        offered: u32,
    },
    /// A row that does not parse: written by hand, or damaged.
    #[error("the row '{row}' of table {table} cannot be used: {column}: {reason}")]
    BadRow {
        /// The table.
        table: &'static str,
        /// The row's name or key.
        row: String,
        /// The column.
        column: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What was removed is still in the database's log.
    #[error(
        "what was removed is still in the database's log (onecli.db-wal), because something reads the database, a backup \
         perhaps: it is erased as soon as that ends; 'onecli key status' tells"
    )]
    NotErased,
    /// The database failed.
    #[error("the database could not {doing}: {source}")]
    Query {
        /// What was tried.
        doing: &'static str,
        /// The database's answer.
        source: sqlx::Error,
    },
}

impl StoreError {
    /// Wraps the database's answer with what was tried.
    pub(super) fn query(doing: &'static str) -> impl Fn(sqlx::Error) -> StoreError + Copy {
        move |source| StoreError::Query { doing, source }
    }
}
