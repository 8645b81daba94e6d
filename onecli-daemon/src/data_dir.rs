//! The lock of the data directory, and the keys that open its vault.

use std::fs::File;

use onecli_config::Config;
use onecli_sys::PrivateDir;
use onecli_sys::lock::{ExclusiveLock, LockError};
use onecli_vault::{KeySource, VaultError};
use zeroize::Zeroizing;

use crate::process::AppError;

/// The environment variable with a key, for `--insecure-key-from-env`.
const KEY_VARIABLE: &str = "ONECLI_ROOT_KEY";

/// Returns all configured locations of the key that opens the vault.
pub(super) fn key_source(config: &Config, data_dir: &PrivateDir) -> Result<KeySource, AppError> {
    let mut source = KeySource::file(data_dir);
    if let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        source = source.with_credentials(dir.into());
    }
    if let Some(file) = &config.vault.passphrase_file {
        source = source.with_passphrase_file(file).map_err(VaultError::from)?;
    }
    if config.vault.insecure_key_from_env {
        let text = Zeroizing::new(std::env::var(KEY_VARIABLE).unwrap_or_default());
        source = source.with_variable(KEY_VARIABLE, &text).map_err(VaultError::from)?;
    }
    Ok(source)
}

/// Locks the data directory against other daemons.
pub(super) fn hold(data_dir: &PrivateDir) -> Result<ExclusiveLock, AppError> {
    let opened = File::open(data_dir.path()).map_err(LockError::Io);
    opened.and_then(ExclusiveLock::take).map_err(|source| {
        let path = data_dir.path().display().to_string();
        match source {
            LockError::Held { .. } => AppError::DataInUse { path, source },
            LockError::Io(_) => AppError::DataLock { path, source },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_error_states_its_cause() {
        let (temp, dir) = PrivateDir::temporary();
        let lock = hold(&dir).unwrap();
        let held = hold(&dir).unwrap_err().to_string();
        assert!(held.contains(" is in use: another daemon (pid "), "{held}");
        drop(lock);
        drop(temp);
        let removed = hold(&dir).unwrap_err().to_string();
        assert!(
            removed.starts_with("cannot lock the data directory ") && !removed.contains("in use"),
            "{removed}"
        );
    }
}
