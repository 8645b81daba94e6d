//! Places a credential as the password of Basic authentication.

use http::header;
use onecli_model::placement::Basic;
use onecli_model::{Refusal, SecretValue};
use onecli_vault::Credential;
use zeroize::Zeroizing;

use super::header::set_header;
use super::kind::{Inject, Outgoing, unusable};

impl Inject for Basic {
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal> {
        let value = Zeroizing::new(basic(&self.user, credential.value()));
        set_header(&mut outgoing.head.headers, &header::AUTHORIZATION, value.as_bytes())
            .map_err(|_| unusable(credential))
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
