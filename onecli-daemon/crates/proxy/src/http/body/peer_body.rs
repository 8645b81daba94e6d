//! The body of a message from a peer: an agent's request, or an upstream's response.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::h2_body::H2Body;
use super::types::BodyError;

/// A body over HTTP/1.1 or HTTP/2.
#[derive(Debug)]
pub(crate) enum PeerBody {
    /// A body that hyper reads.
    Http1(Incoming),
    /// A body that h2 reads.
    Http2(H2Body),
}

impl From<Incoming> for PeerBody {
    fn from(body: Incoming) -> PeerBody {
        PeerBody::Http1(body)
    }
}

impl From<H2Body> for PeerBody {
    fn from(body: H2Body) -> PeerBody {
        PeerBody::Http2(body)
    }
}

impl HttpBody for PeerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            PeerBody::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            PeerBody::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            PeerBody::Http1(body) => body.is_end_stream(),
            PeerBody::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            PeerBody::Http1(body) => body.size_hint(),
            PeerBody::Http2(body) => body.size_hint(),
        }
    }
}
