//! The key that signs the audit log's checkpoints. It is generated once and stored sealed.

use onecli_audit::Signer;
use onecli_model::Random;
use onecli_store::{Store, VaultChange};
use onecli_vault::Vault;

use crate::process::AppError;

/// The name of the key among the store's sealed values. A rotation of the root key reseals it under this name.
const KEY: &str = "audit.key";

/// Opens the stored key, or generates one. The key is not derived from the root key. It stays the same when the root
/// key is replaced, and so do the copies of its public part that people recorded.
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
