//! Prepares a request for a signature: computes the hash of its body, or selects a form of the body that needs no
//! hash.

use http::header::{self, HeaderValue};
use hyper::body::Body as _;
use onecli_model::{Code, Placement, Refusal};
use onecli_policy::{Grant, Identity};

use super::sigv4::{self, CONTENT_SHA256, Scope, UNSIGNED, UNSIGNED_TRAILERS, is_hash};
use crate::http::body::Payload;
use crate::http::body::aws_chunked::{AwsChunked, Form};
use crate::http::body::buffer;
use crate::http::fields::names::members;
use crate::http::request::head::Head;
use crate::limits::agent_quota::{AgentQuota, QuotaShare};

/// The marker of SDKs for a body with signed chunks.
const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
/// The marker for a body with signed chunks and trailers.
const CHUNKS_AND_TRAILERS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";

/// Prepares a body for signing if one of `grants` signs. Chunk signatures are removed. A body whose hash was only in
/// the agent's signature is read to its end.
///
/// # Errors
/// As [`buffer::read`], and [`Code::BadRequest`] for a body that cannot be signed again.
pub(crate) async fn prepare(
    bodies: &AgentQuota,
    identity: &Identity,
    grants: &[Grant],
    head: &mut Head,
    body: Payload,
    share: Option<QuotaShare>,
) -> Result<(Payload, Option<QuotaShare>), Refusal> {
    let placements = || grants.iter().map(|grant| &grant.secret().placement);
    let fixed = placements().find_map(|placement| match placement {
        Placement::SigV4(signed) => Some(signed.service.as_deref()),
        _ => None,
    });
    let Some(fixed) = fixed else { return Ok((body, share)) };
    if let Some(refusal) = sigv4::unsupported(head) {
        return Err(refusal);
    }
    let Payload::Streamed(body) = body else { return Ok((body, share)) };
    let claimed = Scope::claimed(head).map(|scope| scope.service);
    let is_s3 = fixed.or(claimed.as_deref()) == Some("s3");
    let declared_hash =
        head.headers.get(CONTENT_SHA256).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match declared_hash {
        CHUNKS => {
            let length = decoded_length(head)?;
            let headers = &mut head.headers;
            headers.insert(CONTENT_SHA256, HeaderValue::from_static(UNSIGNED));
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            headers.remove("x-amz-decoded-content-length");
            without_chunked_coding(head);
            Ok((Payload::Unsigned(AwsChunked::new(body, Form::Plain, Some(length))), share))
        }
        CHUNKS_AND_TRAILERS => {
            head.headers.insert(CONTENT_SHA256, HeaderValue::from_static(UNSIGNED_TRAILERS));
            // Without signatures the body is shorter, but the new length is known only at its end.
            head.headers.remove(header::CONTENT_LENGTH);
            Ok((Payload::Unsigned(AwsChunked::new(body, Form::Chunks, None)), share))
        }
        UNSIGNED_TRAILERS | UNSIGNED => Ok((Payload::Streamed(body), share)),
        hash if is_hash(hash) => Ok((Payload::Streamed(body), share)),
        _ if is_s3 || body.is_end_stream() => Ok((Payload::Streamed(body), share)),
        _ => {
            let agent = identity.agent().id;
            let whole = buffer::read(body, buffer::MAX_SIGNED, agent, bodies).await?;
            head.note_trailers(&whole.trailers);
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.bytes.len()));
            Ok((Payload::whole(whole.bytes), Some(whole.share)))
        }
    }
}

fn decoded_length(head: &Head) -> Result<u64, Refusal> {
    let mut declared_lengths = head.headers.get_all("x-amz-decoded-content-length").iter();
    let length =
        declared_lengths.next().and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    match (length, declared_lengths.next()) {
        (Some(length), None) => Ok(length),
        _ => Err(Refusal::new(
            Code::BadRequest,
            "the body is sent in signed chunks, but x-amz-decoded-content-length does not give its length",
            "use an AWS SDK, or send the body with its SHA-256 in x-amz-content-sha256",
        )),
    }
}

/// Removes AWS's chunk coding, because the data alone is in no such coding.
fn without_chunked_coding(head: &mut Head) {
    let kept: Vec<String> = members(&head.headers, &header::CONTENT_ENCODING)
        .filter(|coding| !coding.eq_ignore_ascii_case("aws-chunked"))
        .map(str::to_owned)
        .collect();
    head.headers.remove(header::CONTENT_ENCODING);
    if let Ok(value) = HeaderValue::try_from(kept.join(", "))
        && !kept.is_empty()
    {
        head.headers.insert(header::CONTENT_ENCODING, value);
    }
}
