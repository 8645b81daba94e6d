//! Re-keying, interrupted at any point, while values are read, added and removed.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use onecli_store::{
    LeaseRow, LeaseStore, ReplacedVersion, Rewrap, RunnerChange, RunnerRow, RunnerStore, SlotRow,
    StoreContents, StoreError, VaultChange, VersionRow,
};
use zeroize::Zeroizing;

use super::super::unlock::META_REKEY;
use super::*;
use onecli_model::AgentId;
use onecli_model::Sealed;
use onecli_model::SecretId;
use onecli_model::Token;
use onecli_model::TokenHash;
use std::sync::Arc;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

impl Host {
    /// Stores `count` secrets; the value of each depends on its number.
    async fn fill(&self, vault: &Vault, count: u128) {
        for number in 1..=count {
            let base = Secret { name: format!("key{number}").parse().unwrap(), ..secret(number, "key") };
            let sealed = vault.seal(&base, &value(&format!("value number {number}"))).unwrap();
            self.store.add_secret(&Secret { sealed, ..base }).await.unwrap();
        }
    }

    async fn rotate(&self, vault: &Vault, number: usize, text: &str) {
        let mut secret = self.store.load().await.unwrap().secrets[number].clone();
        let kept = Secret { sealed: vault.retire(&secret).unwrap(), ..secret.clone() };
        let kept = ReplacedVersion { secret: kept, until: NOW };
        secret.version += 1;
        secret.sealed = vault.seal(&secret, &value(text)).unwrap();
        self.store.add_version(&secret, Some(&kept)).await.unwrap();
    }

    /// Checks that all stored values open; returns their number.
    async fn all_open(&self, vault: &Vault) -> u64 {
        let (opened, failures) = vault.verify(&self.store).await.unwrap();
        assert_eq!(failures, Vec::<String>::new());
        opened
    }
}

async fn begin(host: &Host, vault: &Vault) -> StartedRekey {
    vault.begin_rekey(&host.store, &[], false, NOW).await.unwrap()
}

#[tokio::test]
async fn rekey_moves_every_value_to_the_new_root_key() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    host.fill(&vault, 300).await;
    host.rotate(&vault, 0, "a later value").await;
    let token = Token::generate_agent(&OsRandom).unwrap();
    let (id, agent) = (secret(1, "key").id, agent(1, "one").id);
    let derived = |vault: &Vault| {
        (vault.token_hash(&token), vault.placeholder(agent, id, 1), vault.audit_key().clone())
    };
    let (old, before, old_file) = (vault.key_id(), derived(&vault), std::fs::read(host.key_file()).unwrap());
    let bodies = async || -> Vec<Vec<u8>> {
        let rows = host.store.list_versions(None, 1000).await.unwrap();
        rows.iter().map(|row| row.secret.sealed.0[121..].to_vec()).collect()
    };
    let bodies_before = bodies().await;
    let (old_slot, old_wrap) = (
        host.store.list_slots().await.unwrap().remove(0).sealed.0,
        host.store.list_versions(None, 1).await.unwrap().remove(0).secret.sealed.0[..121].to_vec(),
    );

    let begun = begin(&host, &vault).await;
    assert_eq!(vault.key_id(), begun.key_id);
    assert_ne!(begun.key_id, old);
    assert_ne!(std::fs::read(host.key_file()).unwrap(), old_file, "the key file has a new key");
    assert_eq!(vault.rekeying().unwrap().from, old);
    assert_eq!(host.all_open(&vault).await, 302, "both keys are usable");
    assert!(vault.begin_rekey(&host.store, &[], false, NOW).await.is_err(), "one at a time");
    assert!(vault.remove_slot(&host.store, 1).await.is_err());

    let takeover = host.store.get_meta(META_REKEY).await.unwrap().unwrap().into_bytes();
    assert_eq!(vault.run_rekey(&host.store).await.unwrap(), old);
    assert_eq!(vault.rekeying(), None);
    assert_eq!(vault.key_status(&host.store).await.unwrap().unerased, None);
    // An attacker with the old key and the files as they are now finds nothing that it opens.
    let files =
        ["onecli.db", "onecli.db-wal"].map(|name| std::fs::read(host.dir.join(name)).unwrap_or_default());
    for (what, bytes) in [("slot", &old_slot), ("takeover", &takeover), ("wrap", &old_wrap)] {
        // Half of it, from the middle: the beginning is not secret.
        let bytes = &bytes[bytes.len() / 3..bytes.len() * 2 / 3];
        assert!(!files.concat().windows(bytes.len()).any(|window| window == bytes), "the old {what}");
    }
    assert_eq!(host.store.count_versions(old.0).await.unwrap(), (301, 0));
    assert_eq!(bodies().await, bodies_before, "only wraps were written");
    assert!(host.store.list_slots().await.unwrap().iter().all(|slot| slot.root == begun.key_id.0));

    let fresh = host.unlock().await.unwrap();
    assert_eq!(fresh.key_id(), begun.key_id);
    assert_eq!(host.all_open(&fresh).await, 302);
    assert_eq!(derived(&fresh), before, "tokens and placeholders do not change");
    std::fs::remove_file(host.key_file()).unwrap();
    std::fs::write(host.key_file(), old_file).unwrap();
    chmod(&host.key_file(), 0o400);
    assert!(host.unlock().await.unwrap_err().is_key_problem(), "the old key no longer opens anything");
}

