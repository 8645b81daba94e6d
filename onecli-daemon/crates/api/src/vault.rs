//! The vault server, and values imported as secrets by templates.

use onecli_model::{MaskIssued, SecretName};
use serde::{Deserialize, Serialize};

use super::value::WireValue;

/// `vault status`: HashiCorp Vault or OpenBao, as `[backend.vault]` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultView {
    /// Host and port.
    pub address: String,
    /// The namespace.
    pub namespace: Option<String>,
    /// The login method.
    pub method: String,
    /// The server's version, if it responds.
    pub version: Option<String>,
    /// Whether the server is sealed.
    pub sealed: Option<bool>,
    /// Whether the server is a standby.
    pub standby: Option<bool>,
    /// Remaining lifetime of the daemon's token in seconds; absent if the token never expires or does not exist.
    pub token_ttl_s: Option<u64>,
    /// The number of leases held for agents.
    pub leases: usize,
    /// The current fault, if there is one.
    pub fault: Option<String>,
}

/// `vault import`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultImport {
    /// A path in a KV mount.
    pub path: String,
    /// Accept values that do not look like the expected credential.
    #[serde(default)]
    pub force: bool,
    /// How existing secrets are treated, and whether this is a dry run.
    #[serde(default)]
    pub how: ImportOptions,
}

/// How values are imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportOptions {
    /// Replace the values of existing secrets. Otherwise they are skipped.
    pub replace: bool,
    /// Change nothing; report the planned changes.
    pub dry_run: bool,
}

/// `secret import`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// The values in the file.
    pub values: Vec<NamedValue>,
    /// How added secrets treat credentials that services issue.
    #[serde(default)]
    pub mask_issued: MaskIssued,
    /// Accept values that do not look like the expected credential.
    #[serde(default)]
    pub force: bool,
    /// How existing secrets are treated, and whether this is a dry run.
    #[serde(default)]
    pub how: ImportOptions,
}

/// A variable with its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedValue {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: WireValue,
}

/// The result for one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The variable or field.
    pub name: String,
    /// The secret, if one corresponds to the name.
    pub secret: Option<SecretName>,
    /// The action taken.
    pub end: ImportOutcome,
    /// Why the value was skipped.
    pub reason: Option<String>,
    /// A warning about the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The action taken for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportOutcome {
    /// A new secret.
    Added,
    /// A new value for a secret.
    Rotated,
    /// The secret already has that value.
    Unchanged,
    /// Skipped.
    Skipped,
}
