//! WebSocket: tunnelled only after the upstream's 101 (RFC 6455 section 4.2.2).

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use onecli_audit::Text;
use onecli_model::{Code, Refusal};
use onecli_net::{TunnelBytes, tunnel};
use sha1::{Digest, Sha1};

use super::messages::{self, Hits};
use super::scan;
use crate::http::body::peer_body::PeerBody;
use crate::http::body::{Body, empty};
use crate::http::fields::names::members;
use crate::http::placeholders::content_scan::{ContentAlerts, ContentScan};
use crate::http::response::answer::{Delivery, Undelivered, clean_headers, deliver};
use crate::http::response::returned::withheld;
use crate::session::counters::Counters;

/// A client that waits for its upgrade, and the key that an accepting server must return.
#[derive(Debug)]
pub(crate) struct Upgrade {
    client: OnUpgrade,
    accept: String,
}

impl Upgrade {
    /// Returns the upgrade of a request with these headers; `None` without a key.
    pub(crate) fn new(client: OnUpgrade, headers: &HeaderMap) -> Option<Upgrade> {
        Some(Upgrade { client, accept: accept_of(headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes()) })
    }

    /// Returns whether the server supports WebSocket and has read this request. A server that only echoes a status
    /// does not, and would interpret the following bytes as requests.
    fn is_accepted(&self, headers: &HeaderMap) -> bool {
        let mut accepts = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        let only = (accepts.next(), accepts.next());
        headers.get(header::UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && matches!(only, (Some(accept), None) if accept.as_bytes() == self.accept.as_bytes())
    }
}

/// Protocols that a server may decline by continuing in HTTP/1.1 (RFC 9110 section 7.8). Their clients offer them
/// with any request and work without them. `websocket` is included because the upstream itself answers an invalid
/// WebSocket request.
const DECLINED: [&str; 5] = ["websocket", "h2c", "h2", "http", "tls"];
/// Maximum number of characters of the field that a message shows.
const MAX_SHOWN: usize = 64;

/// Refuses an upgrade to a protocol that is not forwarded, and that the client cannot do without.
///
/// # Errors
/// [`Code::UpgradeUnsupported`].
pub(crate) fn refuse_unknown(request: &Parts) -> Result<(), Refusal> {
    // RFC 9110 section 7.8: the field is ignored in HTTP/1.0, and without the connection option.
    if request.version != Version::HTTP_11
        || !members(&request.headers, &header::CONNECTION).any(|o| o.eq_ignore_ascii_case("upgrade"))
    {
        return Ok(());
    }
    let names: Vec<String> =
        members(&request.headers, &header::UPGRADE).map(str::to_ascii_lowercase).collect();
    let is_declined = |name: &String| DECLINED.contains(&name.split('/').next().unwrap_or_default());
    if names.is_empty() || names.iter().any(is_declined) {
        return Ok(());
    }
    let shown: String = names.join(", ").chars().take(MAX_SHOWN).collect();
    Err(Refusal::new(
        Code::UpgradeUnsupported,
        format!("the request asks for an upgrade to '{shown}', but only WebSocket is supported"),
        "use the client's WebSocket mode (kubectl's default from 1.31 on), or ask an administrator to \
         tunnel the host's TLS: onecli rule add allow --tunnel --host HOST",
    ))
}

/// RFC 6455 section 4.2.2, step 5.4.
fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    data_encoding::BASE64.encode(&hash.finalize())
}

