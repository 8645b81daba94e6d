//! Secrets, without their values.

use jiff::Timestamp;
use onecli_model::{
    AgentName, HostSet, MethodSet, PathPattern, Placement, Profile, SecretId, SecretName, ValueClass,
};
use serde::{Deserialize, Serialize};

use super::env::EnvNames;
use super::value::WireValue;

/// `secret add`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretAdd {
    /// The secret's name.
    pub name: SecretName,
    /// The hosts that it may be sent to, separated by commas.
    pub host: HostSet,
    /// The port, 1 to 65535.
    #[serde(default = "https_port")]
    pub port: u16,
    /// The HTTP methods; empty for all.
    #[serde(default)]
    pub methods: MethodSet,
    /// The path patterns; empty for all.
    #[serde(default)]
    pub paths: Vec<PathPattern>,
    /// The position of the credential in a request.
    pub placement: Placement,
    /// Its template, the shape of its placeholders, and how the daemon turns its value into a credential.
    #[serde(default)]
    pub profile: Profile,
    /// The environment variables from which agents' programs read the placeholder, separated by commas.
    #[serde(default)]
    pub env: Option<EnvNames>,
    /// Whether the credential may be sent over plain HTTP.
    #[serde(default)]
    pub allow_plaintext: bool,
    /// The credential; absent if the profile names an external source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<WireValue>,
    /// Store the value even if it does not look like the expected credential.
    #[serde(default)]
    pub force: bool,
}

fn https_port() -> u16 {
    443
}

/// A secret without its value. No response ever contains the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// The secret's name.
    pub name: SecretName,
    /// Its id in the store.
    pub id: SecretId,
    /// Whether the daemon injects it.
    pub enabled: bool,
    /// The hosts that it may be sent to, separated by commas.
    pub host: HostSet,
    /// The port.
    pub port: u16,
    /// The HTTP methods; empty for all.
    pub methods: MethodSet,
    /// The path patterns.
    pub paths: Vec<PathPattern>,
    /// The position of the credential in a request.
    pub placement: Placement,
    /// Its template, the shape of its placeholders, and how the daemon turns its value into a credential.
    #[serde(default)]
    pub profile: Profile,
    /// The environment variables from which agents' programs read the placeholder, separated by commas.
    pub env: Option<String>,
    /// Whether the credential may be sent over plain HTTP.
    pub allow_plaintext: bool,
    /// The version of the value: 1 for the first, plus 1 for each new value.
    pub version: u32,
    /// Public properties of the value, such as `token/128`; `None` for values stored by an older version of OneCLI.
    #[serde(default)]
    pub class: Option<ValueClass>,
    /// The time until which `secret rollback` can restore the previous value, given the secret's current settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    /// The time until which the daemon retains a previous value that cannot be restored with the secret's current
    /// settings. Responses are still searched for that value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_until: Option<Timestamp>,
    /// The agents that may use it.
    pub agents: Vec<AgentName>,
    /// The time of the last injection.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// Whether the given value was already stored, in which case nothing was changed. Present only in the response to
    /// `secret rotate`, and only for root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchanged: bool,
    /// Warnings about the value; present only in the responses to `secret add` and `secret rotate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
