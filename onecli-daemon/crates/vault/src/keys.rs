//! Operations on key slots, and a check that all stored values can be opened.

use jiff::Timestamp;
use onecli_store::{SlotRow, Store, VaultChange};
use zeroize::Zeroizing;

use super::envelope::Context;
use super::error::VaultError;
use super::key::KeyId;
use super::keyring::{RootKey, SlotKey};
use super::rekey::{Rekey, version_context};
use super::slots::{self, Method};
use super::unlock::settle;
use super::vault::Vault;

/// The least length of a passphrase, in characters.
const MIN_PASSPHRASE: usize = 12;
/// Versions read at a time.
const BATCH: u32 = 512;

/// The state of the keys.
#[derive(Debug, Clone)]
pub struct KeyStatus {
    /// The root key.
    pub key_id: KeyId,
    /// Where the key that opened the vault was found.
    pub opened_at: String,
    /// The slot that was opened.
    pub opened_slot: u32,
    /// All slots of the root key.
    pub slots: Vec<SlotInfo>,
    /// A running re-keying to a new root key.
    pub rekey: Option<Rekey>,
    /// The reason why removed data is not erased yet; `None` if it is erased.
    pub unerased: Option<String>,
}

/// A slot, without its content.
#[derive(Debug, Clone)]
pub struct SlotInfo {
    /// Its number.
    pub number: u32,
    /// `key`, `passphrase` or `recovery`.
    pub kind: &'static str,
    /// The id of its key, if it has one.
    pub key_id: Option<String>,
    /// The time of creation; `None` for the first slot.
    pub created: Option<Timestamp>,
}

/// A slot to add.
pub enum NewSlot {
    /// A new key file, at the daemon's default path.
    KeyFile,
    /// A key that the operator stores, for example as a systemd credential.
    Key(Zeroizing<[u8; 32]>),
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// A recovery key, which is shown once.
    Recovery,
}

impl std::fmt::Debug for NewSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NewSlot::KeyFile => "KeyFile",
            NewSlot::Key(_) => "Key(..)",
            NewSlot::Passphrase(_) => "Passphrase(..)",
            NewSlot::Recovery => "Recovery",
        })
    }
}

