//! Puts a credential into a request: first strips existing copies, then injects. The kinds of placements have one file
//! each, and one line of [`kinds`].

use http::header::HeaderMap;
use onecli_audit::Durable;
use onecli_model::placement::{Basic, Form, Header, Query, Replace, Segment, SigV4};
use onecli_model::{Code, InjectionTarget, Placeholder, Placement, Refusal};
use onecli_vault::Credential;

use super::kind::{Inject, Outgoing, StandInTest};
use crate::http::body::buffer::has_coding;
use crate::http::request::head::Head;
use crate::http::upstream::pool::Upstream;

/// Makes the functions that name each kind.
macro_rules! kinds {
    ($($kind:ident,)*) => {
        fn kind(placement: &Placement) -> &dyn Inject {
            match placement {
                $(Placement::$kind(kind) => kind,)*
            }
        }

        fn is_body_type(placement: &Placement, headers: &HeaderMap) -> bool {
            match placement {
                $(Placement::$kind(_) => $kind::is_body_type(headers),)*
            }
        }

        fn is_any_body_type(headers: &HeaderMap) -> bool {
            [$($kind::is_body_type,)*].iter().any(|is_type| is_type(headers))
        }
    };
}

kinds! {
    Header,
    Basic,
    Query,
    Form,
    Segment,
    Replace,
    SigV4,
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
    let head = &outgoing.head;
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
    kind(credential.placement()).inject(outgoing, credential)
}

/// Puts a placeholder in position for a test of a secret.
///
/// # Errors
/// A [`Refusal`] that names the missing option.
pub(crate) fn stand_in(
    placement: &Placement,
    head: &mut Head,
    placeholder: &str,
    test: &StandInTest<'_>,
) -> Result<(), Refusal> {
    kind(placement).stand_in(head, placeholder, test)
}

/// Returns whether the placement's placeholder may be in the body, and the daemon reads the body as the server does,
/// that is, without a content coding.
pub(crate) fn may_be_in_body(placement: &Placement, headers: &HeaderMap) -> bool {
    !has_coding(headers) && is_body_type(placement, headers)
}

/// Returns whether the body has a content coding, and otherwise could contain a placeholder of some kind.
pub(crate) fn is_hidden_by_coding(headers: &HeaderMap) -> bool {
    has_coding(headers) && is_any_body_type(headers)
}

/// Returns the placeholders in the body that are in position, with their fields.
pub(crate) fn placeholders_in(body: &[u8], fields: &[Placement]) -> Vec<(InjectionTarget, Placeholder)> {
    let in_field = |field: &Placement| {
        let target = field.injection_target();
        kind(field).placeholders_in(body).into_iter().map(move |each| (target.clone(), each))
    };
    fields.iter().flat_map(in_field).collect()
}
