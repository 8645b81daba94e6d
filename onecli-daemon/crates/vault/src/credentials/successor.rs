//! Storing the refresh token that replaces a used one.

use onecli_model::{Secret, SecretValue};
use onecli_store::StoreError;

use super::Credentials;

/// The most attempts. An administrator may edit the secret at the same moment, but not often.
const ATTEMPTS: usize = 4;

impl Credentials {
    /// Stores `value` as the version after `current`. If the secret was edited meanwhile and still has the value of
    /// `current`, stores it as the version after that edit: a used token must not remain the stored one.
    pub(super) async fn store_successor(
        &self,
        current: &Secret,
        value: &SecretValue,
    ) -> Result<Secret, String> {
        let mut current = current.clone();
        for _ in 0..ATTEMPTS {
            // A row that was edited from outside gets no new value.
            self.vault.open_value(&current).map_err(|error| error.to_string())?;
            let mut next = Secret { version: current.version + 1, ..current.clone() };
            next.sealed = self.vault.seal(&next, value).map_err(|error| error.to_string())?;
            // The replaced refresh token can no longer be used, so it is not retained.
            match self.store.add_version(&next, None).await {
                Ok(()) => return Ok(next),
                Err(StoreError::Conflict { .. }) => current = self.edited(&current).await?,
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("the secret was edited too often meanwhile".to_owned())
    }

    /// The secret as it is stored now, if its value is that of `before`.
    async fn edited(&self, before: &Secret) -> Result<Secret, String> {
        let stored = self.store.load().await.map_err(|error| error.to_string())?;
        let found = stored.secrets.into_iter().find(|secret| secret.id == before.id);
        let found = found.ok_or_else(|| "the secret was removed".to_owned())?;
        let spent = self.vault.open_value(before).map_err(|error| error.to_string())?;
        match self.vault.holds(&found, &spent) {
            Ok(true) => Ok(found),
            Ok(false) => Err("the secret has another value now".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