impl Vault {
    /// The state of the keys.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn key_status(&self, store: &dyn Store) -> Result<KeyStatus, VaultError> {
        let key_id = self.key_id();
        let rows = store.list_slots().await?;
        let slots = rows.iter().filter(|row| row.root == key_id.0).map(info).collect();
        Ok(KeyStatus {
            key_id,
            opened_at: self.opened.at.clone(),
            opened_slot: self.opened.slot,
            slots,
            rekey: self.rekeying(),
            unerased: store.erased().await.err().map(|error| error.to_string()),
        })
    }

    /// Adds a slot. Returns it, and the new recovery key if the caller requested one. A passphrase takes some
    /// tenths of a second.
    ///
    /// # Errors
    /// [`VaultError::Refused`]; the vault's other errors.
    pub async fn add_slot(
        &self,
        store: &dyn Store,
        new: NewSlot,
        now: Timestamp,
    ) -> Result<(SlotInfo, Option<Zeroizing<String>>), VaultError> {
        let rows = store.list_slots().await?;
        let number = rows.iter().map(|row| row.number).max().unwrap_or_default().saturating_add(1);
        let random = self.random.as_ref();
        let mut recovery_key = None;
        let (method, key) = match new {
            NewSlot::KeyFile => {
                // A key file that is prepared but not renamed yet is completed first.
                settle(&self.source, &rows, self.key_id())?;
                if self.source.load()?.is_some() {
                    let at = self.source.path().display();
                    return Err(VaultError::Refused(format!(
                        "there is a key file at {at} already; move it away first if the daemon does not need it"
                    )));
                }
                let key = self.source.prepare(random)?;
                (Method::key(&key), key)
            }
            NewSlot::Key(bytes) => {
                let key = SlotKey(bytes);
                (Method::key(&key), key)
            }
            NewSlot::Passphrase(text) => {
                if text.chars().count() < MIN_PASSPHRASE {
                    return Err(VaultError::Refused(format!(
                        "a passphrase must have at least {MIN_PASSPHRASE} characters: an attacker with the database can try many"
                    )));
                }
                Method::passphrase(&text, random)?
            }
            NewSlot::Recovery => {
                let (method, key) = Method::recovery(random)?;
                recovery_key = Some(slots::write_recovery_key(&key));
                (method, key)
            }
        };
        let id = method.key_id();
        if id.is_some() && rows.iter().any(|row| Method::of(row).is_ok_and(|other| other.key_id() == id)) {
            return Err(VaultError::Refused("this key has a slot already".to_owned()));
        }
        let roots = self.roots();
        let row = method.slot(number, self.id, &roots.current, &key, now, random)?;
        let change = VaultChange { add_slots: vec![row.clone()], ..VaultChange::default() };
        store.change_vault(&change).await?;
        // All slots are passed, because the prepared key file may belong to another one.
        settle(&self.source, &store.list_slots().await?, roots.current.id())?;
        Ok((info(&row), recovery_key))
    }

    /// Removes a slot: its key can no longer open the vault as it is from now on. Earlier copies of the database
    /// can still be opened with it, so a stolen key also requires a new root key. The slot's bytes are overwritten:
    /// [`KeyStatus::unerased`] reports if that must wait.
    ///
    /// # Errors
    /// [`VaultError::Refused`] if there is no such slot, or if no key that the daemon finds would open the others.
    pub async fn remove_slot(&self, store: &dyn Store, number: u32) -> Result<SlotInfo, VaultError> {
        self.unless_rekeying()?;
        let rows = store.list_slots().await?;
        let (gone, rest): (Vec<SlotRow>, Vec<SlotRow>) =
            rows.into_iter().partition(|row| row.number == number);
        let Some(row) = gone.first() else {
            return Err(VaultError::Refused(format!("there is no key slot {number}")));
        };
        let opens = |row: &SlotRow, opener: &_| -> Result<Option<RootKey>, VaultError> {
            slots::open(row, self.id, opener)
        };
        let found = self
            .source
            .find(|_, opener| Ok(rest.iter().find_map(|row| opens(row, &opener).ok().flatten()).map(drop)))?;
        if found.is_none() {
            return Err(VaultError::Refused(format!(
                "the daemon could not start again without key slot {number}: no key that it finds opens the others"
            )));
        }
        let change = VaultChange { remove_slots: vec![(number, row.root)], ..VaultChange::default() };
        store.change_vault(&change).await?;
        Ok(info(row))
    }

    fn unless_rekeying(&self) -> Result<(), VaultError> {
        match self.rekeying() {
            None => Ok(()),
            Some(_) => Err(VaultError::Refused(
                "a new root key is taking over: wait until 'onecli key status' reports that it is done"
                    .to_owned(),
            )),
        }
    }

    /// Opens all stored values. Returns the number of opened values, and for each failure the value and the reason.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn verify(&self, store: &dyn Store) -> Result<(u64, Vec<String>), VaultError> {
        let (mut opened, mut failures) = (0, Vec::new());
        let mut after = None;
        loop {
            let rows = store.list_versions(after, BATCH).await?;
            let Some(last) = rows.last() else { break };
            after = Some((last.secret.id, last.secret.version));
            for row in &rows {
                match self.open_version(version_context(row), &row.secret.sealed) {
                    Ok(_) => opened += 1,
                    Err(error) => failures.push(format!("secret '{}': {error}", row.secret.name)),
                }
            }
        }
        let roots = self.roots();
        for (purpose, sealed) in store.list_blobs().await? {
            let context = Context::Blob { purpose: &purpose };
            match super::envelope::open(self.id, |id| roots.kek(id), context, &sealed) {
                Ok(_) => opened += 1,
                Err(error) => failures.push(error.to_string()),
            }
        }
        Ok((opened, failures))
    }
}

fn info(row: &SlotRow) -> SlotInfo {
    let method = Method::of(row);
    SlotInfo {
        number: row.number,
        kind: match &method {
            Ok(Method::Key { .. }) => "key",
            Ok(Method::Passphrase { .. }) => "passphrase",
            Ok(Method::Recovery { .. }) => "recovery",
            Err(_) => "damaged",
        },
        key_id: method.ok().and_then(|method| method.key_id().map(str::to_owned)),
        created: (row.created != Timestamp::UNIX_EPOCH).then_some(row.created),
    }
}
