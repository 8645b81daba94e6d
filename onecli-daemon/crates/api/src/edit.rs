//! Changes of a secret.

use onecli_model::{HostSet, MethodSet, PathPattern, Placement};
use serde::{Deserialize, Serialize};

use super::{EnvNames, SecretView, WireValue};

/// `secret rotate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRotate {
    /// The new credential.
    pub value: WireValue,
    /// Store a value that does not look like the credential.
    #[serde(default)]
    pub force: bool,
    /// Erase the replaced value, and a kept one, at once.
    #[serde(default)]
    pub compromised: bool,
}

/// The code of an error: the change needs the secret's value.
pub const VALUE_REQUIRED: &str = "value_required";

/// The code of an error: the change would erase a kept value. The same request with `erase_kept` erases it.
pub const DROPS_KEPT_VALUE: &str = "drops_kept_value";

/// `secret edit`. What is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretEdit {
    /// The version of the secret that the editor saw. The change of another one is refused.
    pub version: u32,
    /// The hosts it may go to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSet>,
    /// The port, 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The methods; empty for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<MethodSet>,
    /// The paths; empty for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathPattern>>,
    /// How it is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The variables that agents' programs read it from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvNames>,
    /// Agents' programs read it from no variable.
    pub no_env: bool,
    /// May it be sent over plain HTTP?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_plaintext: Option<bool>,
    /// The credential. Required, except from root, where it could go further afterwards: see [`VALUE_REQUIRED`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<WireValue>,
    /// Take a value that does not look like the credential.
    pub force: bool,
    /// Erase the value that is kept for `secret rollback`: see [`DROPS_KEPT_VALUE`].
    pub erase_kept: bool,
}

/// A secret before and after a change. The version is the same where nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEdited {
    /// As it was.
    pub before: SecretView,
    /// As it is.
    pub after: SecretView,
}
