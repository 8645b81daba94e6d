//! Replaces the database with a backup after verifying the backup.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::Uid;
use onecli_config::Config;
use onecli_model::Clock;
use onecli_store::{SqliteStore, Store};
use onecli_sys::privilege;
use onecli_sys::{OsRandom, PrivateDir, SystemClock};
use onecli_vault::{KeySource, Vault};

use crate::data_dir::{hold, key_source};
use crate::process::AppError;

/// The copy of the backup during verification. It is in the data directory, so that it is on the same file system.
const CANDIDATE: &str = "restore-candidate.db";
/// The number of failures listed by name.
const NAMED: usize = 20;

/// The result of a restore or of a dry run.
#[derive(Debug)]
pub(crate) struct Restored {
    agents: usize,
    secrets: usize,
    opened: u64,
    key_id: String,
    database: PathBuf,
    /// The new path of the previous database; `None` if there was none.
    aside: Option<PathBuf>,
    dry_run: bool,
    /// The file from which a passphrase or recovery key was read. The daemon's configuration does not contain it.
    passphrase_file: Option<PathBuf>,
}

impl Restored {
    /// Returns the machine-readable form.
    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "agents": self.agents,
            "secrets": self.secrets,
            "values_opened": self.opened,
            "key_id": self.key_id,
            "database": self.database,
            "former_database": self.aside,
            "dry_run": self.dry_run,
        })
        .to_string()
    }
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the backup is intact: {} agents, {} secrets, {} sealed values, all of them readable (root key {})",
            self.agents, self.secrets, self.opened, self.key_id
        )?;
        if self.dry_run {
            return write!(f, "nothing was changed (--dry-run)");
        }
        if let Some(aside) = &self.aside {
            writeln!(f, "the previous database was renamed to {}", aside.display())?;
        }
        write!(f, "restored {}; start the daemon", self.database.display())?;
        match &self.passphrase_file {
            Some(file) => write!(
                f,
                ". It also needs a key that opens the backup: if root.key does not, start it with --passphrase-file {}",
                file.display()
            ),
            None => Ok(()),
        }
    }
}

/// Verifies a backup and, unless it is a dry run, replaces the database with it. The daemon must not run. Root opens
/// the backup, and the process then becomes the owner of the data directory. The daemon can therefore read the files
/// that this creates.
///
/// # Errors
/// [`AppError::DataInUse`], [`AppError::DataLock`]; [`AppError::Vault`] if the present key does not open the backup; [`AppError::Restore`]
/// for a defect of the backup. In all these cases nothing has changed.
pub(crate) fn restore(config: &Config, file: &Path, dry_run: bool) -> Result<Restored, AppError> {
    let opened = File::open(file);
    let owner = std::fs::metadata(&config.data_dir).ok().filter(|facts| facts.uid() != 0);
    if let Some(owner) = owner.filter(|_| Uid::effective().is_root()) {
        privilege::become_user(owner.uid().into(), owner.gid().into())?;
    }
    let data_dir = PrivateDir::create(&config.data_dir)?;
    // Also prevents a daemon from starting during the restore.
    let _data = hold(&data_dir)?;
    let keys = key_source(config, &data_dir)?;
    let database = onecli_store::sqlite_path(&config.store_url())?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Runtime)?;
    let backup = Backup { path: file.to_owned(), opened };
    let restored = runtime.block_on(replace(backup, dry_run, &keys, &database))?;
    Ok(Restored { passphrase_file: config.vault.passphrase_file.clone(), ..restored })
}

/// The backup to restore.
struct Backup {
    path: PathBuf,
    opened: io::Result<File>,
}

async fn replace(
    backup: Backup,
    dry_run: bool,
    keys: &KeySource,
    database: &Path,
) -> Result<Restored, AppError> {
    let directory = PrivateDir::create(database.parent().unwrap_or(Path::new("/")))?;
    let candidate = Candidate::copy(backup, directory.join(CANDIDATE))?;
    let (agents, secrets, opened, key_id) = examine(&candidate.0, keys).await?;
    let mut restored = Restored {
        agents,
        secrets,
        opened,
        key_id,
        database: database.to_owned(),
        aside: None,
        dry_run,
        passphrase_file: None,
    };
    if !dry_run {
        // Opening and closing merges the write-ahead log into the one file. A database that does not open is left
        // unchanged.
        if database.exists()
            && let Ok(there) = SqliteStore::open(database).await
        {
            there.close().await;
        }
        restored.aside = exchange(&candidate.0, database, SystemClock.now().as_second())?;
    }
    Ok(restored)
}

/// Opens every value in the backup.
async fn examine(path: &Path, keys: &KeySource) -> Result<(usize, usize, u64, String), AppError> {
    let store = SqliteStore::open(path).await?;
    let damage = onecli_store::KeyStore::check_integrity(&store).await?;
    if let Some(first) = damage.first() {
        return Err(AppError::Restore(format!("the backup is damaged: {first}; use another backup")));
    }
    let state = store.load().await?;
    let vault = Vault::unlock_used(&store, keys, Arc::new(OsRandom)).await?;
    let (opened, failures) = vault.verify(&store).await?;
    if !failures.is_empty() {
        let named = failures.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("\n  ");
        return Err(AppError::Restore(format!(
            "{} values in the backup cannot be opened; use another backup:\n  {named}",
            failures.len()
        )));
    }
    let found = (state.agents.len(), state.secrets.len(), opened, vault.key_id().to_string());
    // Closing the last connection merges everything into the one file and removes the files beside it.
    store.close().await;
    Ok(found)
}

/// A copy that is removed on drop unless it was renamed.
struct Candidate(PathBuf);

impl Candidate {
    fn copy(from: Backup, to: PathBuf) -> Result<Candidate, AppError> {
        let Backup { path, opened } = from;
        let bad = |what: &str, error: &dyn fmt::Display| {
            AppError::Restore(format!("cannot {what} {}: {error}", path.display()))
        };
        let mut source = opened.map_err(|error| bad("read the backup", &error))?;
        let facts = source.metadata().map_err(|error| bad("read the backup", &error))?;
        if !facts.is_file() || facts.size() == 0 {
            return Err(bad("restore", &"it is not a file, or it is empty"));
        }
        let candidate = Candidate(to);
        candidate.remove();
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&candidate.0)
            .map_err(|error| bad("copy", &error))?;
        io::copy(&mut source, &mut copy)
            .and_then(|_| copy.sync_all())
            .map_err(|error| bad("copy", &error))?;
        Ok(candidate)
    }

    fn remove(&self) {
        for path in with_companions(&self.0) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A database and the files that SQLite may create beside it. The log comes first: a database without its log lacks
/// the log's changes, and a log without its database is useless.
fn with_companions(path: &Path) -> [PathBuf; 3] {
    ["-wal", "-shm", ""].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

/// Renames the database to another name and the candidate to the database's name. If it is interrupted in between,
/// the database is intact under its other name, and the restore can be repeated.
fn exchange(candidate: &Path, database: &Path, now: i64) -> Result<Option<PathBuf>, AppError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| AppError::Restore(format!("cannot rename {path}: {error}"))
    };
    let mut aside = database.as_os_str().to_owned();
    aside.push(format!(".before-restore-{now}"));
    let aside = PathBuf::from(aside);
    let there = database.exists();
    for (from, to) in with_companions(database).iter().zip(with_companions(&aside)) {
        if from.exists() {
            std::fs::rename(from, to).map_err(failed(from))?;
        }
    }
    std::fs::rename(candidate, database).map_err(failed(candidate))?;
    let directory = database.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed(directory))?;
    Ok(there.then_some(aside))
}