/// The policy snapshot of running requests may be older than two rotations: it is compiled again while they run.
#[tokio::test]
async fn value_read_before_two_rekeys_opens_within_grace() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    host.fill(&vault, 1).await;
    let read = host.store.load().await.unwrap().secrets.remove(0);
    let first = vault.key_id();
    for _ in 0..2 {
        begin(&host, &vault).await;
        vault.run_rekey(&host.store).await.unwrap();
        assert_eq!(vault.open_value(&read).unwrap().expose(), b"value number 1");
    }
    vault.forget(first);
    assert!(vault.open_value(&read).is_err());
    assert_eq!(host.all_open(&vault).await, 2);
}

#[tokio::test]
async fn rekey_reseals_slots_or_reports_them() {
    const PASSPHRASE: &str = "correct horse battery staple";
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let text = |text: &str| Zeroizing::new(text.to_owned());
    vault.add_slot(&host.store, NewSlot::Passphrase(text(PASSPHRASE)), NOW).await.unwrap();
    let (_, first) = vault.add_slot(&host.store, NewSlot::Recovery, NOW).await.unwrap();
    vault.add_slot(&host.store, NewSlot::Key(Zeroizing::new([9; 32])), NOW).await.unwrap();

    let before = std::fs::read(host.key_file()).unwrap();
    let error =
        vault.begin_rekey(&host.store, &[text("some other passphrase")], false, NOW).await.unwrap_err();
    assert!(error.to_string().contains("slot 2, 4 cannot be resealed"), "{error}");
    assert_eq!(std::fs::read(host.key_file()).unwrap(), before);
    assert!(!host.dir.join("root.key.new").exists() && vault.rekeying().is_none(), "nothing has changed");

    let begun = vault.begin_rekey(&host.store, &[text(PASSPHRASE)], true, NOW).await.unwrap();
    assert_eq!(begun.dropped, [4]);
    vault.run_rekey(&host.store).await.unwrap();
    let kinds: Vec<_> =
        vault.key_status(&host.store).await.unwrap().slots.iter().map(|s| (s.number, s.kind)).collect();
    assert_eq!(kinds, [(1, "key"), (2, "passphrase"), (3, "recovery")]);
    std::fs::remove_file(host.key_file()).unwrap();
    let check = async |text: &str, opens: bool| {
        let file = host.dir.join("passphrase");
        let _ = std::fs::remove_file(&file);
        std::fs::write(&file, text).unwrap();
        chmod(&file, 0o400);
        let source = host.source.clone().with_passphrase_file(&file).unwrap();
        let unlocked = Vault::unlock(&host.store, &source, Arc::new(OsRandom)).await;
        assert_eq!(unlocked.is_ok(), opens, "{unlocked:?}");
    };
    check(PASSPHRASE, true).await;
    let [(3, again)] = begun.recovery.as_slice() else { panic!("{:?}", begun.recovery.len()) };
    check(again, true).await;
    check(&first.unwrap(), false).await;
}

