//! `secret test`.

use onecli_model::harmless::TestVerdict;
use onecli_model::{Host, RequestId, SecretName};
use serde::{Deserialize, Serialize};

/// What to send in place of what the secret's template names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretTest {
    /// The host, which the secret's scope must have.
    #[serde(default)]
    pub host: Option<Host>,
    /// The method; GET unless given.
    #[serde(default)]
    pub method: Option<String>,
    /// Path and query.
    #[serde(default)]
    pub path: Option<String>,
    /// The user of Basic authentication, for a secret that is only its password.
    #[serde(default)]
    pub user: Option<String>,
}

/// What the service answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTested {
    /// The secret.
    pub secret: SecretName,
    /// Method and URL.
    pub request: String,
    /// The status.
    pub status: u16,
    /// What it means.
    pub verdict: TestVerdict,
    /// Was it the request that the secret's template names? Otherwise a 2xx shows only that the path answers.
    #[serde(default)]
    pub template_request: bool,
    /// The host that a redirect leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_host: Option<String>,
    /// The beginning of the body, at most 400 characters, without any secret.
    pub excerpt: String,
    /// Until the answer was read, in milliseconds.
    pub duration_ms: u64,
    /// Its records in the audit log.
    pub request_id: Option<RequestId>,
}
