//! The answers, by path.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use futures_util::{Stream, stream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::git::Repo;
use super::record::{Connection, Entry, Log, Recorded};
use super::ws;

pub(super) type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;
pub(super) type Request = http::Request<Incoming>;
pub(super) type Answer = Response<Body>;

/// Largest body `/bytes` and `/chunked` send.
const MOST_BYTES: u64 = 1 << 30;
const CHUNK: usize = 64 * 1024;
static FILL: [u8; CHUNK] = [b'x'; CHUNK];

/// The upstream's behaviour and its record.
pub(super) struct Routes {
    pub(super) log: Arc<Log>,
    pub(super) git: Option<Repo>,
}

impl Routes {
    pub(super) async fn answer(&self, request: Request, connection: &Connection) -> Answer {
        let (head, body) = request.into_parts();
        let entry = self.log.record(&head, connection);
        let request = Request::from_parts(head, body);
        let path = request.uri().path().to_owned();
        let query = query(request.uri().query().unwrap_or_default());
        let number = |name: &str, default: u64| query.get(name).map_or(Some(default), |v| v.parse().ok());
        let (first, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        match first {
            "git" => match &self.git {
                Some(repo) => return repo.answer(request, &entry).await,
                None => return not_found(&path),
            },
            "ws" => return ws::upgrade(request, &entry.snapshot()),
            _ => {}
        }
        if first == "discard" {
            return discard(request.into_body()).await;
        }
        let Ok(hash) = read(request.into_body(), &entry).await else {
            return text(StatusCode::BAD_REQUEST, "the body broke off\n");
        };
        let seen = entry.snapshot();
        match (first, rest.parse::<u64>().ok()) {
            ("echo", _) => echo(&seen),
            ("compressed", _) => compressed(&seen, rest).await.unwrap_or_else(|| not_found(&path)),
            ("echo-as", _) => echo_as(&seen, rest).unwrap_or_else(|| not_found(&path)),
            ("status", Some(code)) => {
                match u16::try_from(code).ok().and_then(|c| StatusCode::from_u16(c).ok()) {
                    Some(status) => json_answer(status, &json!({ "status": code })),
                    None => not_found(&path),
                }
            }
            ("bytes", Some(count)) => {
                let count = count.min(MOST_BYTES);
                let mut answer = streamed(fill(count));
                answer.headers_mut().insert(header::CONTENT_LENGTH, count.into());
                answer
            }
            ("chunked", Some(count)) => streamed(fill(count.min(MOST_BYTES))),
            ("upload", _) => json_answer(StatusCode::OK, &json!({ "bytes": seen.body_len, "sha256": hash })),
            ("slow", Some(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms.min(60_000))).await;
                text(StatusCode::OK, "slow\n")
            }
            ("sse", _) => match (number("n", 3), number("ms", 50)) {
                (Some(count), Some(ms)) => sse(count, Duration::from_millis(ms)),
                _ => not_found(&path),
            },
            ("redirect", _) => redirect(&query),
            ("trailers", _) => trailers(),
            ("token", Some(seconds)) => self.token(seconds),
            ("app", _) if rest.ends_with("/access_tokens") => self.token(3600),
            ("apis", _) if rest.ends_with("/tokenreviews") => token_review(&seen.body),
            ("accept", Some(number)) => {
                let wanted = format!("Bearer minted-token-{number}");
                let taken = seen.header("authorization") == Some(wanted.as_str());
                let status = if taken { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
                json_answer(status, &json!({ "taken": taken }))
            }
            ("", _) => text(StatusCode::OK, "onecli test upstream\n"),
            _ => not_found(&path),
        }
    }
}

/// Kubernetes' `TokenReview` API: tells whose service account a token is, as it says itself.
fn token_review(review: &[u8]) -> Answer {
    let asked = serde_json::from_slice::<Value>(review).unwrap_or_default();
    let claims = asked["spec"]["token"]
        .as_str()
        .and_then(|token| BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok())
        .and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
    let status = claims.map_or(json!({ "authenticated": false, "error": "no token" }), |claims| {
        let uid = &claims["kubernetes.io"]["serviceaccount"]["uid"];
        json!({
            "authenticated": true, "audiences": claims["aud"],
            "user": { "username": claims["sub"], "uid": uid },
        })
    });
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status });
    json_answer(StatusCode::CREATED, &review)
}

impl Routes {
    /// Tokens and refresh tokens are numbered by the requests for them since the log was cleared.
    fn token(&self, seconds: u64) -> Answer {
        let is_for_token =
            |seen: &&Recorded| seen.path.starts_with("/token/") || seen.path.starts_with("/app/");
        let number = self.log.requests().iter().filter(is_for_token).count();
        if seconds == 0 {
            return json_answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "invalid_grant", "error_description": "x" }),
            );
        }
        let body = json!({
            "access_token": format!("minted-token-{number}"),
            "token_type": "Bearer",
            "expires_in": seconds,
            "refresh_token": format!("refresh-token-{number}"),
        });
        json_answer(StatusCode::OK, &body)
    }
}

