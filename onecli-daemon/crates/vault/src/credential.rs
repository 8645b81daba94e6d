//! A credential in the clear, for injection into one request.

use std::fmt;

use onecli_model::{Placeholder, Placement, Secret, SecretName, SecretValue};

use super::sources::ValueOrigin;

/// A credential in the clear, for injection into one request. Only the vault creates one, from a grant. It is
/// zeroed when dropped.
pub struct Credential {
    value: SecretValue,
    name: SecretName,
    version: u32,
    placement: Placement,
    allow_plaintext: bool,
    /// Empty if the placement does not need it.
    stand_in: Vec<String>,
    origin: Option<ValueOrigin>,
}

impl Credential {
    /// `placeholder` is the agent's, if the value replaces one.
    pub(super) fn new(value: SecretValue, secret: &Secret, placeholder: Option<&Placeholder>) -> Credential {
        let stand_in =
            placeholder.map(|own| vec![secret.profile.shape.dress(own), own.to_string()]).unwrap_or_default();
        Credential {
            value,
            name: secret.name.clone(),
            version: secret.version,
            placement: secret.placement.clone(),
            allow_plaintext: secret.target.allow_plaintext,
            stand_in,
            origin: None,
        }
    }

    pub(super) fn from(self, origin: Option<ValueOrigin>) -> Credential {
        Credential { origin, ..self }
    }

    /// The source of the value, if the store does not contain it.
    pub fn origin(&self) -> Option<&ValueOrigin> {
        self.origin.as_ref()
    }

    /// The value.
    pub fn value(&self) -> &SecretValue {
        &self.value
    }

    /// Name of the secret.
    pub fn name(&self) -> &SecretName {
        &self.name
    }

    /// Version of the secret.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The placement of the value.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The text in the request that the value replaces, the longer form first; for placements that need one.
    pub fn stand_in(&self) -> &[String] {
        &self.stand_in
    }

    /// Whether it may be sent over plain HTTP.
    pub fn allow_plaintext(&self) -> bool {
        self.allow_plaintext
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}
