//! WebSocket: tunnelled only after the upstream's 101 (RFC 6455 section 4.2.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::answer::{Delivery, Undelivered, clean_headers, deliver};
use super::body::{Body, empty};
use super::gateway::Counters;
use super::websocket::ScrubbedFrames;
use crate::audit::Text;
use crate::model::{Code, Refusal};
use crate::net::{Ended, TunnelBytes, tunnel};

/// Delivers the answer to an upgrade request: a tunnel after a valid 101, else as any answer.
///
/// # Errors
/// As [`deliver`], and [`Code::UpstreamProtocol`] for a 101 to something else.
pub(super) fn deliver_upgrade(
    client: OnUpgrade,
    method: &Method,
    mut response: Response<Incoming>,
    mut delivery: Delivery,
) -> Result<Response<Body>, Box<Undelivered>> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return deliver(method, response, delivery);
    }
    let agreed = response
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !agreed {
        let refusal = Refusal::new(
            Code::UpstreamProtocol,
            "the upstream switched to a protocol that was not asked for",
            "only WebSocket upgrades are passed on",
        );
        return Err(Undelivered::new(refusal, delivery.trail));
    }
    // None was asked for, and what an extension does to frames (compression, say) would hide values.
    if response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        let refusal = Refusal::new(
            Code::UpstreamProtocol,
            "the upstream negotiated a WebSocket extension that was not asked for",
            "turn it off at the upstream",
        );
        return Err(Undelivered::new(refusal, delivery.trail));
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    parts.extensions.clear();
    clean_headers(&mut parts.headers);
    delivery.scrubber.headers(&mut parts.headers);
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    delivery.trail.record().status = Some(parts.status.as_u16());
    tokio::spawn(run(client, upstream, delivery));
    Ok(Response::from_parts(parts, empty()))
}

async fn run(client: OnUpgrade, upstream: OnUpgrade, delivery: Delivery) {
    let Delivery { gateway, mut trail, scrubber, revoked, .. } = delivery;
    let (client, upstream) = match tokio::try_join!(client, upstream) {
        Ok((client, upstream)) => (TokioIo::new(client), TokioIo::new(upstream)),
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not complete");
            trail.fail(Code::UpstreamProtocol);
            return;
        }
    };
    let hits = Arc::new(AtomicU64::new(0));
    if !scrubber.is_idle() {
        trail.record().scrub_hits = Some(0);
    }
    let upstream = ScrubbedFrames::new(upstream, scrubber, Arc::clone(&hits));
    let bytes = TunnelBytes::default();
    let result = tunnel(client, upstream, &bytes, revoked).await;
    let hits = hits.load(Ordering::Relaxed);
    trail.record().scrub_hits = trail.record().scrub_hits.map(|_| hits);
    Counters::add(&gateway.counters.scrub_hits, hits);
    if matches!(result, Ok(Ended::Stopped)) {
        trail.record().code = Some(Text::new(gateway.taken_back().as_str()));
    }
    trail.tunnelled(&bytes, result.map(drop));
}