/// A store that fails at the n-th change, as for a killed process: all later calls fail without effect.
#[derive(Debug)]
struct Dying {
    store: SqliteStore,
    left: AtomicU64,
}

impl Dying {
    fn spend(&self) -> Result<(), StoreError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| StoreError::NotFound { what: "process", id: "killed".to_owned() })
    }
}

macro_rules! pass_on {
    ($(fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        #[async_trait::async_trait]
        impl Store for Dying {
            fn subscribe(&self) -> tokio::sync::watch::Receiver<u64> {
                self.store.subscribe()
            }
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$out, StoreError> {
                self.store.$name($($arg),*).await
            })*
        }
    };
}

pass_on! {
    fn load() -> StoreContents;
    fn is_empty() -> bool;
    fn add_agent(agent: &onecli_model::Agent, token: &TokenHash) -> ();
    fn set_token(id: AgentId, token: &TokenHash, generation: u32) -> ();
    fn set_agent_enabled(id: AgentId, enabled: bool) -> ();
    fn change_agent(id: AgentId, change: &onecli_store::AgentChange) -> ();
    fn remove_agent(id: AgentId) -> ();
    fn add_session(agent: AgentId, token: &TokenHash, expires: Timestamp, launched_by: Option<u32>) -> ();
    fn prune_sessions(now: Timestamp) -> u64;
    fn add_secret(secret: &Secret) -> ();
    fn add_version(secret: &Secret, kept: Option<&ReplacedVersion>) -> ();
    fn prune_replaced(now: Timestamp, latest: Timestamp) -> u64;
    fn set_secret_enabled(id: SecretId, enabled: bool) -> ();
    fn remove_secret(id: SecretId) -> ();
    fn grant(agent: AgentId, secret: SecretId) -> ();
    fn ungrant(agent: AgentId, secret: SecretId) -> bool;
    fn insert_audit(rows: &[onecli_store::AuditRow]) -> ();
    fn last_audit_seq(log: onecli_model::LogId) -> u64;
    fn last_audit_line(log: onecli_model::LogId) -> Option<(u64, String)>;
    fn last_audit_id() -> u64;
    fn prune_audit(log: onecli_model::LogId, through: u64) -> ();
    fn list_audit(query: &onecli_store::AuditQuery) -> Vec<onecli_store::AuditRow>;
    fn get_meta(key: &str) -> Option<String>;
    fn add_rule(agent: Option<AgentId>, terms: &onecli_model::RuleSpec) -> onecli_model::RuleId;
    fn remove_rule(id: onecli_model::RuleId) -> ();
    fn probe() -> ();
    fn set_meta(entries: &[(&str, &str)]) -> ();
}

#[async_trait::async_trait]
impl RunnerStore for Dying {
    async fn runners(&self, agent: AgentId) -> Result<Vec<onecli_model::Runner>, StoreError> {
        self.store.runners(agent).await
    }
    async fn all_runners(&self) -> Result<Vec<RunnerRow>, StoreError> {
        self.store.all_runners().await
    }
    async fn set_runner(
        &self,
        agent: AgentId,
        runner: &onecli_model::Runner,
        change: RunnerChange,
    ) -> Result<bool, StoreError> {
        self.store.set_runner(agent, runner, change).await
    }
}

#[async_trait::async_trait]
impl LeaseStore for Dying {
    async fn add_lease(&self, lease: &LeaseRow) -> Result<(), StoreError> {
        self.store.add_lease(lease).await
    }
    async fn remove_lease(&self, id: &str) -> Result<(), StoreError> {
        self.store.remove_lease(id).await
    }
    async fn list_leases(&self) -> Result<Vec<LeaseRow>, StoreError> {
        self.store.list_leases().await
    }
}

