//! Unlocking: from a store and a key to a vault, at the first start and at every later one.

use std::sync::Arc;

use jiff::Timestamp;
use onecli_model::{Random, Sealed};
use onecli_store::{SlotRow, Store, VaultChange};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::envelope::{self, Context};
use super::error::VaultError;
use super::key::{Key, KeyId};
use super::key_source::KeySource;
use super::keyring::{Derived, RootKey, random_key};
use super::slots::{self, Method, Opener, looks_like_recovery_key};
use super::vault::{Opened, Roots, Vault};

/// Meta entry of the store: the vault's id, which every sealed value is bound to.
pub(super) const META_VAULT: &str = "vault.id";
/// Meta entry of the store: the id of the root key that values are sealed under.
pub(super) const META_KEY: &str = "vault.key_id";
/// Meta entry of the store: a running re-keying ([`RekeyRecord`]).
pub(super) const META_REKEY: &str = "vault.rekey";
/// Purpose of the sealed derivation key.
pub(super) const DERIVATION: &str = "vault.derivation";

/// A running re-keying: each root key is sealed under the other, so that either opens both.
#[derive(Serialize, Deserialize)]
pub(super) struct RekeyRecord {
    pub(super) from: String,
    pub(super) to: String,
    /// The old root key under the new one, base64.
    pub(super) old: String,
    /// The new root key under the old one, base64.
    pub(super) new: String,
}

impl Vault {
    /// Obtains the root key and checks that the store's values are sealed under it. An unused store gets a vault id
    /// and a root key. If no key is found for it, a key file is created.
    ///
    /// # Errors
    /// [`VaultError::WrongKey`] and [`VaultError::KeyMissing`] are returned before any error that they would cause;
    /// see [`VaultError::is_key_problem`].
    pub async fn unlock(
        store: &dyn Store,
        source: &KeySource,
        random: Arc<dyn Random>,
    ) -> Result<Vault, VaultError> {
        let slots = store.list_slots().await?;
        let id = store.get_meta(META_VAULT).await?;
        if slots.is_empty() && id.is_none() && store.is_empty().await? {
            return Vault::create(store, source, random).await;
        }
        let vault = Vault::unlock_used(store, source, random).await?;
        settle(source, &slots, vault.key_id())?;
        Ok(vault)
    }

    /// As [`Vault::unlock`], for a store that is in use, perhaps on another host. Nothing is changed, not even key
    /// files.
    ///
    /// # Errors
    /// As those of [`Vault::unlock`].
    pub async fn unlock_used(
        store: &dyn Store,
        source: &KeySource,
        random: Arc<dyn Random>,
    ) -> Result<Vault, VaultError> {
        let slots = store.list_slots().await?;
        let Some(id) = store.get_meta(META_VAULT).await? else {
            // Without a vault id no key can be confirmed.
            return Err(match source.find(|_, _| Ok(Some(())))? {
                None => VaultError::KeyMissing { at: source.to_string(), wanted: wanted(&slots) },
                Some(_) => VaultError::Meta { key: META_VAULT },
            });
        };
        let id: Uuid = id.parse().map_err(|_| VaultError::Meta { key: META_VAULT })?;
        let (opened, root) = open_any(&slots, id, source)?;
        let roots = roots(store, id, root).await?;
        let kek = |wanted| roots.kek(wanted);
        let sealed = store.get_blob(DERIVATION).await?.ok_or(VaultError::Meta { key: DERIVATION })?;
        let derivation = envelope::open(id, kek, Context::Blob { purpose: DERIVATION }, &sealed)?;
        let derivation =
            derivation.as_slice().try_into().map_err(|_| VaultError::Meta { key: DERIVATION })?;
        Ok(Vault::assemble(id, roots, &Zeroizing::new(derivation), opened, source, random))
    }

    /// Creates a vault in one change of the store.
    async fn create(
        store: &dyn Store,
        source: &KeySource,
        random: Arc<dyn Random>,
    ) -> Result<Vault, VaultError> {
        let (at, method, key) = match source.find(|_, opener| Ok(Some(opener)))? {
            Some((at, Opener::Key(key))) => (at, Method::key(&key), key),
            Some((_, Opener::Text(text))) if looks_like_recovery_key(&text) => {
                return Err(VaultError::Refused(
                    "a new store cannot be opened with a recovery key of another store".to_owned(),
                ));
            }
            Some((at, Opener::Text(text))) => {
                let (method, key) = Method::passphrase(&text, random.as_ref())?;
                (at, method, key)
            }
            None => {
                let key = source.create(random.as_ref())?;
                (source.to_string(), Method::key(&key), key)
            }
        };
        let id = random_uuid(random.as_ref())?;
        let root = RootKey::generate(random.as_ref())?;
        let derivation = random_key(random.as_ref())?;
        let sealed = envelope::seal(
            id,
            root.kek(),
            Context::Blob { purpose: DERIVATION },
            derivation.as_ref(),
            random.as_ref(),
        )?;
        let slot = method.slot(1, id, &root, &key, Timestamp::UNIX_EPOCH, random.as_ref())?;
        let change = VaultChange {
            set: vec![(META_VAULT, id.to_string()), (META_KEY, root.id().to_string())],
            add_slots: vec![slot],
            put_blobs: vec![(DERIVATION.to_owned(), sealed)],
            ..VaultChange::default()
        };
        store.change_vault(&change).await?;
        let roots = Roots { current: root, former: Vec::new() };
        Ok(Vault::assemble(id, roots, &derivation, Opened { at, slot: 1 }, source, random))
    }

