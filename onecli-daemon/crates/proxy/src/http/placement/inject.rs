//! Puts a credential into a request: first strips existing copies, then injects.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use jiff::Timestamp;
use onecli_audit::Durable;
use onecli_model::{AwsKeys, Code, PlaceholderLocation, Placement, RESERVED, Refusal, SecretValue};
use onecli_vault::Credential;
use percent_encoding::{percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

use super::replace::{self, NotReplaced, StandIn};
use super::signing;
use super::sigv4::{self, Scope};
use crate::http::fields::names::{DIGESTS, remove_copies};
use crate::http::request::head::Head;
use crate::upstream::pool::Upstream;

/// A request that is about to be sent.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) head: Head,
    /// The body, if it is in memory.
    pub(crate) body: Option<Bytes>,
    /// The time, for signatures.
    pub(crate) now: Timestamp,
    /// Signatures that were made. Responses are searched for them.
    pub(crate) signatures: Vec<SecretValue>,
}

/// The body may contain the value.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Places `credential` into the request that is about to be sent to `upstream`.
///
/// The arguments prove that injection is permitted. Policy granted the credential, the upstream is verified for this
/// authority (unless the secret allows plain text), and the decision is durable. They cannot be obtained in any other
/// way.
///
/// # Errors
/// [`Code::SecretUnavailable`] if the value does not fit the placement. [`Code::PlaintextRefused`] if the upstream is
/// not verified and the secret does not allow that.
pub(crate) fn inject(
    outgoing: &mut Outgoing,
    credential: &Credential,
    upstream: &Upstream,
    _decision: &Durable,
) -> Result<(), Refusal> {
    let head = &mut outgoing.head;
    if head.authority != *upstream.authority() {
        return Err(Refusal::new(
            Code::Internal,
            "the upstream is not the one that policy matched",
            "report this as a bug in OneCLI",
        ));
    }
    if !upstream.is_verified() && !credential.allow_plaintext() {
        return Err(Refusal::new(
            Code::PlaintextRefused,
            format!("secret '{}' is not sent over plain HTTP", credential.name()),
            "use https://",
        ));
    }
    match credential.placement() {
        Placement::Header { name, template } => {
            let (before, after) = template.parts();
            let mut value = Zeroizing::new(Vec::with_capacity(256));
            value.extend_from_slice(before.as_bytes());
            value.extend_from_slice(credential.value().expose());
            value.extend_from_slice(after.as_bytes());
            set_header(&mut head.headers, name, &value).map_err(|_| unusable(credential))
        }
        Placement::Basic { user } => {
            let value = Zeroizing::new(basic(user, credential.value()));
            set_header(&mut head.headers, &header::AUTHORIZATION, value.as_bytes())
                .map_err(|_| unusable(credential))
        }
        Placement::Query { name } => {
            head.query = Some(
                set_query(head.query.as_deref(), name, credential.value())
                    .ok_or_else(|| unusable(credential))?,
            );
            Ok(())
        }
        Placement::Replace { at } => {
            replace_at(outgoing, at, credential).map_err(|why| not_replaced(why, at, credential))
        }
        Placement::SigV4 { region, service, except } => {
            let keys = AwsKeys::parse(credential.value()).map_err(|_| unusable(credential))?;
            let scope = Scope::settle(head, region.as_deref(), service.as_deref(), except)?;
            let body = signing::hash_of(head, outgoing.body.as_deref(), &scope);
            outgoing.signatures.push(sigv4::sign(head, &keys, &scope, outgoing.now, &body)?);
            Ok(())
        }
    }
}

fn replace_at(
    outgoing: &mut Outgoing,
    at: &PlaceholderLocation,
    credential: &Credential,
) -> Result<(), NotReplaced> {
    let (stand_in, value) = (StandIn { forms: credential.stand_in() }, credential.value());
    let head = &mut outgoing.head;
    match at {
        PlaceholderLocation::Header(name) => replace::in_header(&mut head.headers, name, &stand_in, value),
        PlaceholderLocation::Basic => replace::in_basic(&mut head.headers, &stand_in, value),
        PlaceholderLocation::Query(name) => {
            head.query = Some(replace::in_query(head.query.as_deref(), name, &stand_in, value)?);
            Ok(())
        }
        PlaceholderLocation::Json(pointer) => {
            let body = outgoing.body.as_deref().ok_or(NotReplaced::Absent)?;
            let body = replace::in_json(body, pointer, &stand_in, value)?;
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            for name in &DIGESTS {
                remove_copies(&mut head.headers, name);
            }
            // Zeroed when hyper has sent it.
            outgoing.body = Some(Bytes::from_owner(body));
            Ok(())
        }
    }
}

