//! An upstream that runs one step after the other, and a record of everything that an agent sees.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use futures_util::stream;
use http::header::HeaderMap;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use onecli_model::{SecretValue, WireForm};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::super::ScrubbedBody;
use crate::http::body::{BodyError, len};
use crate::http::decode::Source;
use crate::http::scrub::{Records, Scrubber};
use crate::http::websocket::messages;
use crate::limits::idle_timeout::IdleTimeout;

/// The visible bytes, with the number of the upstream's steps before each. No other clock runs, so a delay appears as
/// a later step.
pub(super) type Trace = Vec<(usize, Vec<u8>)>;

/// The pieces that an upstream sends step by step. The flag is set if the upstream is then silent for longer than
/// [`FLUSH`].
pub(super) type Script = Vec<(Bytes, bool)>;

/// If held bytes are sent after a silence, this is its length.
pub(super) const FLUSH: Duration = Duration::from_millis(40);

/// The number of the upstream's completed steps.
pub(super) type Clock = Arc<AtomicUsize>;

/// Runs one step after the other, each after all effects of the previous one.
pub(super) async fn play(script: &Script, clock: &Clock, mut send: impl FnMut(usize, Bytes)) {
    settle().await;
    for (number, (piece, is_silent)) in script.iter().enumerate() {
        clock.fetch_add(1, Ordering::Relaxed);
        send(number, piece.clone());
        settle().await;
        clock.fetch_add(1, Ordering::Relaxed);
        if *is_silent {
            tokio::time::sleep(FLUSH * 3).await;
            settle().await;
        }
    }
    clock.fetch_add(1, Ordering::Relaxed);
}

/// Lets every other task of this thread run until it waits.
pub(super) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(super) fn scrubber(value: &str, flush: Option<Duration>) -> Scrubber {
    let mut scrubber = Scrubber::default();
    scrubber.wait_at_most(flush);
    scrubber.add_forms(&WireForm::plain(&SecretValue::new(value.into()).unwrap()));
    scrubber
}

/// An upstream's body.
pub(super) struct Scripted {
    pub(super) pieces: UnboundedReceiver<Bytes>,
    /// The number of remaining bytes, if it is known.
    pub(super) left: Option<u64>,
    pub(super) trailers: Option<HeaderMap>,
}

