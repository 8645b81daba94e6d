//! The contract on SQLite, and tests for SQLite alone.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use onecli_model::{Sealed, Secret, TokenHash};
use onecli_sys::PrivateDir;

use super::*;
use crate::contract::{self, contract_tests};
use crate::{KeyStore as _, Store as _, StoreError, VaultChange, testing};

async fn temporary() -> (SqliteStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (SqliteStore::open(&dir.path().join("data/onecli.db")).await.unwrap(), dir)
}

contract_tests!(temporary);

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn created_files_are_private() {
    let (store, dir) = temporary().await;
    store.add_secret(&testing::secret(1, "key")).await.unwrap();
    let data = dir.path().join("data");
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// See [`pool::without_expiry`](super::pool::without_expiry).
#[tokio::test]
async fn connections_do_not_age() {
    let (store, _dir) = temporary().await;
    let options = store.pool.options();
    assert_eq!((options.get_idle_timeout(), options.get_max_lifetime()), (None, None));
}

#[tokio::test]
async fn stored_state_survives_a_restart() {
    let (store, dir) = temporary().await;
    store.add_secret(&testing::secret(1, "key")).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&dir.path().join("data/onecli.db")).await.unwrap();
    assert_eq!(store.load().await.unwrap().secrets, [testing::secret(1, "key")]);
}

#[tokio::test]
async fn commits_are_synced() {
    let (store, _dir) = temporary().await;
    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.pool).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.pool).await.unwrap();
    let foreign_keys: bool = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&store.pool).await.unwrap();
    assert_eq!((journal.as_str(), synchronous, foreign_keys), ("wal", 2, true));
}

#[tokio::test]
async fn files_open_to_other_users_are_refused() {
    let check = async |prepare: &dyn Fn(&Path), hint: &str| {
        let (_temp, dir) = PrivateDir::temporary();
        let path = dir.join("onecli.db");
        prepare(&path);
        let error = SqliteStore::open(&path).await.unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    };
    let chmod = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    check(
        &|path| {
            std::fs::write(path, "").unwrap();
            chmod(path, 0o644);
        },
        "fix: chmod 0600",
    )
    .await;
    check(&|path| chmod(path.parent().unwrap(), 0o755), "fix: chmod 0700").await;
    check(&|path| symlink("/dev/null", path).unwrap(), "symbolic link").await;
    check(&|path| std::fs::create_dir(path).unwrap(), "cannot be opened").await;
    check(
        &|path| {
            std::fs::write(path, "no database, but long enough to be looked at as one").unwrap();
            chmod(path, 0o600);
        },
        "cannot open the database",
    )
    .await;
}

#[tokio::test]
async fn newer_database_is_refused_and_unchanged() {
    let (store, dir) = temporary().await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'later', true, x'00', 0)";
    sqlx::query(newer).execute(&store.pool).await.unwrap();
    store.pool.close().await;
    let error = SqliteStore::open(&dir.path().join("data/onecli.db")).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 9999, .. }), "{error}");
}

/// An edited row must stop the load: if it were omitted or misread, decisions would be wrong.
#[tokio::test]
async fn rows_that_do_not_parse_are_named() {
    let check = async |edit: &'static str, message: &str| {
        let (store, _dir) = temporary().await;
        store.add_agent(&testing::agent(1, "one"), &TokenHash([1; 32])).await.unwrap();
        store.add_secret(&testing::secret(1, "key")).await.unwrap();
        sqlx::query(edit).execute(&store.pool).await.unwrap();
        let error = store.load().await.unwrap_err().to_string();
        assert!(error.contains(message), "{edit}: {error}");
    };
    check("UPDATE secrets SET host = '*.com'", "row 'key' of table secrets cannot be used: host").await;
    check("UPDATE secrets SET paths = '[\"/a/../b\"]'", "row 'key' of table secrets cannot be used: paths")
        .await;
    check("UPDATE secrets SET paths = '[]'", "paths: there must be at least one").await;
    check("UPDATE secrets SET methods = 'GET'", "methods").await;
    check("UPDATE secrets SET version = 2", "version: there is no value").await;
    let reserved =
        r#"UPDATE secrets SET placement = '{"kind":"header","name":"host","template":"{secret}"}'"#;
    check(reserved, "placement: the header 'host'").await;
    check(r#"UPDATE secrets SET placement = '{"kind":"basic","user":"a:b"}'"#, "placement").await;
    check("UPDATE agents SET factors = 'none'", "row 'one' of table agents cannot be used: factors").await;
    check("UPDATE agents SET cgroup = '../..'", "cgroup").await;
    check("UPDATE agents SET name = 'A B', id = 'x'", "row 'A B' of table agents cannot be used: id").await;
}

#[tokio::test]
async fn older_versions_are_kept() {
    let (store, _dir) = temporary().await;
    let key = testing::secret(1, "key");
    store.add_secret(&key).await.unwrap();
    let replaced = contract::replaced_version(&key, 7, jiff::Timestamp::MAX);
    store.add_version(&contract::version(&key, 2, 9), Some(&replaced)).await.unwrap();
    let kept: Vec<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM secret_versions ORDER BY version")
        .fetch_all(&store.pool)
        .await
        .unwrap();
    assert_eq!(kept, [vec![7], vec![9]]);
}