fn not_replaced(why: NotReplaced, at: &PlaceholderLocation, credential: &Credential) -> Refusal {
    let name = credential.name();
    match why {
        NotReplaced::Absent => Refusal::new(
            Code::PlaceholderMissing,
            format!("the placeholder of secret '{name}' is not in {at}"),
            "send it there, because the service expects its credential there",
        ),
        NotReplaced::Repeated => Refusal::new(
            Code::BadRequest,
            format!("the request has {at} more than once"),
            "send it once, because servers differ about which one they use",
        ),
        NotReplaced::Unusable => unusable(credential),
    }
}

/// Returns `Basic` and the encoded pair (RFC 7617).
pub(crate) fn basic(user: &str, value: &SecretValue) -> String {
    let mut pair = Zeroizing::new(Vec::with_capacity(user.len() + 1 + value.expose().len()));
    pair.extend_from_slice(user.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(value.expose());
    format!("Basic {}", data_encoding::BASE64.encode(&pair))
}

/// Removes every copy of the header, including spellings with `_` (CGI and WSGI servers read them as the same name).
/// Then sets the real value.
fn set_header(headers: &mut HeaderMap, name: &HeaderName, value: &[u8]) -> Result<(), InvalidHeaderValue> {
    let mut real = HeaderValue::from_bytes(value)?;
    real.set_sensitive(true);
    remove_copies(headers, name);
    headers.insert(name, real);
    Ok(())
}

/// Removes every parameter of this name, and appends the real one.
pub(crate) fn set_query(query: Option<&str>, name: &str, value: &SecretValue) -> Option<String> {
    let value = std::str::from_utf8(value.expose()).ok()?;
    let is_copy = |pair: &str| {
        let key = pair.split_once('=').map_or(pair, |(key, _)| key);
        percent_decode_str(key).decode_utf8_lossy() == name
    };
    let mut out = String::new();
    // Some servers also separate parameters with `;`, so a copy must not hide after it.
    for pair in query.unwrap_or_default().split('&') {
        if pair.is_empty() || pair.split(';').any(is_copy) {
            continue;
        }
        out.push_str(pair);
        out.push('&');
    }
    out.push_str(name);
    out.push('=');
    out.extend(utf8_percent_encode(value, RESERVED));
    Some(out)
}

fn unusable(credential: &Credential) -> Refusal {
    Refusal::new(
        Code::SecretUnavailable,
        format!("the value of secret '{}' does not fit its placement", credential.name()),
        format!("ask an administrator to store it again: onecli secret rotate {}", credential.name()),
    )
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn every_copy_of_a_header_is_removed() {
        let mut headers = HeaderMap::new();
        for name in ["x-api-key", "x_api_key", "x-api_key", "x-api-key2"] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static("agent"));
        }
        headers.append("x-api-key", HeaderValue::from_static("again"));
        remove_copies(&mut headers, &HeaderName::from_static("x-api-key"));
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-api-key2"]);
    }

    #[test]
    fn every_copy_of_a_query_parameter_is_removed() {
        let value = SecretValue::new(b"a b&c=d/e+f".to_vec()).unwrap();
        let check = |query: Option<&str>, expected: &str| {
            assert_eq!(set_query(query, "key", &value).unwrap(), expected, "{query:?}");
        };
        check(None, "key=a%20b%26c%3Dd%2Fe%2Bf");
        check(Some("a=1&key=x&b=2"), "a=1&b=2&key=a%20b%26c%3Dd%2Fe%2Bf");
        check(Some("%6bey=x&key&keys=1&key=y"), "keys=1&key=a%20b%26c%3Dd%2Fe%2Bf");
        check(Some("a=1;key=x"), "key=a%20b%26c%3Dd%2Fe%2Bf");
    }

    /// HPACK's tables outlive a request, and a proxy on the path may retain them: RFC 7541 section 7.1.3.
    #[tokio::test]
    async fn http2_never_indexes_a_value() {
        // A literal that is never indexed, with name 23 of the static table: `authorization` (RFC 7541 section
        // 6.2.3).
        const NEVER: [u8; 2] = [0x1f, 0x08];
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let (sender, connection) = h2::client::handshake(client).await.unwrap();
        let running = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..2 {
            let mut request = Request::builder().uri("https://api.test/").body(()).unwrap();
            set_header(request.headers_mut(), &header::AUTHORIZATION, b"Bearer sk-12345678").unwrap();
            waiting.push(sender.send_request(request, true).unwrap());
        }
        let mut sent = Vec::new();
        let seen = |sent: &[u8]| sent.windows(2).filter(|pair| *pair == NEVER).count();
        while seen(&sent) < 2 {
            assert!(server.read_buf(&mut sent).await.unwrap() > 0, "{sent:x?}");
        }
        running.abort();
    }
}
