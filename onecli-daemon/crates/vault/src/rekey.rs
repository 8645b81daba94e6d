//! Re-keying: a new root key replaces the old one while the daemon serves. Both are usable until nothing is sealed
//! under the old one.
//!
//! 1. One change of the store adds slots for the new root key, and each root key sealed under the other. From then
//!    on new values are sealed under the new one. If a key file opens the vault, it gets a new key.
//! 2. The wraps of all values are rewritten in batches. Each batch is a separate change that can be repeated.
//! 3. When the store has no value under the old root key, the key and its slots are removed, in one change that
//!    checks this.
//!
//! If the daemon is killed at any point, the next start continues: the key that opens the vault then opens both
//! root keys.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use onecli_model::Sealed;
use onecli_store::{Rewrap, SlotRow, Store, VaultChange, VersionRow};
use zeroize::Zeroizing;

use super::envelope::{Context, FORMAT, KEY_ID};
use super::error::VaultError;
use super::key::KeyId;
use super::keyring::RootKey;
use super::slots::{self, Method, Opener};
use super::unlock::{META_KEY, META_REKEY, RekeyRecord, settle};
use super::vault::{Roots, Vault, current, replaced};

/// Values rewritten in one change of the store. It bounds the delay of other changes.
const BATCH: u32 = 256;
/// The retry interval after a failure. Any change in the store also starts a retry.
const RETRY: Duration = Duration::from_secs(30);
/// How long a former root key stays in memory. A request that began before the rewrite ended holds a value under
/// the old root key until it is sent, or retried.
const GRACE: Duration = Duration::from_mins(15);
/// The most names of secrets in a message.
const NAMES: usize = 8;

/// The progress of re-keying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekey {
    /// The old root key.
    pub from: KeyId,
    /// The new root key.
    pub to: KeyId,
    /// Values in the store; 0 until they are counted.
    pub total: u64,
    /// Values already under the new root key.
    pub done: u64,
    /// The error that blocks progress.
    pub fault: Option<String>,
}

impl Rekey {
    pub(super) fn of(from: KeyId, to: KeyId) -> Rekey {
        Rekey { from, to, total: 0, done: 0, fault: None }
    }
}

/// The result of starting to re-key.
pub struct StartedRekey {
    /// The id of the new root key.
    pub key_id: KeyId,
    /// New recovery keys, by slot: returned here and never again.
    pub recovery: Vec<(u32, Zeroizing<String>)>,
    /// Slots whose keys were not available, and that are removed therefore.
    pub dropped: Vec<u32>,
    /// The key file that has a new key.
    pub key_file: Option<String>,
}

impl std::fmt::Debug for StartedRekey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StartedRekey({}, ..)", self.key_id)
    }
}

impl Vault {
    /// The progress of re-keying; `None` if it is not running.
    pub fn rekeying(&self) -> Option<Rekey> {
        self.rekey.borrow().clone()
    }

    /// Creates a new root key and starts to re-key; [`Vault::follow_rekey`] does the work.
    ///
    /// Sealing each slot again requires its key. A key file gets a new key. Systemd credentials and similar keys
    /// are read again. Recovery keys are replaced and returned once. The caller passes passphrases in
    /// `passphrases`. Other slots are an error, or are dropped if `drop_others` is set.
    ///
    /// The caller must prevent concurrent sealing.
    ///
    /// # Errors
    /// [`VaultError::Refused`], [`VaultError::KeyFile`], [`VaultError::Store`]: nothing has changed.
    pub async fn begin_rekey(
        &self,
        store: &dyn Store,
        passphrases: &[Zeroizing<String>],
        drop_others: bool,
        now: Timestamp,
    ) -> Result<StartedRekey, VaultError> {
        let roots = self.roots();
        if self.rekey.borrow().is_some() {
            return Err(VaultError::Refused(
                "a new root key is already taking over: 'onecli key status' shows the progress".to_owned(),
            ));
        }
        let new = RootKey::generate(self.random.as_ref())?;
        let old = roots.current.id();
        let rows: Vec<SlotRow> =
            store.list_slots().await?.into_iter().filter(|row| row.root == old.0).collect();
        let mut started =
            StartedRekey { key_id: new.id(), recovery: Vec::new(), dropped: Vec::new(), key_file: None };
        let slots = match self.renew_all(&rows, &new, passphrases, drop_others, now, &mut started) {
            Ok(slots) => slots,
            Err(error) => {
                self.source.settle(|_| false)?;
                return Err(error);
            }
        };

        let carried = |of, under| {
            slots::carry(of, under, self.id, self.random.as_ref())
                .map(|sealed| data_encoding::BASE64.encode(&sealed.0))
        };
        let record = RekeyRecord {
            from: old.to_string(),
            to: new.id().to_string(),
            old: carried(&roots.current, &new)?,
            new: carried(&new, &roots.current)?,
        };
        let record = serde_json::to_string(&record).map_err(|_| VaultError::Meta { key: META_REKEY })?;
        let change = VaultChange {
            set: vec![(META_REKEY, record), (META_KEY, new.id().to_string())],
            add_slots: slots.clone(),
            ..VaultChange::default()
        };
        store.change_vault(&change).await?;
        let current = new.id();
        // From here on values are sealed under the new key. The old one stays available, and so do earlier ones
        // until their grace period ends.
        let mut former = roots.former_without(None);
        former.push(RootKey::new(roots.current.expose().clone()));
        self.set_roots(Roots { current: new, former });
        self.rekey.send_replace(Some(Rekey::of(old, current)));
        if let Err(error) = settle(&self.source, &slots, current) {
            // The file with the new key exists under its temporary name, and the old key opens the vault until
            // re-keying ends.
            tracing::warn!(%error, "the new key file is not in place yet");
        }
        Ok(started)
    }

