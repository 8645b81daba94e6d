//! Writes the body of a message to its stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as HttpBody, Frame};

use crate::http::body::BodyError;

/// Writes `body` to `stream`, with its trailers. If the body breaks off, the stream is reset.
///
/// # Errors
/// The peer reset the stream, the connection ended, or the body broke off.
pub(super) async fn pipe<B>(mut body: B, mut stream: SendStream<Bytes>) -> Result<(), BodyError>
where
    B: HttpBody<Data = Bytes, Error = BodyError> + Unpin,
{
    loop {
        let frame = poll_fn(|cx| unless_reset(&mut stream, cx, |_, cx| Pin::new(&mut body).poll_frame(cx)));
        match frame.await? {
            Some(Ok(frame)) => {
                if write(&mut stream, frame, body.is_end_stream()).await? {
                    return Ok(());
                }
            }
            Some(Err(error)) => {
                stream.send_reset(reason_of(&*error));
                return Err(error);
            }
            None => {
                stream.send_data(Bytes::new(), true)?;
                return Ok(());
            }
        }
    }
}

/// Writes one frame of a body, the last one if `is_last`. Returns whether the stream has ended with it.
async fn write(
    stream: &mut SendStream<Bytes>,
    frame: Frame<Bytes>,
    is_last: bool,
) -> Result<bool, BodyError> {
    match frame.into_data() {
        Ok(data) => {
            if !data.is_empty() {
                await_capacity(stream).await?;
            }
            stream.send_data(data, is_last)?;
            Ok(is_last)
        }
        Err(frame) => {
            let Ok(trailers) = frame.into_trailers() else { return Ok(false) };
            stream.reserve_capacity(0);
            stream.send_trailers(trailers)?;
            Ok(true)
        }
    }
}

/// Waits until the peer accepts data. One byte is enough: h2 requests room for the rest when it has the data. A
/// larger reservation would be deducted from other streams of the connection.
async fn await_capacity(stream: &mut SendStream<Bytes>) -> Result<(), BodyError> {
    stream.reserve_capacity(1);
    while stream.capacity() == 0 {
        match poll_fn(|cx| unless_reset(stream, cx, SendStream::poll_capacity)).await? {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err("the stream ended".into()),
        }
    }
    Ok(())
}

/// Polls, unless the peer has reset the stream.
fn unless_reset<T>(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut SendStream<Bytes>, &mut Context<'_>) -> Poll<T>,
) -> Poll<Result<T, BodyError>> {
    if let Poll::Ready(reset) = stream.poll_reset(cx) {
        return Poll::Ready(Err(match reset {
            Ok(reason) => h2::Error::from(reason).into(),
            Err(error) => error.into(),
        }));
    }
    poll(stream, cx).map(Ok)
}

/// The reason of the HTTP/2 error behind `error`; if there is none, an internal error of this side.
fn reason_of(error: &(dyn std::error::Error + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
