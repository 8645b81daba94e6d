//! An HTTP/2 client that shows each frame (RFC 9113).

use std::io::{self, Read, Write};

use onecli_tests::h2wire::{block, frame, preface};

use super::Tunnel;

/// Frame types.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
/// `END_STREAM` and `END_HEADERS`.
const WHOLE: u8 = 5;

/// The data received on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamAnswer {
    /// The sizes of the DATA frames.
    pub(crate) frames: Vec<usize>,
    pub(crate) body: Vec<u8>,
    /// Whether it ended with `END_STREAM`.
    pub(crate) complete: bool,
}

/// A connection that carries one request after another.
pub(crate) struct Http2 {
    tunnel: Tunnel,
    next: u32,
}

impl Http2 {
    /// Starts HTTP/2 on a tunnel that negotiated it.
    pub(crate) fn new(mut tunnel: Tunnel) -> io::Result<Self> {
        tunnel.write_all(&preface())?;
        Ok(Self { tunnel, next: 1 })
    }

    /// Sends a request without a body, and reads its stream to the end.
    pub(crate) fn ask(&mut self, fields: &[(&str, &str)]) -> io::Result<StreamAnswer> {
        let fields: Vec<_> = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        self.ask_block(&block(&fields))
    }

    /// Sends a request with a field block that the caller encoded.
    fn ask_block(&mut self, fields: &[u8]) -> io::Result<StreamAnswer> {
        let stream = self.next;
        self.next += 2;
        self.tunnel.write_all(&frame(HEADERS, WHOLE, stream, fields))?;
        self.tunnel.flush()?;
        let mut answer = StreamAnswer::default();
        while !self.step(stream, &mut answer)? {}
        Ok(answer)
    }

    /// A GET of `path`.
    pub(crate) fn get(&mut self, authority: &str, path: &str) -> io::Result<StreamAnswer> {
        self.ask(&[(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)])
    }

    /// A GET of `path`, which has fewer than 127 bytes and need not be text.
    pub(crate) fn get_bytes(&mut self, authority: &str, path: &[u8]) -> io::Result<StreamAnswer> {
        let text = |pairs: &[(&str, &str)]| {
            block(&pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
        };
        let mut fields = text(&[(":method", "GET"), (":scheme", "https"), (":authority", authority)]);
        // A literal, unindexed field (RFC 7541 section 6.2.2).
        fields.extend(b"\x00\x05:path");
        fields.push(u8::try_from(path.len()).map_err(io::Error::other)?);
        fields.extend(path);
        self.ask_block(&fields)
    }

    /// Sends a GET without reading the response.
    pub(crate) fn begin(&mut self, authority: &str, path: &str) -> io::Result<()> {
        let fields = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", path)];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let stream = self.next;
        self.next += 2;
        self.tunnel.write_all(&frame(HEADERS, WHOLE, stream, &block(&fields)))?;
        self.tunnel.flush()
    }

    /// Reads one frame and returns whether the stream has ended.
    fn step(&mut self, wanted: u32, answer: &mut StreamAnswer) -> io::Result<bool> {
        let mut head = [0; 9];
        self.tunnel.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.tunnel.read_exact(&mut payload)?;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & 1 == 0 => self.tunnel.write_all(&frame(SETTINGS, 1, 0, &[]))?,
            GOAWAY => return Ok(true),
            RST_STREAM if stream == wanted => return Ok(true),
            DATA if stream == wanted => {
                answer.frames.push(payload.len());
                answer.body.extend(&payload);
                if length > 0 {
                    self.tunnel.write_all(&frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes()))?;
                    self.tunnel.write_all(&frame(WINDOW_UPDATE, 0, stream, &length.to_be_bytes()))?;
                }
            }
            _ => {}
        }
        let ended = stream == wanted && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        answer.complete |= ended;
        Ok(ended)
    }
}
