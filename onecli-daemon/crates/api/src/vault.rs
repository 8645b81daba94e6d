//! The vault server, and values that become secrets by templates.

use onecli_model::{MaskIssued, SecretName};
use serde::{Deserialize, Serialize};

use super::WireValue;

/// `vault status`: HashiCorp Vault or OpenBao, as `[backend.vault]` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultView {
    /// Host and port.
    pub address: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Login method.
    pub method: String,
    /// The server's version, where it answers.
    pub version: Option<String>,
    /// Sealed?
    pub sealed: Option<bool>,
    /// Standby?
    pub standby: Option<bool>,
    /// Seconds that our token still lasts; absent where it does not end, or there is none.
    pub token_ttl_s: Option<u64>,
    /// Leases that are held for agents.
    pub leases: usize,
    /// What is wrong, if anything.
    pub fault: Option<String>,
}

/// `vault import`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultImport {
    /// A path in a KV mount.
    pub path: String,
    /// Take values that do not look like the credential.
    #[serde(default)]
    pub force: bool,
    /// What happens where a secret exists, and whether anything is changed at all.
    #[serde(default)]
    pub how: ImportHow,
}

/// How values are imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImportHow {
    /// Replace the values of secrets that exist. Without it they are skipped.
    pub replace: bool,
    /// Change nothing; report what would be done.
    pub dry_run: bool,
}

/// `secret import`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// What the file holds.
    pub values: Vec<NamedValue>,
    /// What happens to credentials that the services issue, for secrets that are added.
    #[serde(default)]
    pub mask_issued: MaskIssued,
    /// Take values that do not look like the credential.
    #[serde(default)]
    pub force: bool,
    /// What happens where a secret exists, and whether anything is changed at all.
    #[serde(default)]
    pub how: ImportHow,
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

/// What became of one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The variable or field.
    pub name: String,
    /// The secret, where there is one for it.
    pub secret: Option<SecretName>,
    /// What was done.
    pub end: ImportEnd,
    /// Why it was left out.
    pub reason: Option<String>,
    /// What to know about the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What was done with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportEnd {
    /// A new secret.
    Added,
    /// A new value for a secret.
    Rotated,
    /// The secret has that value.
    Unchanged,
    /// Left out.
    Skipped,
}
