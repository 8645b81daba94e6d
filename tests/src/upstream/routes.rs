//! The responses, by path.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use bytes::Bytes;
use data_encoding::{BASE32, BASE64, BASE64URL_NOPAD, HEXLOWER};
use futures_util::{Stream, stream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::answer::{Answer, Request, full, json_answer, not_found, streamed, text};
use super::git::Repo;
use super::hear::hear;
use super::issue;
use super::record::{Connection, Entry, Log, Recorded};
use super::ws;

/// The largest body that `/bytes` and `/chunked` send.
const MOST_BYTES: u64 = 1 << 30;
const CHUNK: usize = 64 * 1024;
static FILL: [u8; CHUNK] = [b'x'; CHUNK];

/// The upstream's behaviour and its record.
pub(super) struct Routes {
    pub(super) log: Arc<Log>,
    pub(super) git: Option<Repo>,
    pub(super) pages: HashMap<String, (HeaderValue, Bytes)>,
}

impl Routes {
    pub(super) async fn answer(&self, request: Request, connection: &Connection) -> Answer {
        let (head, body) = request.into_parts();
        let entry = self.log.record(&head, connection);
        let request = Request::from_parts(head, body);
        let path = request.uri().path().to_owned();
        let request_query = request.uri().query().map(str::to_owned);
        let query = query(request_query.as_deref().unwrap_or_default());
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
        if let Some(page) = self.pages.get(&path) {
            return self::page(page, query.get("coding").map(String::as_str)).await;
        }
        if first == "discard" {
            return discard(request.into_body()).await;
        }
        let Ok(hash) = read(request.into_body(), &entry).await else {
            return text(StatusCode::BAD_REQUEST, "the body ended early\n");
        };
        let seen = entry.snapshot();
        match (first, rest.parse::<u64>().ok()) {
            ("echo", _) => echo(&seen),
            ("compressed", _) => compressed(&seen, rest).await.unwrap_or_else(|| not_found(&path)),
            ("bomb", Some(count)) => bomb(usize::try_from(count).unwrap_or(0).min(1024)).await,
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
                (Some(count), Some(ms)) => sse(count, Duration::from_millis(ms), query.contains_key("at")),
                _ => not_found(&path),
            },
            ("stored", _) => text(StatusCode::OK, authorizations(&self.log).join("\n")),
            ("watch", _) => match (number("n", 20), number("ms", 100)) {
                (Some(count), Some(ms)) => watch(Arc::clone(&self.log), count, Duration::from_millis(ms)),
                _ => not_found(&path),
            },
            ("hear", _) => hear(Arc::clone(&self.log), query.get("coding").map(String::as_str)),
            ("say", _) => text(StatusCode::OK, "said\n"),
            ("redirect", _) => redirect(&query),
            ("trailers", _) => trailers(request_query.as_deref()),
            ("issue", _) => issued(request_query.as_deref(), number("status", 200)),
            ("token", Some(seconds)) => self.token(seconds),
            ("slow-token", Some(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms.min(60_000))).await;
                self.token(3600)
            }
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

/// Kubernetes' `TokenReview` API. It reports the service account that the token itself names.
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
    /// Tokens and refresh tokens are numbered by the token requests since the log was cleared.
    fn token(&self, seconds: u64) -> Answer {
        let is_for_token = |seen: &&Recorded| {
            ["/token/", "/slow-token/", "/app/"].iter().any(|own| seen.path.starts_with(own))
        };
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

/// Reads the body into the record and returns its SHA-256 in hexadecimal.
async fn read(mut body: Incoming, entry: &Entry) -> Result<String, hyper::Error> {
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        if let Some(data) = frame.data_ref() {
            hash.update(data);
            entry.body(data);
        } else if let Some(trailers) = frame.trailers_ref() {
            entry.trailers(trailers);
        }
    }
    Ok(HEXLOWER.encode(&hash.finalize()))
}

/// Counts the body without storing it.
async fn discard(mut body: Incoming) -> Answer {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return text(StatusCode::BAD_REQUEST, "the body ended early\n"),
        }
    }
    json_answer(StatusCode::OK, &json!({ "bytes": bytes }))
}

