//! Places a credential in a header field.

use http::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use onecli_model::Refusal;
use onecli_model::placement::Header;
use onecli_vault::Credential;
use zeroize::Zeroizing;

use super::kind::{Inject, Outgoing, unusable};
use crate::http::fields::names::remove_copies;

impl Inject for Header {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        let (before, after) = self.template.parts();
        let mut value = Zeroizing::new(Vec::with_capacity(256));
        value.extend_from_slice(before.as_bytes());
        value.extend_from_slice(credential.value().expose());
        value.extend_from_slice(after.as_bytes());
        set_header(&mut outgoing.head.headers, &self.name, &value).map_err(|_| unusable(credential))
    }
}

/// Removes every copy of the header, including spellings with `_` (CGI and WSGI servers read them as the same name).
/// Then sets the real value.
pub(super) fn set_header(
    headers: &mut HeaderMap,
    name: &HeaderName,
    value: &[u8],
) -> Result<(), InvalidHeaderValue> {
    let mut real = HeaderValue::from_bytes(value)?;
    real.set_sensitive(true);
    remove_copies(headers, name);
    headers.insert(name, real);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{Request, header};
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
