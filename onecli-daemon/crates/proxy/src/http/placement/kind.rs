//! The interface of a placement to a request that is about to be sent.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use jiff::Timestamp;
use memchr::memmem;
use onecli_model::harmless::TestRequest;
use onecli_model::{Code, Placeholder, Refusal, SecretName, SecretValue};
use onecli_vault::Credential;
use zeroize::Zeroizing;

use crate::http::fields::names::{DIGESTS, remove_copies};
use crate::http::request::head::Head;

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

impl Outgoing {
    /// Sets a body with a value in it.
    pub(super) fn set_body(&mut self, body: Zeroizing<Vec<u8>>) {
        let headers = &mut self.head.headers;
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        for name in &DIGESTS {
            remove_copies(headers, name);
        }
        // Zeroed when hyper has sent it.
        self.body = Some(Bytes::from_owner(body));
    }
}

/// What a kind of placement does with a request. The rest of the kind is in the file of the same name in
/// `onecli_model::placement`.
pub(crate) trait Inject {
    /// Places the credential, exactly once.
    ///
    /// # Errors
    /// A [`Refusal`]: the value or the request does not fit.
    fn inject(&self, outgoing: &mut Outgoing, credential: &Credential) -> Result<(), Refusal>;

    /// Returns whether the content type is that of the bodies in which this kind replaces a placeholder.
    fn is_body_type(_headers: &HeaderMap) -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Returns the placeholders that are in position in a body of that type.
    fn placeholders_in(&self, _body: &[u8]) -> Vec<Placeholder> {
        Vec::new()
    }

    /// Puts a placeholder in position, as an agent's program would. `secret test` sends such a request.
    ///
    /// # Errors
    /// A [`Refusal`] that names the missing option.
    fn stand_in(&self, _head: &mut Head, _placeholder: &str, _test: &StandInTest<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

/// A test of a secret.
pub(crate) struct StandInTest<'t> {
    pub(crate) name: &'t SecretName,
    pub(crate) request: &'t TestRequest,
}

impl StandInTest<'_> {
    /// Returns a refusal for a placement in a body.
    pub(super) fn has_no_body(&self) -> Refusal {
        Refusal::new(
            Code::BadRequest,
            format!("secret '{}' is placed in a request body, and a test sends no body", self.name),
            "run the agent's program, and check 'onecli audit list'",
        )
    }
}

/// Returns a header value for a test.
///
/// # Errors
/// [`Code::BadRequest`].
pub(super) fn test_value(text: String) -> Result<HeaderValue, Refusal> {
    HeaderValue::try_from(text).map_err(|_| {
        Refusal::new(
            Code::BadRequest,
            "the user name contains characters that are invalid in a header",
            "--user",
        )
    })
}

/// The reason that nothing was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReplaced {
    /// The placeholder is not there.
    Absent,
    /// The value cannot be written there.
    Unusable,
    /// The field occurs more than once, so it is ambiguous.
    Repeated,
}

impl NotReplaced {
    /// Returns the refusal for a credential whose placeholder is replaced at `place`.
    pub(super) fn refusal(self, place: &str, credential: &Credential) -> Refusal {
        let name = credential.name();
        match self {
            NotReplaced::Absent => Refusal::new(
                Code::PlaceholderMissing,
                format!("the placeholder of secret '{name}' is not in {place}"),
                "send it there, because the service expects its credential there",
            ),
            NotReplaced::Repeated => Refusal::new(
                Code::BadRequest,
                format!("the request has {place} more than once"),
                "send it once, because servers differ about which one they use",
            ),
            NotReplaced::Unusable => unusable(credential),
        }
    }
}

/// A placeholder in the forms in which its agent may send it: complete, and without its prefix.
pub(crate) struct StandIn<'c> {
    pub(crate) forms: &'c [String],
}

impl StandIn<'_> {
    /// Returns `text` with every occurrence of the placeholder replaced with `value`.
    pub(super) fn replace(&self, text: &[u8], value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let form = self.forms.iter().find(|form| memmem::find(text, form.as_bytes()).is_some())?;
        let count = memmem::find_iter(text, form.as_bytes()).count();
        let mut out = Zeroizing::new(Vec::with_capacity(text.len() + count * value.len()));
        let mut from = 0;
        for at in memmem::find_iter(text, form.as_bytes()) {
            out.extend_from_slice(&text[from..at]);
            out.extend_from_slice(value);
            from = at + form.len();
        }
        out.extend_from_slice(&text[from..]);
        Some(out)
    }
}

/// Returns a refusal for a value that does not fit its placement.
pub(super) fn unusable(credential: &Credential) -> Refusal {
    Refusal::new(
        Code::SecretUnavailable,
        format!("the value of secret '{}' does not fit its placement", credential.name()),
        format!("ask an administrator to store it again: onecli secret rotate {}", credential.name()),
    )
}