fn query(query: &str) -> HashMap<String, String> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
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
        "base64" => |v| BASE64.encode(v.as_ref()),
        "base32" => |v| BASE32.encode(v.as_bytes()),
        "hex" => |v| HEXLOWER.encode(v.as_bytes()),
        "percent" => |v| {
            v.bytes().fold(String::new(), |mut all, byte| {
                write!(all, "%{byte:02X}").expect("writing to a String succeeds");
                all
            })
        },
        _ => return None,
    };
    let lines = seen.headers.iter().fold(String::new(), |mut all, (name, value)| {
        // For `Bearer X` also X alone: base64 of the whole need not contain the base64 of a part.
        let last = value.rsplit(' ').next().unwrap_or_default();
        writeln!(all, "{name}: {} {}", encode(value), encode(last)).expect("writing to a String succeeds");
        all
    });
    Some(text(StatusCode::OK, lines))
}

/// A page, optionally in a content coding.
async fn page((kind, bytes): &(HeaderValue, Bytes), coding: Option<&str>) -> Answer {
    let mut answer = match coding {
        Some("gzip") => {
            let mut out = Vec::new();
            finish(GzipEncoder::new(&mut out), bytes).await;
            let mut answer = streamed(stream::iter([Ok(Frame::data(Bytes::from(out)))]));
            answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            answer
        }
        _ => Response::new(full(bytes.clone())),
    };
    answer.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    answer
}

/// The content of [`echo`] in a content coding, regardless of `Accept-Encoding`.
async fn compressed(seen: &Recorded, coding: &str) -> Option<Answer> {
    let said = echo(seen).into_body().collect().await.ok()?.to_bytes();
    let mut out = Vec::new();
    match coding {
        "gzip" => finish(GzipEncoder::new(&mut out), &said).await,
        "deflate" => finish(ZlibEncoder::new(&mut out), &said).await,
        "br" => finish(BrotliEncoder::new(&mut out), &said).await,
        "zstd" => finish(ZstdEncoder::new(&mut out), &said).await,
        // No client can decode this coding.
        "aes128gcm" => out.extend_from_slice(&said),
        _ => return None,
    }
    let mut answer = streamed(stream::iter([Ok(Frame::data(Bytes::from(out)))]));
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::try_from(coding).ok()?);
    Some(answer)
}

/// So many MiB of zeros, compressed to a thousandth of their length.
async fn bomb(count: usize) -> Answer {
    let mut member = Vec::new();
    finish(GzipEncoder::new(&mut member), &vec![0; 1 << 20]).await;
    // A file may be several members (RFC 1952 section 2.2).
    let whole = Bytes::from(member.repeat(count));
    let mut answer = streamed(stream::iter([Ok(Frame::data(whole))]));
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    answer
}

async fn finish(mut encoder: impl AsyncWrite + Unpin, said: &[u8]) {
    encoder.write_all(said).await.expect("writing to memory succeeds");
    encoder.shutdown().await.expect("writing to memory succeeds");
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

fn sse(count: u64, pause: Duration, stamped: bool) -> Answer {
    let events = stream::unfold(0, move |sent| async move {
        if sent == count {
            return None;
        }
        if sent > 0 {
            tokio::time::sleep(pause).await;
        }
        let at = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_millis());
        let stamp = if stamped { format!(": sent at {at}\n") } else { String::new() };
        let event = format!("{stamp}id: {sent}\ndata: event {sent}\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), sent + 1))
    });
    let mut answer = streamed(events);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}

/// The values that an upstream can return if it stores the requests.
fn authorizations(log: &Log) -> Vec<String> {
    let requests = log.requests();
    requests.iter().filter_map(|seen| seen.header("authorization")).map(str::to_owned).collect()
}

/// Sends the recorded values this many times, with a pause between.
fn watch(log: Arc<Log>, count: u64, pause: Duration) -> Answer {
    let events = stream::unfold((log, 0), move |(log, sent)| async move {
        if sent == count {
            return None;
        }
        tokio::time::sleep(pause).await;
        let event = format!("data: {}\n\n", authorizations(&log).join(" "));
        Some((Ok(Frame::data(Bytes::from(event))), (log, sent + 1)))
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

/// Over HTTP/1.1 hyper sends trailers only to a client that sends `TE: trailers` (RFC 9110 section 6.5.1).
fn issued(query: Option<&str>, status: Option<u64>) -> Answer {
    let status =
        status.and_then(|code| u16::try_from(code).ok()).and_then(|code| StatusCode::from_u16(code).ok());
    let body = issue::all(query.unwrap_or_default(), "body").concat();
    let mut answer = text(status.unwrap_or_default(), body);
    issue::add(query, answer.headers_mut());
    answer
}

fn trailers(query: Option<&str>) -> Answer {
    let mut fields = HeaderMap::new();
    issue::add(query, &mut fields);
    fields.insert("x-checksum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"body\n"))), Ok(Frame::trailers(fields))];
    let mut answer = streamed(stream::iter(frames));
    answer.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    answer
}
