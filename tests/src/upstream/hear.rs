//! A stream of events that a test controls while it runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderValue};
use http_body::Frame;

use super::answer::{Answer, streamed};
use super::record::{Log, Recorded};

/// The interval at which the record is polled.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends `hello`, and then the body of each new request to `/say` as an event. The stream has no end. `coding` is only
/// declared, not applied.
pub(super) fn hear(log: Arc<Log>, coding: Option<&str>) -> Answer {
    let state = (said(&log).len(), VecDeque::from(["hello".to_owned()]), log);
    let events = stream::unfold(state, |(mut seen, mut waiting, log)| async move {
        loop {
            if let Some(text) = waiting.pop_front() {
                let event = Frame::data(Bytes::from(format!("data: {text}\n\n")));
                return Some((Ok(event), (seen, waiting, log)));
            }
            tokio::time::sleep(PAUSE).await;
            waiting.extend(said(&log).into_iter().skip(seen));
            seen += waiting.len();
        }
    });
    let mut answer = streamed(events);
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    if let Some(coding) = coding.and_then(|coding| HeaderValue::from_str(coding).ok()) {
        fields.insert(header::CONTENT_ENCODING, coding);
    }
    answer
}

/// The complete bodies.
fn said(log: &Log) -> Vec<String> {
    let is_complete = |request: &Recorded| {
        request.header("content-length").is_some_and(|length| length == request.body_len.to_string())
    };
    let requests =
        log.requests().into_iter().filter(|request| request.path == "/say" && is_complete(request));
    requests.map(|request| String::from_utf8_lossy(&request.body).into_owned()).collect()
}