#[tokio::test]
async fn store_urls() {
    for url in ["", "postgres://user:hunter22@db/x", "sqlite://relative.db", "sqlite:///x?mode=ro", "/x.db"] {
        let error = crate::open(url).await.unwrap_err();
        assert!(matches!(error, StoreError::Url { .. }), "{url}: {error}");
        assert!(!error.to_string().contains("hunter22"), "{error}");
    }
    let (_temp, dir) = PrivateDir::temporary();
    crate::open(&format!("sqlite://{}/onecli.db", dir.path().display())).await.unwrap();
}

#[tokio::test]
async fn writers_wait_for_each_other() {
    let (store, _dir) = temporary().await;
    let store = std::sync::Arc::new(store);
    let tasks: Vec<_> = (1..=16_u8)
        .map(|number| {
            let store = store.clone();
            let agent = testing::agent(number.into(), &format!("agent{number}"));
            tokio::spawn(async move { store.add_agent(&agent, &TokenHash([number; 32])).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.load().await.unwrap().agents.len(), 16);
}

/// All bytes in the database's files, and the length of the log.
fn on_disk(dir: &Path) -> (Vec<u8>, u64) {
    let database = dir.join("data/onecli.db");
    let mut bytes = std::fs::read(&database).unwrap();
    let log = std::fs::read(database.with_extension("db-wal")).unwrap_or_default();
    bytes.extend(&log);
    (bytes, log.len() as u64)
}

fn holds(dir: &Path, sealed: &Sealed) -> bool {
    on_disk(dir).0.windows(sealed.0.len()).any(|window| window == sealed.0)
}

fn sealed(seed: u8) -> Sealed {
    Sealed((0..180).map(|at: u8| at.wrapping_mul(7).wrapping_add(seed) ^ seed.rotate_left(3)).collect())
}

fn slot(number: u32) -> crate::SlotRow {
    let sealed = sealed(u8::try_from(number).unwrap());
    crate::SlotRow { number, root: [1; 8], method: "{}".to_owned(), sealed, created: Timestamp::UNIX_EPOCH }
}

/// A copy of the files as they are now must contain no removed data.
#[tokio::test]
async fn removed_and_replaced_data_is_erased_from_files() {
    let (store, dir) = temporary().await;
    let key = Secret { sealed: sealed(100), ..testing::secret(1, "key") };
    store.add_secret(&key).await.unwrap();
    let gone = Secret { sealed: sealed(101), ..testing::secret(2, "gone") };
    store.add_secret(&gone).await.unwrap();
    let blob = ("ca.key".to_owned(), sealed(102));
    let fact = data_encoding::HEXLOWER.encode(&sealed(103).0);
    let add = VaultChange {
        add_slots: vec![slot(1), slot(2)],
        put_blobs: vec![blob],
        set: vec![("vault.rekey", fact.clone())],
        ..VaultChange::default()
    };
    store.change_vault(&add).await.unwrap();
    let fact = Sealed(fact.into_bytes());
    for there in [&key.sealed, &gone.sealed, &slot(1).sealed, &slot(2).sealed, &sealed(102), &fact] {
        assert!(holds(dir.path(), there), "the test finds stored data");
    }

    let remove = VaultChange {
        remove_slots: vec![(2, [1; 8])],
        remove_blobs: vec!["ca.key"],
        unset: vec!["vault.rekey"],
        ..VaultChange::default()
    };
    store.change_vault(&remove).await.unwrap();
    store.erased().await.unwrap();
    assert_eq!(on_disk(dir.path()).1, 0, "nothing is in the log");
    assert!(holds(dir.path(), &slot(1).sealed));
    for removed in [&slot(2).sealed, &sealed(102), &fact] {
        assert!(!holds(dir.path(), removed));
    }
    let mut kept = contract::replaced_version(&key, 0, jiff::Timestamp::UNIX_EPOCH);
    kept.secret.sealed = sealed(105);
    store.add_version(&Secret { version: 2, sealed: sealed(104), ..key.clone() }, Some(&kept)).await.unwrap();
    assert!(!holds(dir.path(), &key.sealed) && holds(dir.path(), &sealed(105)), "a replaced version");
    let now = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(store.prune_replaced(now, now).await.unwrap(), 1);
    assert!(!holds(dir.path(), &sealed(105)), "a retained version");
    store.remove_secret(gone.id).await.unwrap();
    assert!(!holds(dir.path(), &gone.sealed), "a removed secret");
    assert!(holds(dir.path(), &sealed(104)));
}

/// A reader prevents truncation of the log. The store reports that, and truncates it later.
#[tokio::test]
async fn data_held_by_a_reader_is_reported_and_erased_later() {
    let (store, dir) = temporary().await;
    store
        .change_vault(&VaultChange { add_slots: vec![slot(1), slot(2)], ..VaultChange::default() })
        .await
        .unwrap();
    let mut reader = store.pool.begin().await.unwrap();
    let _: i64 = sqlx::query_scalar("SELECT count(*) FROM key_slots").fetch_one(&mut *reader).await.unwrap();
    store
        .change_vault(&VaultChange { remove_slots: vec![(2, [1; 8])], ..VaultChange::default() })
        .await
        .unwrap();
    assert!(matches!(store.erased().await, Err(StoreError::NotErased)));
    assert!(holds(dir.path(), &slot(2).sealed));
    store.add_secret(&testing::secret(1, "key")).await.unwrap();
    reader.rollback().await.unwrap();
    let erased = async {
        while store.erased().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), erased).await.expect("the log was never truncated");
    assert!(!holds(dir.path(), &slot(2).sealed));
}

/// Values that older versions of the program retained for ever are erased by the upgrade.
#[tokio::test]
async fn the_upgrade_erases_values_that_were_replaced_before() {
    let (store, dir) = temporary().await;
    let key = testing::secret(1, "key");
    store.add_secret(&Secret { version: 2, sealed: sealed(2), ..key.clone() }).await.unwrap();
    sqlx::query("INSERT INTO secret_versions (secret, version, sealed) VALUES (?, 1, ?)")
        .bind(key.id.to_string())
        .bind(sealed(1).0)
        .execute(&store.pool)
        .await
        .unwrap();
    for sql in [
        "DELETE FROM _sqlx_migrations WHERE version IN (12, 13)",
        "DROP INDEX secret_versions_kept",
        "ALTER TABLE secret_versions DROP COLUMN kept_until",
        "ALTER TABLE secret_versions DROP COLUMN definition",
    ] {
        sqlx::query(sql).execute(&store.pool).await.unwrap();
    }
    store.close().await;
    assert!(holds(dir.path(), &sealed(1)));
    let store = SqliteStore::open(&dir.path().join("data/onecli.db")).await.unwrap();
    assert!(!holds(dir.path(), &sealed(1)) && holds(dir.path(), &sealed(2)));
    assert_eq!(store.load().await.unwrap().secrets[0].sealed, sealed(2));
}

/// A database of a version that left deleted bytes in place is rewritten once.
#[tokio::test]
async fn data_removed_by_older_versions_is_erased_at_start() {
    let (store, dir) = temporary().await;
    let mut older = store.pool.acquire().await.unwrap();
    sqlx::query("PRAGMA secure_delete = OFF").execute(&mut *older).await.unwrap();
    sqlx::query("INSERT INTO key_slots VALUES (1, ?, '{}', ?, 0)")
        .bind(&[1_u8; 8][..])
        .bind(sealed(1).0)
        .execute(&mut *older)
        .await
        .unwrap();
    for sql in ["DELETE FROM key_slots", "PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA user_version = 0"] {
        sqlx::query(sql).execute(&mut *older).await.unwrap();
    }
    drop(older);
    store.close().await;
    assert!(holds(dir.path(), &sealed(1)), "an older version leaves it there");
    let store = SqliteStore::open(&dir.path().join("data/onecli.db")).await.unwrap();
    assert!(!holds(dir.path(), &sealed(1)));
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&store.pool).await.unwrap();
    assert_eq!(version, 1, "and only once");
}

/// A file system of 1 MiB; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` if the test may not mount a file system.
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("none"), dir.path(), Some("tmpfs"), flags, Some("size=1m,mode=700")) {
            Ok(()) => Some(SmallDisk(dir)),
            Err(error) => {
                println!("NOT RUN: a store on a full disk (mounting a tmpfs: {error})");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while io::Write::write(&mut file, &[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.0.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// After a commit failed for lack of space, a connection used to count itself in a transaction for ever. Every
/// later change then failed.
#[tokio::test]
async fn changes_succeed_again_when_a_full_disk_has_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = SqliteStore::open(&disk.0.path().join("onecli.db")).await.unwrap();
    store.add_secret(&testing::secret(1, "key")).await.unwrap();
    disk.fill();
    let large = "x".repeat(32 * 1024);
    let entry = [("large", large.as_str())];
    let writes = (0..16).map(|_| store.set_meta(&entry));
    let failed = futures_util::future::join_all(writes).await;
    assert!(failed.iter().all(Result::is_err), "{failed:?}");
    assert!(store.probe().await.unwrap_err().to_string().contains("full"));
    assert_eq!(store.load().await.unwrap().secrets.len(), 1, "existing data can be read");

    disk.free();
    store.probe().await.unwrap();
    let agents: Vec<_> = (1..=16_u8)
        .map(|number| (testing::agent(number.into(), &format!("agent{number}")), TokenHash([number; 32])))
        .collect();
    let added = agents.iter().map(|(agent, token)| store.add_agent(agent, token));
    for added in futures_util::future::join_all(added).await {
        added.unwrap();
    }
    assert_eq!(store.load().await.unwrap().agents.len(), 16);
}
