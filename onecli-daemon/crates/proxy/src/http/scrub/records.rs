//! Responses that consist of records, each of which is complete in itself.
//!
//! Server-sent events need no support here: an empty line ends an event, and it ends every match.

use http::header::{self, HeaderMap};

/// The flag and length before each gRPC message, in bytes.
const GRPC_PREFIX: usize = 5;

/// The kind of records in a response.
#[derive(Debug, Default)]
pub(crate) enum Records {
    /// No record ends before the response does.
    #[default]
    One,
    /// A JSON value on each line (`application/x-ndjson`, `application/jsonl`).
    Lines,
    /// gRPC messages (`application/grpc` and its variants in binary form).
    Grpc(Message),
}

/// The position of a stream within a gRPC message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Number of prefix bytes read.
    prefix: usize,
    /// The length that was read so far; after the prefix, the number of message bytes left.
    left: u32,
}

impl Records {
    /// Returns the kind of records of a response with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Records {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Records::One };
        let media = value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default();
        let media = media.trim_ascii().to_ascii_lowercase();
        match media.as_slice() {
            b"application/x-ndjson" | b"application/jsonl" => Records::Lines,
            // The messages are in base64.
            media if media.starts_with(b"application/grpc-web-text") => Records::One,
            media if media.starts_with(b"application/grpc") => Records::Grpc(Message::default()),
            _ => Records::One,
        }
    }

    /// Processes a chunk that is not searched, because the search may begin in the middle of a stream.
    pub(super) fn pass(&mut self, chunk: &[u8]) {
        if let Records::Grpc(message) = self {
            message.last_end(chunk);
        }
    }

    /// The end of the last record that this chunk completes.
    pub(super) fn last_end(&mut self, chunk: &[u8]) -> Option<usize> {
        match self {
            Records::One => None,
            Records::Lines => memchr::memrchr(b'\n', chunk).map(|at| at + 1),
            Records::Grpc(message) => message.last_end(chunk),
        }
    }
}

impl Message {
    fn last_end(&mut self, chunk: &[u8]) -> Option<usize> {
        let (mut at, mut end) = (0, None);
        while let Some(&byte) = chunk.get(at) {
            if self.prefix < GRPC_PREFIX {
                // The flag comes first, then four bytes of length.
                self.left = if self.prefix == 0 { 0 } else { self.left << 8 | u32::from(byte) };
                self.prefix += 1;
                at += 1;
            } else {
                let rest = u32::try_from(chunk.len() - at).unwrap_or(u32::MAX);
                let take = rest.min(self.left);
                self.left -= take;
                at += usize::try_from(take).unwrap_or(0);
            }
            if self.prefix == GRPC_PREFIX && self.left == 0 {
                end = Some(at);
                self.prefix = 0;
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_follow_from_the_content_type() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(value));
            match Records::of(&headers) {
                Records::One => "one",
                Records::Lines => "lines",
                Records::Grpc(_) => "grpc",
            }
        };
        for (value, expected) in [
            ("application/x-ndjson", "lines"),
            ("Application/JSONL; charset=utf-8", "lines"),
            ("application/json", "one"),
            ("text/event-stream", "one"),
            ("application/grpc", "grpc"),
            ("application/grpc+proto", "grpc"),
            ("application/grpc-web+proto", "grpc"),
            ("application/grpc-web-text", "one"),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
        assert!(matches!(Records::of(&HeaderMap::new()), Records::One));
    }

    #[test]
    fn messages_end_at_their_declared_length() {
        let stream =
            [&[0, 0, 0, 0, 3][..], b"abc", &[1, 0, 0, 0, 0], &[0, 0, 0, 1, 0], &[b'x'; 256], &[0, 0]]
                .concat();
        let ends = [8, 13, 13 + 5 + 256];
        for size in 1..=stream.len() {
            let mut message = Message::default();
            let (mut found, mut from) = (Vec::new(), 0);
            for chunk in stream.chunks(size) {
                found.extend(message.last_end(chunk).map(|end| from + end));
                from += chunk.len();
            }
            let expected: Vec<usize> =
                ends.into_iter().filter(|end| size == 1 || found.contains(end)).collect();
            assert_eq!(found, expected, "{size}");
            assert_eq!(found.last(), ends.last(), "{size}");
        }
    }
}
