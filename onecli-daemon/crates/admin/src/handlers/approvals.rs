//! `approval list | show | watch | allow | deny`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::{self, HeaderName};
use onecli_api::{ApprovalDetail, ApprovalEvent, ApprovalOutcome, ApprovalView, BodyView, HeaderView};
use onecli_model::placeholder_scan;
use onecli_policy::{ApprovalAnswer, ApprovalChange, ApprovalEnd, ApprovalId, ApprovalRequest};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;

use crate::context::AdminContext;
use crate::error::AdminError;

/// Fields whose definitions leave no room for a credential. The values of all other fields are masked.
const PLAIN: [HeaderName; 15] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::DATE,
    header::EXPECT,
    header::HOST,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
];

pub(crate) fn list(context: &AdminContext) -> Vec<ApprovalView> {
    let list = context.handles.approvals.list();
    list.into_iter().map(|(id, asked)| view(id, asked)).collect()
}

pub(crate) fn show(context: &AdminContext, id: ApprovalId) -> Result<ApprovalDetail, AdminError> {
    let mut open = context.handles.approvals.list().into_iter();
    let (_, asked) =
        open.find(|(open, _)| *open == id).ok_or_else(|| AdminError::not_found("approval", &id))?;
    let mut fields: Vec<_> = asked.headers.iter().collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    let headers = fields.into_iter().map(|(name, value)| header(name, value.as_bytes())).collect();
    let body = asked.body.as_deref().map(body).unwrap_or_default();
    Ok(ApprovalDetail { approval: view(id, asked), headers, body })
}

pub(crate) fn answer(
    context: &AdminContext,
    id: ApprovalId,
    allowed: bool,
    uid: u32,
) -> Result<ApprovalView, AdminError> {
    let answered = context.handles.approvals.answer(id, ApprovalAnswer { allowed, uid });
    let asked = answered.map_err(|_| AdminError::not_found("approval", &id))?;
    let change = if allowed { "approval allow" } else { "approval deny" };
    tracing::info!(change, %id, agent = %asked.agent_name, request = %asked.request, "admin change");
    Ok(view(id, asked))
}

/// Streams the pending requests and then each change, as JSON lines. The stream ends if the client is too slow; the
/// client then asks again.
pub(crate) fn watch(
    context: &AdminContext,
) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, AdminError> {
    let permit = Arc::clone(&context.followers).try_acquire_owned();
    let permit = permit.map_err(|_| AdminError::TooManyFollowers)?;
    let (open, changes) = context.handles.approvals.watch();
    let waiting = open.into_iter().map(|(id, asked)| ApprovalEvent::Waiting(view(id, asked).into()));
    let first: Vec<u8> = waiting.chain([ApprovalEvent::Ready]).flat_map(|event| line(&event)).collect();
    let watch = Watch { first: Some(first.into()), changes, _permit: permit };
    Ok(stream::unfold(watch, Watch::next))
}

struct Watch {
    first: Option<Bytes>,
    changes: Receiver<ApprovalChange>,
    _permit: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Watch)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        let changed = self.changes.recv().await.ok()?;
        Some((Ok(line(&event(changed)).into()), self))
    }
}

fn event(changed: ApprovalChange) -> ApprovalEvent {
    match changed {
        ApprovalChange::Requested(id, asked) => ApprovalEvent::Waiting(view(id, *asked).into()),
        ApprovalChange::Ended(id, end) => {
            let (outcome, uid) = match end {
                ApprovalEnd::Answered(ApprovalAnswer { allowed: true, uid }) => {
                    (ApprovalOutcome::Allowed, Some(uid))
                }
                ApprovalEnd::Answered(ApprovalAnswer { allowed: false, uid }) => {
                    (ApprovalOutcome::Denied, Some(uid))
                }
                ApprovalEnd::TimedOut => (ApprovalOutcome::TimedOut, None),
                ApprovalEnd::Revoked => (ApprovalOutcome::Revoked, None),
                ApprovalEnd::Withdrawn => (ApprovalOutcome::Withdrawn, None),
            };
            ApprovalEvent::Ended { id: id.to_string(), outcome, uid }
        }
    }
}

fn line(event: &ApprovalEvent) -> Vec<u8> {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

fn header(name: &HeaderName, value: &[u8]) -> HeaderView {
    let value =
        if PLAIN.contains(name) { String::from_utf8_lossy(value).into_owned() } else { masked(value) };
    HeaderView { name: name.to_string(), value }
}

/// Replaces everything in a value except its placeholders by the length of the replaced part.
fn masked(value: &[u8]) -> String {
    let hidden = |length| if length == 0 { String::new() } else { format!("[{length} bytes]") };
    let (mut text, mut from) = (String::new(), 0);
    for (at, placeholder) in placeholder_scan::in_bytes(value) {
        text.push_str(&hidden(at - from));
        text.push_str(placeholder);
        from = at + placeholder.len();
    }
    text + &hidden(value.len() - from)
}

fn body(body: &[u8]) -> BodyView {
    BodyView {
        bytes: Some(body.len() as u64),
        sha256: Some(data_encoding::HEXLOWER.encode(&Sha256::digest(body))),
        text: std::str::from_utf8(body).ok().filter(|text| is_printable(text)).map(str::to_owned),
    }
}

/// Returns whether the content is text, as opposed to a binary format that happens to be valid UTF-8.
fn is_printable(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

fn view(id: ApprovalId, asked: ApprovalRequest) -> ApprovalView {
    ApprovalView {
        id: id.to_string(),
        agent: asked.agent_name,
        rule: asked.rule,
        request_id: asked.request,
        method: asked.method,
        authority: asked.authority.to_string(),
        path: asked.path,
        query: asked.query,
        secrets: asked.secrets,
        digest: asked.digest,
        body_bytes: asked.body.map(|body| body.len() as u64),
        since: asked.since,
        until: asked.until,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_value_shows_only_placeholders_and_lengths() {
        let placeholder = format!("onecli_ph_{}", "a".repeat(32));
        let check = |value: &str, expected: &str| assert_eq!(masked(value.as_bytes()), expected, "{value}");
        check("", "");
        check("Bearer sk-live", "[14 bytes]");
        check(&format!("Bearer {placeholder}"), &format!("[7 bytes]{placeholder}"));
        check(
            &format!("{placeholder};{placeholder}="),
            &format!("{placeholder}[1 bytes]{placeholder}[1 bytes]"),
        );
        let shown = header(&header::CONTENT_TYPE, b"text/plain");
        assert_eq!((shown.name.as_str(), shown.value.as_str()), ("content-type", "text/plain"));
        for name in [header::AUTHORIZATION, header::COOKIE, HeaderName::from_static("x-anything")] {
            assert_eq!(header(&name, b"secret").value, "[6 bytes]", "{name}");
        }
    }

    #[test]
    fn binary_body_shows_only_length_and_digest() {
        let shown = body(b"\x00\xff");
        assert_eq!((shown.bytes, shown.text), (Some(2), None));
        assert_eq!(body(b"\x1b[2J").text, None, "terminal controls are not text");
        assert_eq!(body("a\tb\nü".as_bytes()).text.as_deref(), Some("a\tb\nü"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(body(b"").sha256.as_deref(), Some(empty));
    }
}