    fn assemble(
        id: Uuid,
        roots: Roots,
        derivation: &Key,
        opened: Opened,
        source: &KeySource,
        random: Arc<dyn Random>,
    ) -> Vault {
        let rekey = roots.former.last().map(|old| super::rekey::Rekey::of(old.id(), roots.current.id()));
        Vault {
            id,
            derived: Derived::of(derivation),
            roots: RwLock::new(Arc::new(roots)),
            opened,
            source: source.clone(),
            rekey: watch::Sender::new(rekey),
            random,
        }
    }
}

/// Tries every available key on every slot.
fn open_any(slots: &[SlotRow], vault: Uuid, source: &KeySource) -> Result<(Opened, RootKey), VaultError> {
    let mut tried = Vec::new();
    let mut broken = None;
    let found = source.find(|at, opener| {
        for row in slots {
            match slots::open(row, vault, &opener) {
                Ok(Some(root)) => return Ok(Some((row.number, root))),
                Ok(None) => {
                    let fits = opener.key().map(|key| key.id().to_string());
                    if fits.is_some() && fits.as_deref() == Method::of(row)?.key_id() {
                        let reason = format!("the key at {at} has the id of its key, but does not open it");
                        broken = Some(VaultError::Slot { number: row.number, reason });
                    }
                }
                Err(error) => broken = Some(error),
            }
        }
        tried.push(match opener.key() {
            Some(key) => format!("the key at {at} has the id {}", key.id()),
            None => format!("the passphrase at {at} opens no key slot"),
        });
        Ok(None)
    })?;
    match (found, broken) {
        (Some((at, (slot, root))), _) => Ok((Opened { at, slot }, root)),
        (None, Some(broken)) => Err(broken),
        (None, None) if tried.is_empty() => {
            Err(VaultError::KeyMissing { at: source.to_string(), wanted: wanted(slots) })
        }
        (None, None) => Err(VaultError::WrongKey { found: tried.join("; "), wanted: wanted(slots) }),
    }
}

/// Describes the keys that would open the vault.
fn wanted(slots: &[SlotRow]) -> String {
    let name = |row: &SlotRow| match Method::of(row) {
        Ok(Method::Key { id }) => format!("the key {id}"),
        Ok(Method::Recovery { id }) => format!("the recovery key {id}"),
        Ok(Method::Passphrase { .. }) => format!("the passphrase of slot {}", row.number),
        Err(_) => format!("slot {}, which is damaged", row.number),
    };
    let mut names: Vec<String> = slots.iter().map(name).collect();
    names.sort();
    names.dedup();
    if names.is_empty() { "no known key".to_owned() } else { names.join(" or ") }
}

/// The root keys that values may be sealed under: one, or two during re-keying.
async fn roots(store: &dyn Store, vault: Uuid, root: RootKey) -> Result<Roots, VaultError> {
    let Some(record) = store.get_meta(META_REKEY).await? else {
        let known = store.get_meta(META_KEY).await?;
        if known.as_deref() == Some(root.id().to_string().as_str()) {
            return Ok(Roots { current: root, former: Vec::new() });
        }
        return Err(VaultError::Meta { key: META_KEY });
    };
    let damaged = || VaultError::Meta { key: META_REKEY };
    let record: RekeyRecord = serde_json::from_str(&record).map_err(|_| damaged())?;
    let from: KeyId = record.from.parse().map_err(|_| damaged())?;
    let to: KeyId = record.to.parse().map_err(|_| damaged())?;
    let other = |id, text: &str| {
        let sealed = Sealed(data_encoding::BASE64.decode(text.as_bytes()).map_err(|_| damaged())?);
        slots::carried(id, &root, vault, &sealed)
    };
    if root.id() == to {
        let old = other(from, &record.old)?;
        Ok(Roots { current: root, former: vec![old] })
    } else if root.id() == from {
        let new = other(to, &record.new)?;
        Ok(Roots { current: new, former: vec![root] })
    } else {
        Err(damaged())
    }
}

/// Completes or reverts the creation of a key file that a crash interrupted.
pub(super) fn settle(source: &KeySource, slots: &[SlotRow], current: KeyId) -> Result<(), VaultError> {
    let ids: Vec<String> = slots
        .iter()
        .filter(|row| row.root == current.0)
        .filter_map(|row| Method::of(row).ok()?.key_id().map(str::to_owned))
        .collect();
    Ok(source.settle(|key| ids.contains(&key.id().to_string()))?)
}

/// UUID version 4 (RFC 9562 section 5.4).
fn random_uuid(random: &dyn Random) -> Result<Uuid, VaultError> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
