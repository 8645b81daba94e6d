//! `secret test`.

use onecli_model::harmless::TestVerdict;
use onecli_model::{Host, RequestId, SecretName};
use serde::{Deserialize, Serialize};

/// Overrides of the request that the secret's template names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretTest {
    /// The host. It must be in the secret's scope.
    #[serde(default)]
    pub host: Option<Host>,
    /// The method; GET by default.
    #[serde(default)]
    pub method: Option<String>,
    /// The path and query.
    #[serde(default)]
    pub path: Option<String>,
    /// The user for Basic authentication, if the secret is only the password.
    #[serde(default)]
    pub user: Option<String>,
}

/// The service's response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretTestResult {
    /// The secret.
    pub secret: SecretName,
    /// The method and URL.
    pub request: String,
    /// The HTTP status.
    pub status: u16,
    /// The meaning of the status.
    pub verdict: TestVerdict,
    /// Whether the request was the one that the secret's template names. Otherwise a 2xx status shows only that the
    /// path responds.
    #[serde(default)]
    pub template_request: bool,
    /// The host that a redirect points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_host: Option<String>,
    /// The first 400 characters of the body at most, with all secrets scrubbed.
    pub excerpt: String,
    /// The time until the response was read, in milliseconds.
    pub duration_ms: u64,
    /// The id of the request's audit records.
    pub request_id: Option<RequestId>,
}
