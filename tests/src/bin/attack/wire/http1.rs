//! HTTP/1.1 responses as they arrive (RFC 9112), with the sizes of their chunks.

use std::io::{self, Read};

/// An upper bound for every response here, in bytes.
const LONGEST: usize = 64 << 20;

/// A response, possibly incomplete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status; 0 if no head arrived.
    pub(crate) status: u16,
    /// The head, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The sizes of the chunks of a chunked body.
    pub(crate) chunks: Vec<usize>,
    /// The sizes of the TLS records that carried it.
    pub(crate) records: Vec<usize>,
    /// Whether the complete body arrived.
    pub(crate) complete: bool,
}

impl Answer {
    /// Every value of a header field.
    pub(crate) fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The first value of a header field.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.fields(name).next().map(str::to_owned)
    }

    /// The error code, if the daemon refused the request.
    pub(crate) fn code(&self) -> Option<String> {
        self.field("x-onecli-error")
    }

    /// Head and body.
    pub(crate) fn everything(&self) -> Vec<u8> {
        [self.head.as_bytes(), b"\r\n\r\n", &self.body].concat()
    }
}

/// Reads a head, byte by byte, and no byte after it.
pub(crate) fn read_head(stream: &mut impl Read) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    head.truncate(head.len() - 4);
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or_default();
    Ok(Answer { status, head, ..Answer::default() })
}

/// Reads one response. If the connection ends early, it contains the bytes that arrived.
pub(crate) fn read(stream: &mut impl Read) -> Answer {
    loop {
        let Ok(mut answer) = read_head(stream) else { return Answer::default() };
        // `100 Continue` and `103 Early Hints` precede the response.
        if matches!(answer.status, 100 | 102..=199) {
            continue;
        }
        answer.complete = read_body(stream, &mut answer).is_ok();
        return answer;
    }
}

fn read_body(stream: &mut impl Read, answer: &mut Answer) -> io::Result<()> {
    if matches!(answer.status, 101 | 204 | 304) {
        return Ok(());
    }
    if answer.fields("transfer-encoding").any(|v| v.eq_ignore_ascii_case("chunked")) {
        return read_chunks(stream, answer);
    }
    if let Some(length) = answer.field("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        return read_some(stream, length, &mut answer.body);
    }
    answer.body = read_rest(stream);
    Ok(())
}

fn read_chunks(stream: &mut impl Read, answer: &mut Answer) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            while !read_line(stream)?.is_empty() {}
            return Ok(());
        }
        answer.chunks.push(size);
        read_some(stream, size, &mut answer.body)?;
        read_line(stream)?;
    }
}

/// Appends `count` bytes to `to`, or fewer if the stream ends.
fn read_some(stream: &mut impl Read, count: usize, to: &mut Vec<u8>) -> io::Result<()> {
    let mut left = count.min(LONGEST);
    let mut buffer = [0; 16 * 1024];
    while left > 0 {
        let room = left.min(buffer.len());
        let read = stream.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.extend(&buffer[..read]);
        left -= read;
    }
    Ok(())
}

fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(io::Error::other)
}

/// Reads until the end of the stream or an error.
pub(crate) fn read_rest(stream: &mut impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        all.extend(&buffer[..read]);
        if all.len() > LONGEST {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_counted() {
        let mut text: &[u8] =
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nA: 1\r\nTransfer-Encoding: \
            chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\nrest";
        let answer = read(&mut text);
        assert_eq!((answer.status, answer.body.as_slice(), answer.complete), (200, &b"abcd"[..], true));
        assert_eq!((answer.chunks, text), (vec![3, 1], &b"rest"[..]));
    }

    #[test]
    fn a_short_body_is_not_complete() {
        let mut text: &[u8] = b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nabc";
        let answer = read(&mut text);
        assert_eq!((answer.status, answer.body.as_slice(), answer.complete), (404, &b"abc"[..], false));
    }
}
