//! Changes of a secret.

use onecli_model::{HostSet, MethodSet, PathPattern, Placement};
use serde::{Deserialize, Serialize};

use super::env::EnvNames;
use super::secrets::SecretView;
use super::value::WireValue;

/// `secret rotate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRotate {
    /// The new credential.
    pub value: WireValue,
    /// Store the value even if it does not look like the expected credential.
    #[serde(default)]
    pub force: bool,
    /// Erase the replaced value and any retained value at once.
    #[serde(default)]
    pub compromised: bool,
}

/// The error code for a change that requires the secret's value.
pub const VALUE_REQUIRED: &str = "value_required";

/// The error code for a change that would erase a retained value. The same request with `erase_kept` erases it.
pub const DROPS_RETAINED_VALUE: &str = "drops_kept_value";

/// `secret edit`. Absent fields stay unchanged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretEdit {
    /// The version of the secret that the editor saw. The daemon refuses the change if the current version differs.
    pub version: u32,
    /// The hosts that it may be sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSet>,
    /// The port, 1 to 65535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The HTTP methods; empty for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub methods: Option<MethodSet>,
    /// The path patterns; empty for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathPattern>>,
    /// The position of the credential in a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The environment variables from which agents' programs read the placeholder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<EnvNames>,
    /// Remove all environment variables of the secret.
    pub no_env: bool,
    /// Whether the credential may be sent over plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_plaintext: Option<bool>,
    /// The credential. Required if the change widens the set of destinations, except from root: see [`VALUE_REQUIRED`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<WireValue>,
    /// Store the value even if it does not look like the expected credential.
    pub force: bool,
    /// Erase the value retained for `secret rollback`: see [`DROPS_RETAINED_VALUE`].
    pub erase_kept: bool,
}

/// A secret before and after a change. The version is the same if nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEdited {
    /// The secret before the change.
    pub before: SecretView,
    /// The secret after the change.
    pub after: SecretView,
}