/// Delivers the response to an upgrade request: a tunnel after a valid 101, otherwise a regular response.
///
/// # Errors
/// As [`deliver`], and [`Code::UpstreamProtocol`] for a 101 to another protocol.
pub(crate) fn deliver_upgrade(
    upgrade: Upgrade,
    method: &Method,
    mut response: Response<PeerBody>,
    mut delivery: Delivery,
) -> Result<Response<Body>, Box<Undelivered>> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return deliver(method, response, delivery);
    }
    if !upgrade.is_accepted(response.headers()) {
        let refusal = Refusal::new(
            Code::UpstreamProtocol,
            "the upstream switched to a protocol that was not requested, or did not confirm this request",
            "only WebSocket upgrades are supported",
        );
        return Err(Undelivered::new(refusal, delivery.audit));
    }
    // The daemon offered no extension. An extension's effect on frames, such as compression, would hide values.
    if response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        let refusal = Refusal::new(
            Code::UpstreamProtocol,
            "the upstream negotiated a WebSocket extension that was not requested",
            "disable the extension at the upstream",
        );
        return Err(Undelivered::new(refusal, delivery.audit));
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (mut parts, _) = response.into_parts();
    parts.extensions.clear();
    clean_headers(&mut parts.headers);
    delivery.seal_sessions(&mut parts.headers);
    delivery.issued.headers(&mut parts.headers);
    delivery.scrubber.headers(&mut parts.headers);
    if delivery.scrubber.is_cut() {
        return Err(Undelivered::new(withheld(), delivery.audit));
    }
    parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    delivery.audit.record().status = Some(parts.status.as_u16());
    tokio::spawn(run(upgrade.client, upstream, delivery));
    Ok(Response::from_parts(parts, empty()))
}

async fn run(client: OnUpgrade, upstream: OnUpgrade, delivery: Delivery) {
    let scan =
        ContentScan::new(Arc::new(ContentAlerts::of(&delivery.audit, delivery.upstream.authority().clone())));
    let Delivery { connection, mut audit, scrubber, revoked, .. } = delivery;
    let (client, upstream) = match tokio::try_join!(client, upstream) {
        Ok((client, upstream)) => (TokioIo::new(client), TokioIo::new(upstream)),
        Err(error) => {
            tracing::debug!(%error, "an upgrade did not complete");
            audit.fail(Code::UpstreamProtocol);
            return;
        }
    };
    let hits = Arc::new(Hits::default());
    let upstream = messages::scrubbed(upstream, scrubber, Arc::clone(&hits));
    let client = scan::scanned(client, scan);
    let bytes = TunnelBytes::default();
    let result = tunnel(client, upstream, &bytes, connection.session.upstreams.timeouts.idle, revoked).await;
    audit.record().scrub_hits = hits.count();
    Counters::add(&connection.session.recorder.counters.scrub_hits, hits.count().unwrap_or(0));
    if let Some(refusal) =
        result.as_ref().err().and_then(std::io::Error::get_ref).and_then(|e| e.downcast_ref())
    {
        let refusal: &Refusal = refusal;
        audit.record().code = Some(Text::new(refusal.code.as_str()));
    }
    audit.tunnelled(&bytes, result);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 6455 section 1.3.
    #[test]
    fn accept_key_matches_rfc_6455_example() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn unknown_upgrades_are_refused_and_optional_ones_declined() {
        let check = |version: Version, connection: &str, upgrade: &str, expected: bool| {
            let request = http::Request::builder().version(version).uri("/");
            let request =
                request.header("connection", connection).header("upgrade", upgrade).body(()).unwrap();
            let refused = refuse_unknown(&request.into_parts().0).err();
            assert_eq!(refused.is_some(), expected, "{version:?} {connection} {upgrade}");
            if let Some(refusal) = refused {
                assert_eq!(refusal.code, Code::UpgradeUnsupported);
                assert!(
                    refusal.message.contains(&upgrade.to_ascii_lowercase()[..6.min(upgrade.len())]),
                    "{refusal}"
                );
            }
        };
        for unknown in ["SPDY/3.1", "tcp", "irc/6.9, rta/x11", "foo"] {
            check(Version::HTTP_11, "keep-alive, Upgrade", unknown, true);
            check(Version::HTTP_11, "keep-alive", unknown, false);
            check(Version::HTTP_10, "Upgrade", unknown, false);
        }
        for declined in ["h2c", "HTTP/2.0", "TLS/1.0", "websocket", "WebSocket", "foo, h2c", ""] {
            check(Version::HTTP_11, "upgrade", declined, false);
        }
    }
}