/// Reads the body into the record; gives its SHA-256 in hex.
async fn read(mut body: Incoming, entry: &Entry) -> Result<String, hyper::Error> {
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            hash.update(data);
            entry.body(data);
        }
    }
    Ok(HEXLOWER.encode(&hash.finalize()))
}

/// Counts the body, and nothing else.
async fn discard(mut body: Incoming) -> Answer {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return text(StatusCode::BAD_REQUEST, "the body broke off\n"),
        }
    }
    json_answer(StatusCode::OK, &json!({ "bytes": bytes }))
}

fn query(query: &str) -> HashMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn echo(seen: &Recorded) -> Answer {
    let body = json!({
        "method": seen.method,
        "path": seen.path,
        "authority": seen.authority,
        "version": seen.version,
        "headers": seen.headers,
        "body": String::from_utf8_lossy(&seen.body),
    });
    let mut answer = json_answer(StatusCode::OK, &body);
    for (name, value) in &seen.headers {
        let name = HeaderName::try_from(format!("x-echo-{name}")).expect("a field name with a prefix is one");
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

fn echo_as(seen: &Recorded, encoding: &str) -> Option<Answer> {
    let encode: fn(&str) -> String = match encoding {
        "base64" => |v| STANDARD.encode(v),
        "hex" => |v| HEXLOWER.encode(v.as_bytes()),
        "percent" => |v| {
            v.bytes().fold(String::new(), |mut all, byte| {
                write!(all, "%{byte:02X}").expect("a String takes it");
                all
            })
        },
        _ => return None,
    };
    let lines = seen.headers.iter().fold(String::new(), |mut all, (name, value)| {
        // Of `Bearer X` also X alone: base64 of the whole need not hold the base64 of a part.
        let last = value.rsplit(' ').next().unwrap_or_default();
        writeln!(all, "{name}: {} {}", encode(value), encode(last)).expect("a String takes it");
        all
    });
    Some(text(StatusCode::OK, lines))
}

/// What [`echo`] says, in a content coding, whatever was asked for.
async fn compressed(seen: &Recorded, coding: &str) -> Option<Answer> {
    let said = echo(seen).into_body().collect().await.ok()?.to_bytes();
    let mut out = Vec::new();
    match coding {
        "gzip" => finish(GzipEncoder::new(&mut out), &said).await,
        "deflate" => finish(ZlibEncoder::new(&mut out), &said).await,
        "br" => finish(BrotliEncoder::new(&mut out), &said).await,
        "zstd" => finish(ZstdEncoder::new(&mut out), &said).await,
        // Nobody can take this one off.
        "aes128gcm" => out.extend_from_slice(&said),
        _ => return None,
    }
    let mut answer = streamed(stream::iter([Ok(Frame::data(Bytes::from(out)))]));
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::try_from(coding).ok()?);
    Some(answer)
}

async fn finish(mut encoder: impl AsyncWrite + Unpin, said: &[u8]) {
    encoder.write_all(said).await.expect("memory takes it");
    encoder.shutdown().await.expect("memory takes it");
}

/// `count` bytes in chunks of at most [`CHUNK`].
fn fill(count: u64) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send {
    stream::unfold(count, |left| async move {
        if left == 0 {
            return None;
        }
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        Some((Ok(Frame::data(Bytes::from_static(&FILL[..now]))), left - now as u64))
    })
}

fn sse(count: u64, pause: Duration) -> Answer {
    let events = stream::unfold(0, move |sent| async move {
        if sent == count {
            return None;
        }
        if sent > 0 {
            tokio::time::sleep(pause).await;
        }
        let event = format!("id: {sent}\ndata: event {sent}\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), sent + 1))
    });
    let mut answer = streamed(events);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

fn redirect(query: &HashMap<String, String>) -> Answer {
    let status = query.get("status").and_then(|s| s.parse().ok()).unwrap_or(StatusCode::FOUND);
    let to = query.get("to").map_or("/echo", String::as_str);
    let mut answer = text(status, "elsewhere\n");
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(header::LOCATION, to);
    }
    answer
}

/// Over HTTP/1.1 hyper sends trailers only to a client that says `TE: trailers` (RFC 9110 section 6.5.1).
fn trailers() -> Answer {
    let mut fields = HeaderMap::new();
    fields.insert("x-checksum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"body\n"))), Ok(Frame::trailers(fields))];
    let mut answer = streamed(stream::iter(frames));
    answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    answer
}

fn streamed<S>(frames: S) -> Answer
where
    S: Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static,
{
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}

fn not_found(path: &str) -> Answer {
    text(StatusCode::NOT_FOUND, format!("the test upstream has no {path}\n"))
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
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