    fn renew_all(
        &self,
        rows: &[SlotRow],
        new: &RootKey,
        passphrases: &[Zeroizing<String>],
        drop_others: bool,
        now: Timestamp,
        started: &mut StartedRekey,
    ) -> Result<Vec<SlotRow>, VaultError> {
        let mut slots = Vec::new();
        for row in rows {
            match self.renew(row, passphrases, started)? {
                Some((method, key)) => {
                    slots.push(method.slot(row.number, self.id, new, &key, now, self.random.as_ref())?);
                }
                None => started.dropped.push(row.number),
            }
        }
        if !(started.dropped.is_empty() || drop_others) {
            return Err(VaultError::Refused(format!(
                "slot {} cannot be resealed, because its key is not available: pass the passphrase, or drop \
                 such slots with --drop-other-slots",
                started.dropped.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            )));
        }
        if slots.is_empty() {
            return Err(VaultError::Refused(
                "no slot could be resealed: no key would open the vault".to_owned(),
            ));
        }
        Ok(slots)
    }

    /// Returns a slot's method and key for another root key, if the key is available.
    fn renew(
        &self,
        row: &SlotRow,
        passphrases: &[Zeroizing<String>],
        started: &mut StartedRekey,
    ) -> Result<Option<(Method, super::keyring::SlotKey)>, VaultError> {
        let method = Method::of(row)?;
        match &method {
            Method::Recovery { .. } => {
                let (method, key) = Method::recovery(self.random.as_ref())?;
                started.recovery.push((row.number, slots::write_recovery_key(&key)));
                Ok(Some((method, key)))
            }
            Method::Key { id } => {
                if self.source.load()?.is_some_and(|key| key.id().to_string() == *id) {
                    let key = self.source.prepare(self.random.as_ref())?;
                    started.key_file = Some(self.source.path().display().to_string());
                    return Ok(Some((Method::key(&key), key)));
                }
                let found = self.source.find(|_, opener| Ok(method.try_key(&opener)))?;
                Ok(found.map(|(_, key)| (method, key)))
            }
            Method::Passphrase { .. } => {
                let fits = |opener: &Opener| slots::open(row, self.id, opener).map(|root| root.is_some());
                for text in passphrases {
                    if fits(&Opener::Text(text.clone()))? {
                        return Method::passphrase(text, self.random.as_ref()).map(Some);
                    }
                }
                let found = self.source.find(|_, opener| {
                    Ok(match opener {
                        Opener::Text(ref text) if fits(&opener)? => Some(text.clone()),
                        _ => None,
                    })
                })?;
                found.map(|(_, text)| Method::passphrase(&text, self.random.as_ref())).transpose()
            }
        }
    }

