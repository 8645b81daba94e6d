//! Keys and the values sealed under them. The only way from a sealed value to a clear one is [`Vault::open`], which
//! requires a [`Grant`].
//!
//! The key of a *slot* (a key file, a passphrase, ...) opens the *root key*. The root key's KEK opens the *data
//! key* of each value, and the data key opens the value. See [`envelope`] for the format and the bindings.

#![forbid(unsafe_code)]

mod binding;
mod credential;
mod credentials;
mod envelope;
mod error;
mod key;
mod key_source;
mod keyring;
mod keys;
mod rekey;
mod sessions;
mod slots;
pub mod sources;
mod tokens;
mod unlock;
mod vault;

#[cfg(test)]
mod tests;

pub use credential::Credential;
pub use credentials::{CredentialError, Credentials, wire_forms};
pub use error::{KeyFileError, VaultError};
pub use key::KeyId;
pub use key_source::KeySource;
pub use keys::{KeyStatus, NewSlot, SlotInfo};
pub use rekey::{Rekey, StartedRekey};
pub use sessions::{Session, SessionKind, SessionScope};
pub use sources::{SourceError, Sources, ValueOrigin};
pub use tokens::client::{DaemonRequestError, Purpose, TokenEndpointClient};
pub use tokens::{MintError, check_material, sent_to_endpoint};
pub use vault::Vault;
