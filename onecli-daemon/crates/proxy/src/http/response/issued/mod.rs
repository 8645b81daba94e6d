//! Masks credentials that a service issues in its responses. This is the second layer after the denials of a
//! template.
//!
//! Only the templates and the text decide which bytes are found, held back and masked. No secret's value has an
//! influence.

mod containers;
mod kinds;
mod masker;
mod members;
mod recent;
mod shapes;
mod tags;

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use onecli_model::{Code, Profile};
use onecli_policy::{Grant, RequestFacts};

use self::kinds::Kinds;
use self::masker::{Found, Masker};
use self::members::Format;
use crate::session::request_audit::RequestAudit;

/// The search in the response to one request.
#[derive(Debug, Default)]
pub(crate) struct Issued {
    kinds: Kinds,
    /// Set if the response contains content that users stored at the service.
    is_content: bool,
    in_headers: Found,
}

impl Issued {
    /// Returns the search for a request with these credentials.
    pub(crate) fn new(grants: &[Grant], request: &RequestFacts<'_>) -> Issued {
        let profiles = || grants.iter().map(|grant| &grant.secret().profile);
        let kinds =
            profiles().flat_map(|profile| profile.issued().iter().map(|kind| (kind, profile.mask_issued)));
        let host = request.authority.host();
        let is_content = profiles()
            .flat_map(Profile::content)
            .any(|content| content.matches(request.method, host, &request.path, request.operations));
        Issued { kinds: Kinds::new(kinds.collect()), is_content, in_headers: Found::default() }
    }

    /// Returns whether a body with these headers is not searched at all.
    pub(crate) fn is_idle(&self, headers: &HeaderMap) -> bool {
        self.kinds.is_empty() || format_of(headers).is_none()
    }

    /// Masks the header fields that a template lists.
    pub(crate) fn headers(&mut self, headers: &mut HeaderMap) {
        mask_fields(&self.kinds, headers, &mut self.in_headers);
    }

    /// Adds the search to a body whose content codings are decoded.
    pub(crate) fn stage<B>(self, status: StatusCode, headers: &HeaderMap, body: B) -> Stage<B> {
        let Issued { kinds, is_content, in_headers } = self;
        // A part of a document may start anywhere.
        let reads_members = !is_content && status != StatusCode::PARTIAL_CONTENT;
        let format = format_of(headers).filter(|_| !kinds.is_empty());
        let masker = format.map(|format| Box::new(Masker::new(kinds.clone(), format, reads_members)));
        Stage { body, kinds, masker, trailers: None, in_headers }
    }
}

fn mask_fields(kinds: &Kinds, fields: &mut HeaderMap, found: &mut Found) {
    for (name, value) in fields.iter_mut() {
        match kinds.header(name.as_str(), value.as_bytes()) {
            Some(true) => {
                found.masked += 1;
                let mask = "*".repeat(value.len());
                *value = HeaderValue::try_from(mask).unwrap_or(HeaderValue::from_static("*"));
            }
            Some(false) => found.passed += 1,
            None => {}
        }
    }
}

/// The format of a body. `None` for bodies that are never changed: archives, images, packs, event streams and other
/// binary data.
fn format_of(headers: &HeaderMap) -> Option<Format> {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        // A client guesses the type, so the text decides.
        return Some(Format::Text);
    };
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // Two types in one field count like two fields.
    let Some((class, name)) = kind.split_once('/').filter(|(_, name)| !name.contains(',')) else {
        return Some(Format::Text);
    };
    // GitHub sends files as `application/vnd.github.raw+json`.
    if name.contains(".raw") {
        return Some(Format::Content);
    }
    let ends =
        |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('+'));
    match (class, name) {
        ("text", "event-stream") => None,
        // Includes JSON lines, JSON sequences and versioned types.
        _ if name.contains("json") => Some(Format::Json),
        (_, "javascript" | "x-javascript" | "ecmascript") => Some(Format::Json),
        _ if ends("xml") => Some(Format::Xml),
        ("application", "x-www-form-urlencoded") => Some(Format::Form),
        ("text", _) => Some(Format::Text),
        _ => None,
    }
}

/// A body that is searched while it streams.
#[derive(Debug)]
pub(crate) struct Stage<B> {
    body: B,
    kinds: Kinds,
    masker: Option<Box<Masker>>,
    /// Trailers that wait until the held bytes are sent.
    trailers: Option<HeaderMap>,
    in_headers: Found,
}

impl<B> Stage<B> {
    /// Raises an alert if anything was found. Similar alerts are folded.
    pub(crate) fn report(&self, audit: &mut RequestAudit) {
        let body = self.masker.as_ref().map(|masker| masker.found()).unwrap_or_default();
        let masked = body.masked + self.in_headers.masked;
        let passed = body.passed + self.in_headers.passed;
        if masked + passed > 0 {
            audit.alert(Code::CredentialIssued, &format!("issued: {masked} masked, {passed} passed"));
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Stage<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(masker) = &mut this.masker else {
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
            return Poll::Ready(frame.map(|frame| frame.map(|frame| this.with_masked_trailers(frame))));
        };
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let frame = ready!(Pin::new(&mut this.body).poll_frame(cx)).transpose()?;
            let decided = match frame.map(Frame::into_data) {
                None => {
                    let rest = masker.finish();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
                Some(Ok(data)) => masker.push(&data),
                Some(Err(frame)) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    mask_fields(&this.kinds, &mut trailers, &mut this.in_headers);
                    this.trailers = Some(trailers);
                    masker.finish()
                }
            };
            if !decided.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(decided))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held() == 0 && self.trailers.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, held) = (self.body.size_hint(), self.held());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }
}

impl<B> Stage<B> {
    fn with_masked_trailers(&mut self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(trailers) = frame.trailers_mut() {
            mask_fields(&self.kinds, trailers, &mut self.in_headers);
        }
        frame
    }

    fn held(&self) -> u64 {
        self.masker.as_ref().map_or(0, |masker| masker.held() as u64)
    }
}

#[cfg(test)]
mod tests;
