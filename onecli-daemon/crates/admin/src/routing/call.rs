//! A request and its response, independent of the operation.

use std::str::FromStr;
use std::sync::Arc;

use http::{Method, StatusCode};
use onecli_api::{AuditQuery, routes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::context::RunnableAgent;
use crate::error::AdminError;

/// A completely read request.
pub(crate) struct AdminRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// The body; may contain a credential.
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// The sender's uid, according to the kernel.
    pub(crate) uid: u32,
    /// The agents that the sender may run, if the sender is not an administrator.
    pub(crate) runs: Arc<[RunnableAgent]>,
}

/// The response.
pub(crate) enum HandlerResponse {
    /// A JSON document.
    Json(StatusCode, Vec<u8>),
    /// Audit records as JSON lines.
    AuditLines(AuditQuery),
    /// Audit records as JSON lines, already in memory.
    Records(Vec<u8>),
    /// Approval events as JSON lines.
    ApprovalLines,
    /// A copy of the store.
    Backup,
}

pub(crate) fn parse<N: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<N, AdminError> {
    text.parse().map_err(|error: N::Err| AdminError::Invalid(error.to_string()))
}

/// Parses the body as JSON. serde's message names the key and, for the types used here, never quotes a credential.
pub(crate) fn body<T: DeserializeOwned>(call: &AdminRequest) -> Result<T, AdminError> {
    serde_json::from_slice(&call.body).map_err(|error| AdminError::Invalid(error.to_string()))
}

pub(crate) fn json(answer: &impl Serialize) -> Result<HandlerResponse, AdminError> {
    with_status(StatusCode::OK, answer)
}

pub(crate) fn created(answer: &impl Serialize) -> Result<HandlerResponse, AdminError> {
    with_status(StatusCode::CREATED, answer)
}

fn with_status(status: StatusCode, answer: &impl Serialize) -> Result<HandlerResponse, AdminError> {
    let bytes = serde_json::to_vec(answer)
        .map_err(|_| AdminError::Internal("the response could not be serialized"))?;
    Ok(HandlerResponse::Json(status, bytes))
}

/// Parses the query of a `PUT` of a runner, which may also change `see_all`.
pub(crate) fn see_all(query: &str) -> Result<Option<bool>, AdminError> {
    match query.strip_prefix(routes::SEE_ALL) {
        None if query.is_empty() => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        _ => Err(AdminError::Invalid(format!("the query must be {}true or {0}false", routes::SEE_ALL))),
    }
}
