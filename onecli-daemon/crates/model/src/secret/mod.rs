//! Secrets: a credential, its destinations and its placement.

pub mod flush_after;
pub mod profile;
pub mod reference;
pub mod source;
pub mod value_form;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::profile::Profile;
use crate::identity::ids::{SecretId, SecretName};
use crate::pattern::host_set::HostSet;
use crate::pattern::{MethodSet, PathPattern};
use crate::placement::Placement;
use crate::value::value_class::ValueClass;

pub use crate::value::secret_value::{SecretValue, SecretValueError};

/// An encrypted value as the store holds it. Only the vault can create and open one.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// The destinations of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The hosts.
    pub host: HostSet,
    /// The port. The default is 443.
    pub port: u16,
    /// The methods; empty means all.
    pub methods: MethodSet,
    /// The paths; at least one.
    pub paths: Vec<PathPattern>,
    /// Whether it may be sent over plain HTTP.
    pub allow_plaintext: bool,
}

/// A named credential with its target and placement. The value is still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The identity in the store.
    pub id: SecretId,
    /// The unique name.
    pub name: SecretName,
    /// Its destinations.
    pub target: Target,
    /// Its placement.
    pub placement: Placement,
    /// Its other properties.
    pub profile: Profile,
    /// The environment variables that agents' programs read it from, separated by commas.
    pub env: Option<String>,
    /// A disabled secret is never injected.
    pub enabled: bool,
    /// Incremented with each new value, from 1.
    pub version: u32,
    /// The class of the values that responses are searched for. `None` if that version was stored without one.
    pub class: Option<ValueClass>,
    /// The encrypted value of that version.
    pub sealed: Sealed,
}

impl Secret {
    /// Returns the class of the values that responses are searched for if the stored value is `value`.
    pub fn class_of(&self, value: &SecretValue) -> ValueClass {
        let is_sent_as_stored =
            self.profile.source.is_none() && self.profile.mint.is_none() && self.placement.sends_value();
        if is_sent_as_stored { ValueClass::of(value) } else { ValueClass::ISSUED }
    }
}
