//! Requests that a template refuses, with the page that documents them.

use serde::{Deserialize, Serialize};

use super::denial::Denial;

/// Denials from one page.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyGroup {
    /// The page, or the description of the API with its version.
    pub source: String,
    /// The date of reading: `YYYY-MM-DD`.
    pub date: String,
    /// The refused requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Denial>,
    /// The AWS service of `operations`, by the name of its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The protocol in which the service names operations. The default is JSON.
    #[serde(default, skip_serializing_if = "AwsProtocol::is_json")]
    pub protocol: AwsProtocol,
    /// Refused operations of that service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
}

/// The place in which an AWS service reads an operation's name (Smithy's AWS protocols).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AwsProtocol {
    /// `X-Amz-Target`, or the path of RPC v2.
    #[default]
    Json,
    /// `Action`, in the query or in a form body.
    Query,
}

impl AwsProtocol {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_json(&self) -> bool {
        *self == AwsProtocol::Json
    }
}

impl DenyGroup {
    /// Returns all denials of the group.
    ///
    /// # Errors
    /// A sentence about an operation without its service.
    pub fn denials(&self) -> Result<Vec<Denial>, String> {
        let mut all = self.requests.clone();
        let service = match &self.service {
            Some(service) => service,
            None if self.operations.is_empty() => return Ok(all),
            None => return Err(format!("'{}' names operations but no service", self.operations[0])),
        };
        let in_form = self.protocol == AwsProtocol::Query;
        for operation in &self.operations {
            all.push(Denial::of_operation(service, operation, in_form)?);
        }
        Ok(all)
    }
}
