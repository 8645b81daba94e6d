//! Keys and their ids.

use std::fmt;

use zeroize::Zeroizing;

/// A 256-bit key, zeroed when dropped.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// The id of a root key or a slot's key: 64 derived bits, written as 16 hex digits. It reveals nothing about the
/// key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl std::str::FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<KeyId, KeyIdError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| KeyIdError)?;
        bytes.try_into().map(KeyId).map_err(|_| KeyIdError)
    }
}

/// The text is not a key id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id has 16 hex digits")]
pub struct KeyIdError;

/// The key that wraps data keys, and the id of its root key.
pub(super) struct Kek {
    pub(super) root: KeyId,
    pub(super) key: Key,
}
