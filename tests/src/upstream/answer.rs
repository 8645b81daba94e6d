//! Types and constructors of responses.

use bytes::Bytes;
use futures_util::Stream;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;

pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;
pub(super) type Request = http::Request<Incoming>;
pub(super) type Answer = Response<Body>;

pub(super) fn streamed<S>(frames: S) -> Answer
where
    S: Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static,
{
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

pub(super) fn not_found(path: &str) -> Answer {
    text(StatusCode::NOT_FOUND, format!("the test upstream has no {path}\n"))
}

pub(super) fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = text(status, value.to_string());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

pub(super) fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}