#[async_trait::async_trait]
impl KeyStore for Dying {
    async fn list_slots(&self) -> Result<Vec<SlotRow>, StoreError> {
        self.store.list_slots().await
    }
    async fn change_vault(&self, change: &VaultChange) -> Result<bool, StoreError> {
        self.spend()?;
        self.store.change_vault(change).await
    }
    async fn get_blob(&self, purpose: &str) -> Result<Option<Sealed>, StoreError> {
        self.store.get_blob(purpose).await
    }
    async fn list_blobs(&self) -> Result<Vec<(String, Sealed)>, StoreError> {
        self.store.list_blobs().await
    }
    async fn list_versions(
        &self,
        after: Option<(SecretId, u32)>,
        limit: u32,
    ) -> Result<Vec<VersionRow>, StoreError> {
        self.store.list_versions(after, limit).await
    }
    async fn count_versions(&self, root: [u8; 8]) -> Result<(u64, u64), StoreError> {
        self.store.count_versions(root).await
    }
    async fn rewrap(&self, changes: &[Rewrap]) -> Result<(), StoreError> {
        self.spend()?;
        self.store.rewrap(changes).await
    }
    async fn erased(&self) -> Result<(), StoreError> {
        self.store.erased().await
    }
    async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        self.store.copy_to(path).await
    }
    async fn check_integrity(&self) -> Result<Vec<String>, StoreError> {
        self.store.check_integrity().await
    }
}

/// Killed before the first change, the second, and so on: each new start opens everything, and the last one
/// completes the re-keying.
#[tokio::test]
async fn rekey_continues_after_kill_at_every_step() {
    let mut host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    host.fill(&vault, 600).await;
    let old = vault.key_id();
    drop(vault);
    let mut ended = false;
    for changes in 0..10 {
        let dying = Dying { store: host.store, left: AtomicU64::new(changes) };
        let vault = Vault::unlock(&dying, &host.source, Arc::new(OsRandom)).await.unwrap();
        if vault.rekeying().is_none() && vault.key_id() == old {
            let _ = vault.begin_rekey(&dying, &[], false, NOW).await;
        }
        if vault.rekeying().is_some() {
            let _ = vault.run_rekey(&dying).await;
        }
        host.store = dying.store;
        let vault = host.unlock().await.unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
        assert_eq!(host.all_open(&vault).await, 601, "after {changes} changes");
        ended |= vault.rekeying().is_none() && vault.key_id() != old;
    }
    assert!(ended, "re-keying never completed");
}

/// The key file is written beside and then renamed: the files that exist after a crash open the vault.
#[tokio::test]
async fn rekey_continues_after_kill_around_key_file() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    host.fill(&vault, 3).await;
    let old_file = std::fs::read(host.key_file()).unwrap();
    let put = |name: &str, content: &[u8]| {
        let path = host.dir.join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, content).unwrap();
        chmod(&path, 0o400);
    };
    // Before the store had it: the file is complete or partial.
    for content in [&[1; 32][..], &[1; 7]] {
        put("root.key.new", content);
        assert_eq!(host.unlock().await.unwrap().key_id(), vault.key_id());
        assert_eq!(std::fs::read(host.key_file()).unwrap(), old_file);
        assert!(!host.dir.join("root.key.new").exists());
    }
    // After the store had it, before it was renamed.
    let begun = begin(&host, &vault).await;
    let new_file = std::fs::read(host.key_file()).unwrap();
    put("root.key", &old_file);
    put("root.key.new", &new_file);
    let vault = host.unlock().await.unwrap();
    assert_eq!((vault.key_id(), host.all_open(&vault).await), (begun.key_id, 4));
    assert_eq!(std::fs::read(host.key_file()).unwrap(), new_file);
    vault.run_rekey(&host.store).await.unwrap();
    assert_eq!(host.all_open(&host.unlock().await.unwrap()).await, 4);
}

/// The old slots are removed only if the next start does not need them.
#[tokio::test]
async fn lost_new_key_file_keeps_the_old_key_in_use() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    host.fill(&vault, 3).await;
    let old_file = std::fs::read(host.key_file()).unwrap();
    begin(&host, &vault).await;
    std::fs::remove_file(host.key_file()).unwrap();
    std::fs::write(host.key_file(), old_file).unwrap();
    chmod(&host.key_file(), 0o400);
    let error = vault.run_rekey(&host.store).await.unwrap_err().to_string();
    assert!(error.contains("no key that the daemon finds opens the new root key"), "{error}");
    let vault = host.unlock().await.unwrap();
    assert_eq!(host.all_open(&vault).await, 4);
    std::fs::remove_file(host.key_file()).unwrap();
    vault.add_slot(&host.store, NewSlot::KeyFile, NOW).await.unwrap();
    vault.run_rekey(&host.store).await.unwrap();
    assert_eq!(host.all_open(&host.unlock().await.unwrap()).await, 4);
}