    /// Does the work of re-keying whenever one is started, for as long as the daemon runs.
    pub async fn follow_rekey(self: Arc<Self>, store: Arc<dyn Store>) {
        let mut progress = self.rekey.subscribe();
        loop {
            if progress.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let mut changes = store.subscribe();
            match self.run_rekey(store.as_ref()).await {
                Ok(from) => {
                    tracing::info!(%from, to = %self.key_id(), "the new root key has taken over");
                    let vault = Arc::downgrade(&self);
                    tokio::spawn(async move {
                        tokio::time::sleep(GRACE).await;
                        if let Some(vault) = vault.upgrade() {
                            vault.forget(from);
                        }
                    });
                }
                Err(error) => {
                    tracing::error!(%error, "the new root key cannot take over yet");
                    self.note(|rekey| rekey.fault = Some(error.to_string()));
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        _ = changes.changed() => {}
                    }
                }
            }
        }
    }

    /// Rewrites every wrap under the old root key, and removes that key. Returns its id.
    ///
    /// # Errors
    /// [`VaultError::Refused`] if a value does not open under either key; all others are rewritten.
    pub(super) async fn run_rekey(&self, store: &dyn Store) -> Result<KeyId, VaultError> {
        let roots = self.roots();
        let Some(old) = self.rekey.borrow().as_ref().map(|rekey| rekey.from) else {
            return Err(VaultError::Refused("no new root key is taking over".to_owned()));
        };
        loop {
            let slots = store.list_slots().await?;
            settle(&self.source, &slots, roots.current.id())?;
            let (total, left) = store.count_versions(old.0).await?;
            self.note(|rekey| {
                rekey.total = total;
                rekey.done = total.saturating_sub(left);
                rekey.fault = None;
            });
            self.rewrap_blobs(store, old).await?;
            let unopened = self.rewrap_versions(store, old).await?;
            if !unopened.is_empty() {
                return Err(blocked(&unopened));
            }
            self.still_opens(&slots, roots.current.id())?;
            let finished = VaultChange {
                unset: vec![META_REKEY],
                remove_slots: slots
                    .iter()
                    .filter(|row| row.root == old.0)
                    .map(|row| (row.number, old.0))
                    .collect(),
                unless_used: Some(old.0),
                announce: true,
                ..VaultChange::default()
            };
            // If another change added a version meanwhile, the next round handles it.
            if store.change_vault(&finished).await? {
                self.rekey.send_replace(None);
                return Ok(old);
            }
        }
    }

    /// Checks that the next start could open the new root key. Only then the slots of the old one are removed.
    fn still_opens(&self, slots: &[SlotRow], new: KeyId) -> Result<(), VaultError> {
        let of_new = || slots.iter().filter(|row| row.root == new.0);
        let found = self.source.find(|_, opener| {
            Ok(of_new().find_map(|row| slots::open(row, self.id, &opener).ok().flatten()).map(drop))
        })?;
        match found {
            Some(_) => Ok(()),
            None => Err(VaultError::Refused(
                "no key that the daemon finds opens the new root key: restore its key, or move the key file \
                 away and create a new one with 'onecli key add-key-file'; until then both root keys are \
                 retained"
                    .to_owned(),
            )),
        }
    }

    async fn rewrap_blobs(&self, store: &dyn Store, old: KeyId) -> Result<(), VaultError> {
        let mut change = VaultChange::default();
        for (purpose, sealed) in
            store.list_blobs().await?.into_iter().filter(|(_, sealed)| is_under(sealed, old))
        {
            let context = Context::Blob { purpose: &purpose };
            let rewrapped = self.rewrap(context, &sealed, context)?;
            change.put_blobs.push((purpose, rewrapped));
        }
        store.change_vault(&change).await?;
        Ok(())
    }

    /// Rewrites the wraps of all versions of all secrets; returns those that do not open.
    async fn rewrap_versions(&self, store: &dyn Store, old: KeyId) -> Result<Vec<VersionRow>, VaultError> {
        let mut after = None;
        let mut unopened = Vec::new();
        loop {
            let rows = store.list_versions(after, BATCH).await?;
            let Some(last) = rows.last() else { return Ok(unopened) };
            after = Some((last.secret.id, last.secret.version));
            let mut changes = Vec::new();
            for row in rows.into_iter().filter(|row| is_under(&row.secret.sealed, old)) {
                let context = version_context(&row);
                match self.rewrap(context, &row.secret.sealed, context) {
                    Ok(to) => changes.push(Rewrap {
                        secret: row.secret.id,
                        version: row.secret.version,
                        from: row.secret.sealed,
                        to,
                    }),
                    Err(error @ (VaultError::Random(_) | VaultError::Store(_))) => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, secret = %row.secret.name, "a value cannot be re-keyed");
                        unopened.push(row);
                    }
                }
            }
            store.rewrap(&changes).await?;
            self.note(|rekey| {
                rekey.done = rekey.total.min(rekey.done.saturating_add(changes.len() as u64));
            });
        }
    }

    fn note(&self, change: impl FnOnce(&mut Rekey)) {
        self.rekey.send_if_modified(|rekey| match rekey {
            Some(rekey) => {
                let before = rekey.clone();
                change(rekey);
                *rekey != before
            }
            None => false,
        });
    }

    /// Drops a root key that nothing is sealed under.
    pub(super) fn forget(&self, old: KeyId) {
        let roots = self.roots();
        let current = RootKey::new(roots.current.expose().clone());
        self.set_roots(Roots { current, former: roots.former_without(Some(old)) });
    }
}

/// The binding of a stored version.
pub(super) fn version_context(row: &VersionRow) -> Context<'static> {
    if row.current { current(&row.secret) } else { replaced(&row.secret) }
}

fn is_under(sealed: &Sealed, root: KeyId) -> bool {
    // A value in an unknown format is included, so that it is reported.
    sealed.0.first() != Some(&FORMAT) || sealed.0.get(KEY_ID).is_none_or(|id| id == root.0)
}

fn blocked(rows: &[VersionRow]) -> VaultError {
    let name = |row: &VersionRow| format!("{} (version {})", row.secret.name, row.secret.version);
    let mut names: Vec<String> = rows.iter().take(NAMES).map(name).collect();
    if rows.len() > NAMES {
        names.push("...".to_owned());
    }
    VaultError::Refused(format!(
        "{} values do not open under the old root key either: {}; remove these secrets and add them again, \
         or restore a backup; until then both root keys are retained",
        rows.len(),
        names.join(", ")
    ))
}
