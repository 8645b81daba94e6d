//! HTTP/2 written by hand: frames (RFC 9113) and literal fields (RFC 7541) that no library would send.

use std::io::{self, Read, Write};

/// `END_STREAM` and `END_HEADERS`.
pub const END: u8 = 0x5;

/// Payload of a frame, unless the receiver allows more (RFC 9113 section 4.2).
const MAX_PAYLOAD: usize = 16_384;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
///
/// # Panics
/// The payload has 2^24 bytes or more.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The preface with empty settings.
#[must_use]
pub fn preface() -> Vec<u8> {
    [PREFACE, &frame(4, 0, 0, &[])].concat()
}

/// HEADERS with `END_STREAM`, and as many CONTINUATION frames as the block needs (RFC 9113 section 6.10).
#[must_use]
pub fn head_frames(stream: u32, block: &[u8]) -> Vec<u8> {
    let last = block.chunks(MAX_PAYLOAD).count() - 1;
    let frames = block.chunks(MAX_PAYLOAD).enumerate().map(|(at, piece)| {
        // END_STREAM is flag 1 of the first, END_HEADERS flag 4 of the last.
        let (kind, flags) = if at == 0 { (1, 1) } else { (9, 0) };
        frame(kind, flags | if at == last { 4 } else { 0 }, stream, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

/// HEADERS of stream 1.
#[must_use]
pub fn head_frame(fields: &[(String, String)], flags: u8) -> Vec<u8> {
    frame(1, flags, 1, &block(fields))
}

/// A block of literal, unindexed fields (RFC 7541 section 6.2.2).
#[must_use]
pub fn block(fields: &[(String, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            match text.len() {
                short @ ..127 => out.push(u8::try_from(short).unwrap()),
                long => {
                    // RFC 7541 section 5.1.
                    out.push(127);
                    let mut rest = long - 127;
                    while rest >= 128 {
                        out.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    out.push(u8::try_from(rest).unwrap());
                }
            }
            out.extend(text.as_bytes());
        }
    }
    out
}

/// A received frame.
#[derive(Debug)]
pub struct Received {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Reads one frame.
///
/// # Errors
/// The connection ended.
pub fn read_frame(from: &mut impl Read) -> io::Result<Received> {
    let mut head = [0; 9];
    from.read_exact(&mut head)?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).map_err(io::Error::other)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Received { kind, flags, stream: u32::from_be_bytes(stream), payload })
}

/// The server's end of a connection, from which requests are read one after another.
pub struct Server<S>(pub S);

/// A request: its stream, and its body.
pub struct ServerRequest {
    /// The stream.
    pub stream: u32,
    /// The body so far.
    pub body: Vec<u8>,
    /// Whether its end was received.
    pub is_whole: bool,
}

impl<S: Read + Write> Server<S> {
    /// Reads the client's preface and sends empty settings.
    ///
    /// # Errors
    /// The connection ended.
    pub fn greet(mut stream: S) -> io::Result<Self> {
        stream.read_exact(&mut [0; PREFACE.len()])?;
        stream.write_all(&frame(4, 0, 0, &[]))?;
        stream.flush()?;
        Ok(Self(stream))
    }

    /// Reads a request until its end, or until `most` bytes of its body have arrived.
    ///
    /// # Errors
    /// The connection ended.
    pub fn request(&mut self, most: usize) -> io::Result<ServerRequest> {
        let mut request = ServerRequest { stream: 0, body: Vec::new(), is_whole: false };
        while !request.is_whole && (request.stream == 0 || request.body.len() < most) {
            let Received { kind, flags, stream, payload } = read_frame(&mut self.0)?;
            match kind {
                // HEADERS, DATA; END_STREAM is flag 1.
                1 => (request.stream, request.is_whole) = (stream, flags & 1 != 0),
                0 => {
                    request.body.extend(payload);
                    request.is_whole = flags & 1 != 0;
                }
                // SETTINGS are acknowledged.
                4 if flags & 1 == 0 => self.send(&frame(4, 1, 0, &[]))?,
                _ => {}
            }
        }
        Ok(request)
    }

    /// Responds with 200 and this body.
    ///
    /// # Errors
    /// The connection ended.
    pub fn respond(&mut self, stream: u32, body: &str) -> io::Result<()> {
        // 0x88 is `:status: 200` in the static table.
        self.send(&[frame(1, 4, stream, &[0x88]), frame(0, 1, stream, body.as_bytes())].concat())
    }

    /// Ends a stream with `RST_STREAM` and this code (RFC 9113 section 7).
    pub fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.send(&frame(3, 0, stream, &code.to_be_bytes()))
    }

    /// Sends GOAWAY without an error. Streams above `last` were not processed.
    pub fn go_away(&mut self, last: u32) -> io::Result<()> {
        self.send(&frame(7, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()))
    }

    /// Sends frames.
    ///
    /// # Errors
    /// The connection ended.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }
}

/// The content of stream 1 in a series of frames.
#[derive(Debug, Default)]
pub struct Answer {
    /// Content so far.
    pub data: Vec<u8>,
    /// Whether a head arrived.
    pub answered: bool,
    /// Whether the stream or the connection has ended.
    pub ended: bool,
}

impl Answer {
    /// Reads the complete frames in `bytes`.
    #[must_use]
    pub fn read(mut bytes: &[u8]) -> Answer {
        let mut answer = Answer::default();
        while bytes.len() >= 9 {
            let length = usize::try_from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])).unwrap();
            let Some(payload) = bytes.get(9..9 + length) else { break };
            let (kind, flags) = (bytes[3], bytes[4]);
            let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
            match (kind, stream) {
                (0, 1) => {
                    answer.data.extend(payload);
                    answer.ended |= flags & 1 != 0;
                }
                (1, 1) => {
                    answer.answered = true;
                    answer.ended |= flags & 1 != 0;
                }
                // RST_STREAM, GOAWAY.
                (3, 1) | (7, _) => answer.ended = true,
                _ => {}
            }
            bytes = &bytes[9 + length..];
        }
        answer
    }
}