/// Opening another store, such as a backup, does not affect the files of this one.
#[tokio::test]
async fn opening_a_used_store_changes_no_key_file() {
    let host = Host::new().await;
    host.unlock().await.unwrap();
    let path = host.dir.join("root.key.new");
    std::fs::write(&path, [1; 32]).unwrap();
    chmod(&path, 0o400);
    Vault::unlock_used(&host.store, &host.source, Arc::new(OsRandom)).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn unreadable_value_retains_the_old_key_until_repaired() {
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    host.fill(&vault, 3).await;
    let bad = host.store.load().await.unwrap().secrets[1].clone();
    let mut spoilt = bad.sealed.clone();
    *spoilt.0.last_mut().unwrap() ^= 1;
    let change = Rewrap { secret: bad.id, version: 1, from: bad.sealed.clone(), to: spoilt.clone() };
    host.store.rewrap(&[change]).await.unwrap();
    begin(&host, &vault).await;
    let error = vault.run_rekey(&host.store).await.unwrap_err().to_string();
    assert!(error.contains("1 values do not open") && error.contains("key2 (version 1)"), "{error}");
    assert!(vault.rekeying().is_some_and(|rekey| rekey.done == 2 && rekey.total == 3));
    // Repaired from a backup, it opens: nothing was lost.
    let change = Rewrap { secret: bad.id, version: 1, from: spoilt, to: bad.sealed };
    host.store.rewrap(&[change]).await.unwrap();
    vault.run_rekey(&host.store).await.unwrap();
    assert_eq!(host.all_open(&vault).await, 4);
}

/// Values that are added, rotated and removed during re-keying end under the new key.
#[tokio::test]
async fn changes_during_rekey_are_not_lost() {
    let host = Host::new().await;
    let vault = Arc::new(host.unlock().await.unwrap());
    host.fill(&vault, 700).await;
    let old = vault.key_id();
    let rows = host.store.load().await.unwrap().secrets;
    begin(&host, &vault).await;
    let work = async {
        let mut number = 0;
        while vault.rekeying().is_some() {
            host.rotate(&vault, number, &format!("rotated value {number}")).await;
            // A request that began earlier holds this value.
            assert!(open(&vault, rows[699].clone()).is_ok());
            number += 1;
        }
        number
    };
    let (done, rotated) = tokio::join!(vault.run_rekey(&host.store), work);
    done.unwrap();
    assert!(rotated > 0);
    assert_eq!(host.store.count_versions(old.0).await.unwrap().1, 0);
    assert_eq!(host.all_open(&host.unlock().await.unwrap()).await, 701 + rotated as u64);
}

/// The new key file could not be renamed yet. Whatever changes the slots meanwhile, it stays, because no other key
/// remains.
#[tokio::test]
async fn unrenamed_key_file_survives_other_slot_changes() {
    let next = |host: &Host| host.dir.join("root.key.new");
    let recovery = NewSlot::Recovery;
    let host = Host::new().await;
    let vault = host.unlock().await.unwrap();
    let old = std::fs::read(host.key_file()).unwrap();
    begin(&host, &vault).await;
    let new = std::fs::read(host.key_file()).unwrap();
    std::fs::rename(host.key_file(), next(&host)).unwrap();
    std::fs::write(host.key_file(), old).unwrap();
    chmod(&host.key_file(), 0o400);
    vault.add_slot(&host.store, recovery, NOW).await.unwrap();
    assert_eq!(std::fs::read(host.key_file()).unwrap(), new, "the file was renamed");

    // Moved aside, and another one requested: the waiting file must not be replaced.
    std::fs::rename(host.key_file(), next(&host)).unwrap();
    let refused = vault.add_slot(&host.store, NewSlot::KeyFile, NOW).await.unwrap_err().to_string();
    assert!(refused.contains("there is a key file"), "{refused}");
    assert_eq!(std::fs::read(host.key_file()).unwrap(), new);
    vault.run_rekey(&host.store).await.unwrap();
    host.unlock().await.unwrap();
}
