//! The key that signs the audit log's checkpoints: made once, kept sealed in the store.

use crate::audit::Signer;
use crate::model::{Random, Sealed};
use crate::store::Store;
use crate::vault::Vault;

use super::error::AppError;

/// Meta entry of the store, and what the key is sealed for.
const KEY: &str = "audit.key";

/// Opens the stored key, or makes one. It is not derived from the root key, so that it stays the same, and with it what
/// people have noted of it, when that is replaced.
pub(super) async fn open(store: &dyn Store, vault: &Vault, random: &dyn Random) -> Result<Signer, AppError> {
    if let Some(sealed) = store.get_meta(KEY).await? {
        let sealed = data_encoding::BASE64.decode(sealed.as_bytes()).map_err(|_| AppError::AuditKey)?;
        let seed = vault.open_blob(KEY, &Sealed(sealed))?;
        return Signer::from_seed(&seed).ok_or(AppError::AuditKey);
    }
    let mut seed = zeroize::Zeroizing::new([0; Signer::SEED]);
    random.fill(seed.as_mut())?;
    let sealed = data_encoding::BASE64.encode(&vault.seal_blob(KEY, seed.as_ref())?.0);
    store.set_meta(&[(KEY, sealed.as_str())]).await?;
    Signer::from_seed(seed.as_ref()).ok_or(AppError::AuditKey)
}
