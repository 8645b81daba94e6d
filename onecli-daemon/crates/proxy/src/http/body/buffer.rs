//! Request bodies that must be in memory before the daemon can decide or sign. Their size and number are limited.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use onecli_model::{AgentId, Code, Refusal};

use super::peer_body::PeerBody;
use crate::limits::agent_quota::{AgentQuota, QuotaShare};

/// Largest body in which a placeholder is replaced, in bytes.
pub(crate) const MAX_REPLACED: usize = 1 << 20;
/// Largest body that is hashed for a signature, in bytes.
pub(crate) const MAX_SIGNED: usize = 8 << 20;
/// Maximum number of bodies in memory: for one agent, and for all.
pub(crate) const HELD_PER_AGENT: usize = 8;
pub(crate) const HELD: usize = 32;
/// Maximum number of bodies in memory that wait, with their request, for approval: for one agent, and for all.
pub(crate) const FOR_APPROVAL_PER_AGENT: usize = 16;
pub(crate) const FOR_APPROVAL: usize = 128;
/// Time limit for reading a body into memory.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// A body in memory.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// The body's trailers, which are not forwarded.
    pub(crate) trailers: HeaderMap,
    /// The agent's share of buffered bodies. It is released when the request has its response.
    pub(crate) share: QuotaShare,
}

/// Reads a body to its end.
///
/// # Errors
/// [`Code::BodyTooLarge`], [`Code::LimitReached`], or [`Code::BadRequest`] if the body breaks off.
pub(crate) async fn read(
    mut body: PeerBody,
    most: usize,
    agent: AgentId,
    shares: &AgentQuota,
) -> Result<Whole, Refusal> {
    let too_large = || {
        Refusal::new(
            Code::BodyTooLarge,
            format!(
                "the body is larger than {most} bytes, the limit for a body that this credential requires \
                 in memory"
            ),
            "send less at a time, or ask an administrator to limit the secret to the methods and paths that \
             need it",
        )
    };
    if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let share = shares.take(agent).ok_or_else(|| {
        Refusal::new(
            Code::LimitReached,
            "the limit on request bodies in memory is reached",
            "wait for responses to earlier requests, and send fewer requests at a time",
        )
    })?;
    let (mut bytes, mut trailers) = (BytesMut::new(), HeaderMap::new());
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(data) = frame.data_ref() else {
                trailers = frame.into_trailers().unwrap_or_default();
                continue;
            };
            if bytes.len() + data.len() > most {
                return Err(too_large());
            }
            bytes.extend_from_slice(data);
        }
        Ok(())
    };
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(read) => read?,
        Err(_) => return Err(broken(&"it took longer than a minute")),
    }
    Ok(Whole { bytes: bytes.freeze(), trailers, share })
}

fn broken(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Code::BadRequest, format!("the request's body did not arrive: {error}"), "send it again")
}

/// Returns whether the body has a content coding.
pub(crate) fn has_coding(headers: &HeaderMap) -> bool {
    !headers.get_all(header::CONTENT_ENCODING).iter().all(|coding| coding == "identity")
}

/// Returns the content type; `None` if there is not exactly one.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<&str> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
    }
}
