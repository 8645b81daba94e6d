//! HTTP/2 by hand: frames (RFC 9113) and literal fields (RFC 7541), which no library would send.

/// `END_STREAM` and `END_HEADERS`.
pub const END: u8 = 0x5;

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

/// HEADERS of stream 1.
#[must_use]
pub fn head_frame(fields: &[(String, String)], flags: u8) -> Vec<u8> {
    frame(1, flags, 1, &block(fields))
}

/// A block of literal fields that are not indexed (RFC 7541 section 6.2.2).
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

/// What the frames in `bytes` say of stream 1.
#[derive(Debug, Default)]
pub struct Answer {
    /// Content so far.
    pub data: Vec<u8>,
    /// A head was there.
    pub answered: bool,
    /// The stream, or the connection, is at its end.
    pub ended: bool,
}

impl Answer {
    /// Reads what is whole of the frames in `bytes`.
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
