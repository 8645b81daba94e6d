//! The key that signs the audit log's checkpoints: made once, kept sealed in the store.

use onecli_audit::Signer;
use onecli_model::Random;
use onecli_store::{Store, VaultChange};
use onecli_vault::Vault;

use super::error::AppError;

/// What the key is sealed for, among the store's sealed values: a new root key finds it there.
const KEY: &str = "audit.key";

/// Opens the stored key, or makes one. It is not derived from the root key, so that it stays the same, and with it what
/// people have noted of it, when that is replaced.
pub(super) async fn open(store: &dyn Store, vault: &Vault, random: &dyn Random) -> Result<Signer, AppError> {
    if let Some(sealed) = store.get_blob(KEY).await? {
        let seed = vault.open_blob(KEY, &sealed)?;
        return Signer::from_seed(&seed).ok_or(AppError::AuditKey);
    }
    let mut seed = zeroize::Zeroizing::new([0; Signer::SEED]);
    random.fill(seed.as_mut())?;
    let sealed = vault.seal_blob(KEY, seed.as_ref())?;
    let change = VaultChange { put_blobs: vec![(KEY.to_owned(), sealed)], ..VaultChange::default() };
    store.change_vault(&change).await?;
    Signer::from_seed(seed.as_ref()).ok_or(AppError::AuditKey)
}
