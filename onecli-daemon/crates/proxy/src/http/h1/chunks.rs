//! Chunked framing (RFC 9112 section 7.1), byte by byte, up to the last chunk.

use super::section::is_field_text;
use super::violation::Violation;

/// Maximum number of digits in a chunk's size. Such a size fits the 63 bits of every recipient.
const MAX_DIGITS: u8 = 15;
/// Maximum number of bytes of chunk extensions in one body. It is below hyper's own limit of 16 KiB, at which hyper
/// closes without a response.
const MAX_EXTENSIONS: usize = 8 * 1024;

/// The position of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
}

/// Parses the chunks of one body.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// The size that the size line gives so far; in the data, the number of bytes left.
    size: u64,
    digits: u8,
    extensions: usize,
}

/// How many of the bytes are valid.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of them.
    All,
    /// This many bytes; they end with the last chunk's line, and the trailer section follows.
    Last(usize),
    /// This many bytes; the next byte breaks the framing.
    Bad(usize, Violation),
}

impl Chunks {
    /// Starts before the first chunk's size.
    pub(super) fn new() -> Chunks {
        Chunks { at: At::Size, size: 0, digits: 0, extensions: 0 }
    }

    /// Parses `bytes`, which follow those of the last call.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Progress {
        let mut pos = 0;
        while let Some(&byte) = bytes.get(pos) {
            if self.at == At::Data {
                let there = bytes.len() - pos;
                let take = usize::try_from(self.size).map_or(there, |left| left.min(there));
                pos += take;
                self.size -= u64::try_from(take).unwrap_or(self.size);
                if self.size == 0 {
                    self.at = At::DataCr;
                }
                continue;
            }
            match self.step(byte) {
                Ok(()) => pos += 1,
                Err(violation) => return Progress::Bad(pos, violation),
            }
            if self.at == At::Data && self.size == 0 {
                return Progress::Last(pos);
            }
        }
        Progress::All
    }

    /// Parses one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<(), Violation> {
        self.at = match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.digits == MAX_DIGITS {
                    return Err(Violation::ChunkSize);
                }
                self.digits += 1;
                self.size = self.size * 16 + u64::from(hexadecimal(byte));
                At::Size
            }
            (At::Size | At::Extension, b'\r') if self.digits > 0 => At::SizeLf,
            (At::Size, b';') if self.digits > 0 => At::Extension,
            (At::Extension, byte) if is_field_text(byte) => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Violation::ChunkExtension);
                }
                At::Extension
            }
            (At::SizeLf, b'\n') => At::Data,
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.digits = 0;
                At::Size
            }
            (At::Size | At::Extension, b'\n') => return Err(Violation::BareLf),
            (At::SizeLf, _) => return Err(Violation::BareCr),
            (At::DataCr | At::DataLf, _) => return Err(Violation::ChunkEnd),
            (At::Size | At::Extension | At::Data, _) => return Err(Violation::ChunkSize),
        };
        Ok(())
    }
}

fn hexadecimal(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
