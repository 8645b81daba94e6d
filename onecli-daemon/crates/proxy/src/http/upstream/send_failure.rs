//! The reasons that an upstream gave no response.

use http::Request;
use hyper::client::conn::TrySendError;

use crate::http::body::replay::AttemptBody;
use crate::http::h2::Unanswered;

/// The error of a connection to an upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl UpstreamError {
    /// Returns whether the head of the response exceeds the limit.
    pub(super) fn is_head_too_large(&self) -> bool {
        matches!(self, UpstreamError::Http1(error) if error.is_parse_too_large())
    }
}

/// The reason that there is no response.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The upstream provably did not process the request. Nothing was sent, or the upstream excluded the stream by
    /// GOAWAY (RFC 9113 section 6.8) or refused it (section 8.7).
    Unprocessed(UpstreamError),
    /// The connection ended without one byte of a response.
    Silent(UpstreamError),
    /// The response broke off, or the request's body did.
    Failed(UpstreamError),
}

impl SendFailure {
    /// Returns the failure of a request over HTTP/1.1. `has_received` is set if any part of a response arrived.
    pub(crate) fn http1(mut error: TrySendError<Request<AttemptBody>>, has_received: bool) -> SendFailure {
        let is_unsent = error.take_message().is_some();
        let error = error.into_error();
        // The request's body or the received data caused the failure.
        let is_failed = error.is_user() || error.is_parse() || has_received;
        match (is_unsent, is_failed) {
            (true, _) => SendFailure::Unprocessed(error.into()),
            (false, true) => SendFailure::Failed(error.into()),
            (false, false) => SendFailure::Silent(error.into()),
        }
    }

    /// Returns the failure of a request over HTTP/2.
    pub(crate) fn http2(Unanswered { is_unsent, error }: Unanswered) -> SendFailure {
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if is_unsent || (error.is_remote() && (error.is_go_away() || is_refused)) {
            return SendFailure::Unprocessed(error.into());
        }
        // This side reset the stream, because the request's body broke off.
        if error.is_reset() && !error.is_remote() && !error.is_library() {
            return SendFailure::Failed(error.into());
        }
        SendFailure::Silent(error.into())
    }

    /// The error of the connection.
    pub(crate) fn error(&self) -> &UpstreamError {
        match self {
            SendFailure::Unprocessed(error) | SendFailure::Silent(error) | SendFailure::Failed(error) => {
                error
            }
        }
    }
}