impl HttpBody for Scripted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match std::task::ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => {
                self.left = self.left.map(|left| left - len(&piece));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            None => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A response's body in the form that hyper gets.
pub(super) struct Agents<S>(ScrubbedBody<S>);

impl<S: HttpBody<Data = Bytes, Error = BodyError> + Unpin> HttpBody for Agents<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0
            .poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map_err(|fault| BodyError::from(format!("{fault:?}")))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The agent's connection, which records each write.
pub(super) struct Recorder {
    stream: DuplexStream,
    clock: Clock,
    trace: Arc<Mutex<Trace>>,
}

impl AsyncRead for Recorder {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Recorder {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        let now = self.clock.load(Ordering::Relaxed);
        self.trace.lock().push((now, buf[..written].to_vec()));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Serves one response of this body on a connection.
pub(super) async fn serve_on<C, S>(version: Version, connection: C, source: S, scrubber: Scrubber)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpBody<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    let body = Agents(ScrubbedBody::new(source, scrubber, IdleTimeout::new(Duration::from_mins(15)), false));
    let body = Mutex::new(Some(body));
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        let body = body.lock().take().unwrap();
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let connection = TokioIo::new(connection);
    // The agent may close first.
    let _ = match version {
        Version::Http1 => {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.auto_date_header(false).keep_alive(false).serve_connection(connection, service).await
        }
        Version::Http2 => {
            let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            http.auto_date_header(false).serve_connection(connection, service).await
        }
    };
}

/// Serves one response with this body, and returns what the agent sees of it.
pub(super) async fn serve<S>(version: Version, source: S, scrubber: Scrubber, clock: Clock) -> Trace
where
    S: HttpBody<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    let (agent, daemon) = tokio::io::duplex(1 << 20);
    let trace = Arc::new(Mutex::new(Trace::new()));
    let recorder = Recorder { stream: daemon, clock, trace: Arc::clone(&trace) };
    let served = tokio::spawn(serve_on(version, recorder, source, scrubber));
    match version {
        Version::Http1 => {
            let mut agent = agent;
            agent.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
            let mut all = Vec::new();
            agent.read_to_end(&mut all).await.unwrap();
        }
        Version::Http2 => {
            let (mut send, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(agent))
                    .await
                    .unwrap();
            let connection = tokio::spawn(connection);
            let request = Request::get("http://a.test/").body(String::new()).unwrap();
            let response = send.send_request(request).await.unwrap();
            response.into_body().collect().await.unwrap();
            drop(send);
            let _ = connection.await;
        }
    }
    served.await.unwrap();
    std::mem::take(&mut *trace.lock())
}

/// What the agent reads from a WebSocket. The upstream sends each piece as a frame, followed by a ping; four frames
/// are a message.
pub(super) async fn websocket(script: &Script, scrubber: Scrubber) -> Trace {
    let (mut upstream, daemon) = tokio::io::duplex(1 << 20);
    let clock = Clock::default();
    let now = Arc::clone(&clock);
    let reading = tokio::spawn(async move {
        let mut frames = messages::scrubbed(daemon, scrubber, Arc::default());
        let (mut trace, mut buffer) = (Trace::new(), vec![0; 4096]);
        loop {
            let read = frames.read(&mut buffer).await.unwrap();
            if read == 0 {
                return trace;
            }
            trace.push((now.load(Ordering::Relaxed), buffer[..read].to_vec()));
        }
    });
    let (sender, mut sent) = unbounded_channel::<Vec<u8>>();
    let writing = tokio::spawn(async move {
        while let Some(frame) = sent.recv().await {
            upstream.write_all(&frame).await.unwrap();
        }
    });
    play(script, &clock, |number, piece| {
        let first = u8::from(number % 4 == 0) | if number % 4 == 3 { 0x80 } else { 0 };
        let mut frame = vec![first, 126];
        frame.extend(u16::try_from(piece.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&piece);
        frame.extend_from_slice(&[0x89, 2, b's', b'k']);
        sender.send(frame).unwrap();
    })
    .await;
    drop(sender);
    writing.await.unwrap();
    reading.await.unwrap()
}

/// The script in a coding, flushed after each piece.
pub(super) async fn compressed(coding: &str, script: &Script) -> Script {
    async fn encode<E: AsyncWrite + Unpin>(
        mut encoder: E,
        script: &Script,
        of: impl Fn(&E) -> &Vec<u8>,
    ) -> Script {
        let (mut out, mut taken) = (Script::new(), 0);
        for (number, (piece, is_silent)) in script.iter().enumerate() {
            encoder.write_all(piece).await.unwrap();
            encoder.flush().await.unwrap();
            if number + 1 == script.len() {
                encoder.shutdown().await.unwrap();
            }
            out.push((of(&encoder)[taken..].to_vec().into(), *is_silent));
            taken = of(&encoder).len();
        }
        out
    }
    match coding {
        "gzip" => encode(GzipEncoder::new(Vec::new()), script, |encoder| encoder.get_ref()).await,
        "br" => encode(BrotliEncoder::new(Vec::new()), script, |encoder| encoder.get_ref()).await,
        _ => encode(ZstdEncoder::new(Vec::new()), script, |encoder| encoder.get_ref()).await,
    }
}

/// The framing of a response.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    WithLength,
    Unknown,
    Trailers,
    Records(&'static str),
    Coding(&'static str),
}

pub(super) const WAYS: [Way; 8] = [
    Way::WithLength,
    Way::Unknown,
    Way::Trailers,
    Way::Records("application/x-ndjson"),
    Way::Records("application/grpc"),
    Way::Coding("gzip"),
    Way::Coding("br"),
    Way::Coding("zstd"),
];

/// Returns what the agent sees of a response with this framing.
pub(super) async fn http(version: Version, way: Way, script: &Script, mut scrubber: Scrubber) -> Trace {
    let (sender, pieces) = unbounded_channel::<Bytes>();
    let clock = Clock::default();
    let now = Arc::clone(&clock);
    let mut body = Scripted { pieces, left: None, trailers: None };
    let mut script = script.clone();
    let serving = match way {
        Way::Coding(coding) => {
            script = compressed(coding, &script).await;
            let data = stream::unfold(body.pieces, |mut pieces| async move {
                let piece = pieces.recv().await?;
                Some((Ok(piece), pieces))
            });
            tokio::spawn(serve(version, Source::for_test(coding, data), scrubber, now))
        }
        other => {
            match other {
                Way::WithLength => body.left = Some(script.iter().map(|(piece, _)| len(piece)).sum()),
                Way::Trailers => {
                    let field = (http::header::ETAG, "\"sk-\"".parse().unwrap());
                    body.trailers = Some([field].into_iter().collect());
                }
                Way::Records(kind) => {
                    let field = (http::header::CONTENT_TYPE, kind.parse().unwrap());
                    scrubber.split_into(Records::of(&[field].into_iter().collect()));
                }
                _ => {}
            }
            tokio::spawn(serve(version, body, scrubber, now))
        }
    };
    play(&script, &clock, |_, piece| {
        // A response with a length ends with its last byte.
        let _ = sender.send(piece);
    })
    .await;
    drop(sender);
    serving.await.unwrap()
}

/// The trace for each way, by name. Fewer ways are used with silences.
pub(super) async fn traces(script: &Script, value: &str, flush: Option<Duration>) -> Vec<(String, Trace)> {
    let mut all = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        let ways = if flush.is_some() { &[Way::Unknown][..] } else { &WAYS };
        for &way in ways {
            let trace = http(version, way, script, scrubber(value, flush)).await;
            all.push((format!("{version:?}, {way:?}"), trace));
        }
    }
    all.push(("WebSocket".to_owned(), websocket(script, scrubber(value, flush)).await));
    all
}

/// The beginning of a response with this body, as an agent receives it.
pub(super) async fn response(
    version: Version,
    source: Scripted,
    scrubber: Scrubber,
) -> hyper::body::Incoming {
    let (agent, daemon) = tokio::io::duplex(1 << 16);
    tokio::spawn(serve_on(version, daemon, source, scrubber));
    let (agent, executor) = (TokioIo::new(agent), TokioExecutor::new());
    let request = Request::get("http://a.test/").header("host", "a.test").body(String::new()).unwrap();
    let response = match version {
        Version::Http1 => {
            let (mut send, connection) = hyper::client::conn::http1::handshake(agent).await.unwrap();
            tokio::spawn(connection);
            send.send_request(request).await
        }
        Version::Http2 => {
            let (mut send, connection) =
                hyper::client::conn::http2::handshake(executor, agent).await.unwrap();
            tokio::spawn(connection);
            send.send_request(request).await
        }
    };
    response.unwrap().into_body()
}
